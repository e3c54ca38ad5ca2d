package proxy

import (
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
	if c := route(b.view(time.Now()), l.rule, l.loads()); c.server == "" {
		return c.why
	}
	return "its turn had not come"
}

// turn is how long the connection has to wait for its turn at the server.
func (b *board) turn(l *ledger, p pick) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return l.tally(p.server).bucket.turn(time.Now())
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
