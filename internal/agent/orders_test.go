package agent

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"

	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/ha"
	"github.com/havenha/haven/internal/journal"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// TestOrdersWaitForWhatPasses: a step of the synchronous set takes some milliseconds, and so does a reconfiguration; a scheduled restart that met
// one was dropped.
func TestOrdersWaitForWhatPasses(t *testing.T) {
	a := &Agent{log: slog.New(slog.DiscardHandler)}
	restart, reinit := make(chan error, 1), make(chan error, 1)
	o := &a.st.orders
	o.restart, o.reinit = &restartOrder{reply: restart}, &reinitOrder{reply: reinit}
	v := ha.View{Task: &ha.Task{}}
	for _, v.Task.Kind = range []ha.Kind{ha.SetSync, reconfigure} {
		a.takeOrders(&v)
		if o.restart == nil || o.reinit == nil || len(restart)+len(reinit) > 0 {
			t.Errorf("in the middle of %s: %+v, %d and %d answers", v.Task.Kind, o, len(restart), len(reinit))
		}
	}
	v.Task.Kind = ha.Clone
	a.takeOrders(&v)
	if o.restart != nil || o.reinit != nil || len(restart) != 1 || len(reinit) != 1 {
		t.Errorf("in the middle of a copy: %+v, %d and %d answers", o, len(restart), len(reinit))
	}
}

// TestOrdersToReinitialize: whoever waits for an order that another takes the place of is told so, an order whose caller has gone is
// forgotten, and a copy that ends does not meet an order that has not been accepted.
func TestOrdersToReinitialize(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := New(Options{Node: &config.Node{Name: "a"}, Log: slog.New(slog.DiscardHandler)})
		life, end := context.WithCancel(t.Context())
		defer end()
		go func() { // the loop, which finds no time for orders
			for {
				select {
				case f := <-a.calls:
					f()
				case <-life.Done():
					return
				}
			}
		}()
		ask := func(ctx context.Context) <-chan error {
			reply := make(chan error, 1)
			go func() { reply <- a.Reinitialize(ctx, ha.Reinit{}, true) }()
			synctest.Wait()
			return reply
		}
		first := ask(t.Context())
		ctx, leave := context.WithCancel(t.Context())
		second := ask(ctx)
		var why ha.Refusal
		if err := <-first; !errors.As(err, &why) {
			t.Errorf("the first was told %v", err)
		}
		a.settleOrder(taskResult{kind: ha.Clone})
		if a.st.orders.reinit == nil {
			t.Error("a copy that was under way has met the second")
		}
		leave()
		if err := <-second; !errors.Is(err, context.Canceled) {
			t.Errorf("the second was told %v", err)
		}
		if a.st.orders.reinit != nil {
			t.Error("an order is left that nobody waits for")
		}

		a.st.orders.reinit = &reinitOrder{accepted: true}
		third := ask(t.Context())
		a.takeReinit(&ha.View{Task: &ha.Task{Kind: ha.StopFast}})
		if err := <-third; !errors.As(err, &why) {
			t.Errorf("in the middle of a stop the third was told %v", err)
		}
		if o := a.st.orders.reinit; o == nil || !o.accepted {
			t.Error("with the third, the accepted order was dropped")
		}

		fourth := ask(t.Context())
		a.settleOrder(taskResult{kind: ha.Clone})
		a.takeReinit(&ha.View{})
		if err := <-fourth; !errors.As(err, &why) {
			t.Errorf("without a store the fourth was told %v", err)
		}
		if a.st.orders.reinit != nil {
			t.Error("an order that was carried out is in force again")
		}
	})
}

// TestANewerLookStays: a look that began after that of an action may be there before the action's report.
func TestANewerLookStays(t *testing.T) {
	j, err := journal.Open(t.TempDir(), 1<<20)
	pgtest.Must(t, err)
	defer j.Close()
	for kind, stays := range map[ha.Kind]bool{reconfigure: true, ha.Rewind: false} {
		a := New(Options{Node: &config.Node{Name: "a"}, Journal: j, Log: slog.New(slog.DiscardHandler)})
		a.st.task, a.st.seen = &ha.Task{Kind: kind}, seen{at: 2}
		a.takeOutcome(t.Context(), taskResult{kind: kind, seen: seen{at: 1}})
		if a.st.task != nil || a.st.seen.at == 2 != stays {
			t.Errorf("%s: what counts was seen at %d, task %+v", kind, a.st.seen.at, a.st.task)
		}
	}
}
