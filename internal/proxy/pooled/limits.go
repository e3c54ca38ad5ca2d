package pooled

import (
	"time"

	"github.com/havenha/haven/internal/pgwire"
	"github.com/havenha/haven/internal/pgwire/frame"
)

// overdue looks at what all server connections do, and for who has taken too long. The door is locked.
func (d *Door) overdue() (servers []overdue, clients []*client) {
	now := time.Now()
	for s := range d.servers {
		set := s.lane.set.Load()
		if o := (overdue{s, set.QueryTimeout, set.IdleTransactionTimeout}); o.is(now) {
			servers = append(servers, o)
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

// overdue is a server connection on which a query, or a pause within a transaction, has lasted longer than that; 0: it may.
type overdue struct {
	server       *server
	query, pause time.Duration
}

func (o overdue) is(now time.Time) bool {
	o.server.mu.Lock()
	defer o.server.mu.Unlock()
	return o.why(now) != nil
}

// why tells what has lasted too long; nil: nothing. The server is locked.
func (o overdue) why(now time.Time) *pgwire.Error {
	s := o.server
	s.look(now)
	took := now.Sub(s.looked.since)
	switch l := s.looked; {
	case s.client == nil:
	case l.waits && o.query > 0 && took >= o.query:
		return s.tooLong("57014", "query_timeout")
	case l.pauses && o.pause > 0 && took >= o.pause:
		return s.tooLong("25P03", "idle_transaction_timeout")
	}
	return nil
}

// looked is what a server connection was seen to do at the last tick. So nothing has to be measured while messages pass, and times are
// right but for a tick.
type looked struct {
	moved  uint64    // what was sent, and turns
	waits  bool      // the client was to get something
	pauses bool      // or it was the client's turn
	since  time.Time // all that has not changed since then; zero: it was not looked at since it was lent
	edges  uint64
	open   time.Time // since when the transaction is open; zero: there is none
}

// look looks at what the connection does. The server is locked.
func (s *server) look(now time.Time) {
	// Replies to what was flushed come without a turn, as does the word that the server wants COPY data; and what is being sent is owed a
	// reply before it counts.
	l, moved, waits, pauses := &s.looked, uint64(s.sent.Load())+s.turns<<40, s.awaited(), s.paused()
	if s.stopped && s.client != nil {
		moved += s.client.turns.Load() // what comes of a message that has to be whole
	}
	if s.client == nil || l.since.IsZero() || moved != l.moved || waits != l.waits || pauses != l.pauses {
		l.moved, l.waits, l.pauses, l.since = moved, waits, pauses, now
	}
	open := s.client != nil && !s.x.Edge()
	if !open || s.edges != l.edges {
		l.edges, l.open = s.edges, time.Time{}
	}
	if open && l.open.IsZero() {
		l.open = now
	}
}

// awaited tells whether the client is to get something that is not there yet. The server is locked.
func (s *server) awaited() bool { return s.x.Owes() || len(s.cancelled.stash) > 0 }

// paused tells whether the client keeps the connection, and it is the client's turn: to go on with its transaction, with a message, with
// its data or to a Sync, or to read what it has asked for. The server is locked.
func (s *server) paused() bool {
	return s.stopped || !s.writing && !s.crowded && (s.x.Copying() || s.x.Stalled()) || !s.awaited() && (!s.x.Edge() || s.flushing > 0)
}

// tooLong is what the client is told, unless the end may leave something committed. The server is locked.
func (s *server) tooLong(code, limit string) *pgwire.Error {
	if s.fate() == frame.Unknown {
		return &pgwire.Error{Code: "08007", Message: limit, Hint: "Whether it was committed is not known."}
	}
	return &pgwire.Error{Code: code, Message: limit}
}

// end closes the server connection, and tells its client why, if that is still so: the client may have gone on since, or the connection
// been lent to another.
func (o overdue) end() {
	s := o.server
	s.mu.Lock()
	why := o.why(time.Now())
	if why == nil {
		s.mu.Unlock()
		return
	}
	s.breakOff(why)
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
	why := &pgwire.Error{Code: "57P05", Message: "client_idle_timeout"}
	c.ends(why)
	c.lastWords(why)
	c.in.end()
}
