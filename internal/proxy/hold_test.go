package proxy

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/havenha/haven/internal/cluster"
)

// TestHold: while the leader asks for it, a transaction that is open goes on, and none begins; what waited runs when the hold is taken
// back, or has lasted for as long as it was to.
func TestHold(t *testing.T) {
	a := newReal(t, "db1")
	w := start(t, pooledSettings("transaction"))
	free := a.leads(1, a)
	w.show(free)
	open, other := dialPooled(t, w.rw), []*pgx.Conn{dialPooled(t, w.rw), dialPooled(t, w.ro)} // a reader, too, is led to the primary here
	for _, c := range other {
		if _, err := portOn(c); err != nil {
			t.Fatal(err)
		}
	}
	held := func(rev int64, seconds float64) cluster.Snapshot {
		s := free
		s.Hold = &cluster.Hold{Term: 1, Seconds: seconds, ModRev: rev}
		return s
	}
	waiting := func(n int) func(Stats) bool {
		return func(s Stats) bool { return s.Listeners[0].Waiting == n && s.Listeners[1].Waiting == n }
	}
	for name, end := range map[string]func(){
		"taken back": func() { w.show(held(2, 100)); w.show(free) },
		"its time":   func() {},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			tx, err := open.Begin(ctx)
			if err != nil {
				t.Fatal(err)
			}
			seconds := 100.0
			if name == "its time" {
				seconds = 5
			}
			w.show(held(1, seconds))
			w.until("the hold was seen", func(Stats) bool { return w.proxy.holds() })
			began := make(chan error, len(other))
			for _, c := range other {
				go func() {
					_, err := portOn(c)
					began <- err
				}()
			}
			w.until("both statements wait", waiting(1))
			if _, err := tx.Exec(ctx, "SELECT 1"); err != nil {
				t.Errorf("a transaction that was open: %v", err)
			}
			if err := tx.Commit(ctx); err != nil {
				t.Errorf("its commit: %v", err)
			}
			select {
			case err := <-began:
				t.Errorf("a transaction began in a hold: %v", err)
				began <- err
			case <-time.After(100 * time.Millisecond):
			}
			end()
			for range other {
				if err := <-began; err != nil {
					t.Errorf("what waited: %v", err)
				}
			}
			w.show(free)
			w.until("nobody waits", waiting(0))
		})
	}
}

// holds tells whether a pooled listener begins no transactions at the moment.
func (p *Proxy) holds() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.listeners {
		if l.door != nil && l.door.Held() {
			return true
		}
	}
	return false
}
