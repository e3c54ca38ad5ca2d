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
		set := s.lane.set
		if set.QueryTimeout > 0 || set.IdleTransactionTimeout > 0 {
			if why := s.late(now, set.QueryTimeout, set.IdleTransactionTimeout); why != nil {
				servers = append(servers, overdue{s, why})
			}
		}
	}
	for _, c := range d.clients {
		if limit := c.lane.set.ClientIdleTimeout; limit > 0 && c.idleFor(now) >= limit {
			clients = append(clients, c)
		}
	}
	return servers, clients
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
	case s.x.Owes() && query > 0 && took >= query:
		if s.x.Fate() == frame.Unknown {
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
	s.conn.Close()
	if c == nil {
		return
	}
	if !busy {
		c.lastWords(o.why)
	}
	c.conn.Close()
}

// idleFor is how long the client has sent nothing while it had no server. The door is locked.
func (c *client) idleFor(now time.Time) time.Duration {
	if n := c.turns.Load(); n != c.seen || c.since.IsZero() || c.waiter.Waits() {
		c.seen, c.since = n, now
	}
	return now.Sub(c.since)
}

// idleTooLong closes a client that has been idle.
func (c *client) idleTooLong() {
	if c.doomed.CompareAndSwap(false, true) {
		c.lastWords(&pgwire.Error{Code: "57P05", Message: "client_idle_timeout"})
		c.conn.Close()
	}
}
