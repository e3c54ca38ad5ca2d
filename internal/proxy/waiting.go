package proxy

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/havenha/haven/internal/config"
)

// limits are the listener's settings as they are now.
func (b *board) limits(l *ledger) config.Listener {
	b.mu.Lock()
	defer b.mu.Unlock()
	return l.config
}

// hold counts a connection among those that wait; false: too many do.
func (b *board) hold(l *ledger, w *waiter) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := l.waiters[w]; ok {
		return true
	}
	if len(l.waiters) >= maxWaiting {
		l.rejected++
		return false
	}
	l.held++
	l.waiters[w] = struct{}{}
	return true
}

// resume ends hold.
func (b *board) resume(l *ledger, w *waiter) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(l.waiters, w)
}

// timedOut counts a connection that waited in vain and says why there was no server.
func (b *board) timedOut(l *ledger) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	l.timeouts++
	if c := b.route(l, time.Now()); c.server == "" {
		return c.why
	}
	return "its turn had not come"
}

// turns is what hands out the turns at the server; nil: nobody needs one.
func (b *board) turns(l *ledger, p pick) *bucket {
	b.mu.Lock()
	defer b.mu.Unlock()
	return l.tally(p.server).bucket
}

// lookEvery is how often it is looked whether those who wait are still there.
const lookEvery = time.Second

// dismiss ends the waits of clients that have left, until ctx ends. Else they would keep their places until a server comes.
func (l *listener) dismiss(ctx context.Context) {
	for ctx.Err() == nil {
		for _, w := range l.board.waiting(l.ledger) {
			w.look()
		}
		sleep(ctx, lookEvery)
	}
}

func (b *board) waiting(l *ledger) []*waiter {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Keys(l.waiters))
}

// look ends the wait if the client has left.
func (w *waiter) look() {
	if departed(w.client) {
		w.end(errDeparted)
	}
}

// retire closes a ledger to new sessions and returns those that it has.
func (b *board) retire(l *ledger) (all []*session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l.closed = true
	for s := range b.sessions {
		if s.ledger == l {
			all = append(all, s)
		}
	}
	for i, other := range b.ledgers {
		if other == l {
			b.ledgers = append(b.ledgers[:i:i], b.ledgers[i+1:]...)
			break
		}
	}
	return all
}

// enlist makes a ledger known.
func (b *board) enlist(l *ledger) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ledgers = append(b.ledgers, l)
	now := time.Now()
	l.note(b.view(now), now)
}

// configure changes the settings of a listener that goes on.
func (b *board) configure(l *ledger, c config.Listener) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l.configure(c)
	b.announce()
}

// sort puts the ledgers into the order of the listeners.
func (b *board) sort(listeners []*listener) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ledgers = nil
	for _, l := range listeners {
		b.ledgers = append(b.ledgers, l.ledger)
	}
}
