package agent

import (
	"context"
	"errors"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/dcs"
)

// Times of a hold: how long proxies may take to see it, and how long they hold beyond the wait for open transactions, should nobody
// end it before.
const (
	holdSettles = 50 * time.Millisecond
	holdLasts   = 10 * time.Second
)

// quiesce has proxies hold new transactions, and waits for those that are open, for as long as switchover_wait says. Neither is a
// condition of the switchover: what is still open then is cut by it. resume takes the hold back.
func (a *Agent) quiesce(ctx context.Context, in input, e *effects) (resume func()) {
	wait := in.dynamic.Haven.SwitchoverWait
	if wait <= 0 {
		return func() {}
	}
	began := time.Now()
	a.writeHold(ctx, in, wait+holdLasts)
	pause(ctx, holdSettles)
	open, err := a.server.AwaitTransactions(ctx, wait)
	switch {
	case err != nil:
		a.log.Warn("it is not known which transactions are open; the switchover goes on", "error", err)
	case open > 0:
		e.note("%d transactions are still open after %s, and will be cut", open, wait)
	default:
		e.note("the transactions that were open have ended, after %s", time.Since(began).Round(time.Millisecond))
	}
	return func() { a.writeHold(context.WithoutCancel(ctx), in, 0) }
}

// writeHold writes a hold of that length, or takes it back. A store that does not take it does not stop the switchover.
func (a *Agent) writeHold(ctx context.Context, in input, length time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, passingNote)
	defer cancel()
	h := &cluster.Hold{Seconds: length.Seconds()}
	if in.snap.Term != nil {
		h.Term = in.snap.Term.Number
	}
	if _, _, err := a.store.Write(ctx, *in.holder, dcs.Changes{Hold: h}); err != nil && !errors.Is(err, dcs.ErrConflict) { // it has ended with the leadership
		a.log.Warn("proxies could not be told to hold, or to go on; their hold ends by itself", "error", err)
	}
}
