package pooled

import (
	"time"

	"github.com/havenha/haven/internal/pgwire"
	"github.com/havenha/haven/internal/pgwire/frame"
)

// overdue looks for who has taken too long. The door is locked.
func (d *Door) overdue() (servers []overdue, clients []*client) {
	now := time.Now()
	for s := range d.servers {
		set := s.lane.set.Load()
		if set.QueryTimeout > 0 || set.IdleTransactionTimeout > 0 {
			if why := s.late(now, set.QueryTimeout, set.IdleTransactionTimeout); why != nil {
				servers = append(servers, overdue{s, why})
			}
		}
	}
	return servers, d.idle(now)
}

// idle are the clients that have been idle for too long. They are doomed, so that they get no server any more. Those that
// have one, or are about to have one, are not idle, whatever they send. The door is locked.
func (d *Door) idle(now time.Time) (out []*client) {
	var all []*client
	for _, c := range d.clients {
		switch {
		case c.lane.set.Load().ClientIdleTimeout <= 0:
		case c.linking.Load():
			c.since = time.Time{}
		default: // it is linked, and found so below, or needs the door before it is
			all = append(all, c)
		}
	}
	if all == nil {
		return nil
	}
	for s := range d.servers {
		if c := s.lentTo(); c != nil {
			c.since = time.Time{}
		}
	}
	for _, c := range all {
		if c.idleFor(now) >= c.lane.set.Load().ClientIdleTimeout && c.doomed.CompareAndSwap(false, true) {
			out = append(out, c)
		}
	}
	return out
}

func (s *server) lentTo() *client {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.client
}

type overdue struct {
	server *server
	why    *pgwire.Error
}

// late tells whether a query, or a pause within a transaction, has lasted too long.
func (s *server) late(now time.Time, query, pause time.Duration) *pgwire.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	sent := uint64(s.sent.Load()) + s.turns<<40
	if s.client == nil || s.since.IsZero() || sent != s.seen {
		s.seen, s.since = sent, now
		return nil
	}
	took := now.Sub(s.since)
	switch {
	case len(s.cancelled.stash) > 0 && !s.x.Owes():
		if query == 0 || took < query {
			return nil
		}
		return &pgwire.Error{Code: "08007", Message: "query_timeout", Hint: "Whether it was committed is not known."}
	case s.x.Owes() && query > 0 && took >= query:
		if s.fate() == frame.Unknown {
			return &pgwire.Error{Code: "08007", Message: "query_timeout", Hint: "Whether it was committed is not known."}
		}
		return &pgwire.Error{Code: "57014", Message: "query_timeout"}
	case !s.x.Owes() && !s.x.Edge() && pause > 0 && took >= pause:
		return &pgwire.Error{Code: "25P03", Message: "idle_transaction_timeout"}
	}
	return nil
}

// end closes the server connection, and tells its client why.
func (o overdue) end() {
	s := o.server
	s.mu.Lock()
	c, busy := s.client, s.flushing > 0 || s.torn
	if c != nil {
		c.doomed.Store(true)
		s.client, s.dead = nil, true
	}
	s.mu.Unlock()
	s.in.end()
	if c == nil {
		return
	}
	if !busy {
		c.lastWords(o.why)
	}
	c.in.end()
}

// idleFor is how long the client has sent nothing, and had no server, as far as since tells. The door is locked.
func (c *client) idleFor(now time.Time) time.Duration {
	if n := c.turns.Load(); n != c.seen || c.since.IsZero() || c.waiter.Waits() {
		c.seen, c.since = n, now
	}
	return now.Sub(c.since)
}

// idleTooLong closes a client that has been idle, and is doomed. It has no server, so it has no part of a message.
func (c *client) idleTooLong() {
	c.lastWords(&pgwire.Error{Code: "57P05", Message: "client_idle_timeout"})
	c.in.end()
}
