package pooled

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"

	"github.com/havenha/haven/internal/pgwire"
)

var (
	errUnasked = errors.New("a message that nobody has asked for")
	errGone    = errors.New("the connection to the server was lost")
	errUnfit   = errors.New("server_check_query failed")
)

// grant is the end of a wait: a server, or why there is none.
type grant struct {
	server *server
	err    error
}

// checkout gets a server connection that nobody else has, and tells whether it had to wait for it.
func (c *client) checkout() (s *server, waited bool, err error) {
	d := c.door
	now := time.Now()
	c.linking.Store(true)
	d.mu.Lock()
	if c.doomed.Load() {
		d.mu.Unlock()
		return nil, false, io.EOF
	}
	if d.closed {
		d.mu.Unlock()
		return nil, false, &pgwire.Error{Code: "57P01", Message: "the proxy shuts down"}
	}
	a := d.book.Checkout(c.lane.pool, &c.waiter, now)
	if a == nil {
		d.carry()
	}
	d.mu.Unlock()
	if a != nil {
		c.began = time.Now()
		return a.Server, false, nil
	}
	g := <-c.grant
	// What else has become ready goes first: replies leave one after another then, and statements, and whoever they wake up has several
	// of them to deal with.
	runtime.Gosched()
	took := time.Since(now)
	c.began = now.Add(took)
	c.lane.counted.waits.observe(took)
	d.waited.Add(1)
	return g.server, true, g.err
}

// maxUnfit is after how many server connections that answer server_check_query with an error a client is told so: the next ones would, too.
const maxUnfit = 3

// link gets the client a server connection in its own state, and lends it. It alone makes a server's client something.
func (c *client) link() error {
	defer c.linking.Store(false)
	for unfit := 0; ; {
		s, waited, err := c.checkout()
		if err != nil {
			return err
		}
		if waited && c.in.departed() {
			s.giveBack()
			return errDeparted
		}
		if !s.seat.Valid() {
			s.dismiss()
			continue
		}
		if err := s.prepare(c); err != nil {
			s.dismiss()
			if errors.Is(err, errGone) {
				continue
			}
			if errors.Is(err, errUnfit) {
				if unfit++; unfit < maxUnfit {
					continue
				}
				err = &pgwire.Error{Code: "08P01", Message: err.Error()}
			}
			return err
		}
		if s.lend(c) {
			c.server = s
			return nil
		}
		s.dismiss()
	}
}

// lend links the two. A server whose reading goroutine is just about to wait is given a moment for that.
func (s *server) lend(c *client) bool {
	for try := range 500 {
		if s.lendTo(c) {
			return true
		}
		switch {
		case !s.in.busy() || !s.in.quiet():
			return s.lendTo(c) // it may have come to rest since
		case try < 10:
			runtime.Gosched()
		default:
			time.Sleep(200 * time.Microsecond)
		}
	}
	return false
}

// prepare brings a server connection that nobody else has into the client's state.
func (s *server) prepare(c *client) error {
	set := s.lane.set.Load()
	if set.ServerCheckQuery != "" && (set.ServerCheckDelay <= 0 || c.began.Sub(s.used) >= set.ServerCheckDelay) {
		if err := s.own(set.ServerCheckQuery); err != nil {
			s.door.opt.Log.Info("a server connection has failed server_check_query", "server", s.seat.Server(), "database", s.lane.key.Database, "error", err)
			return fmt.Errorf("%w: %w", errUnfit, err)
		}
	}
	has := s.values()
	if has == c.params {
		return nil
	}
	return s.own(s.door.tracked.change(has, c.params))
}

// values are those of the tracked parameters.
func (s *server) values() params {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.params
}

// lendTo links the two, if the server is still there, says nothing, and is still to be used.
func (s *server) lendTo(c *client) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.dead || s.cutoff || s.client != nil || s.task != nil || !s.settled || !s.x.Edge() || !s.in.quiet() || s.in.busy() || !s.seat.Valid() {
		return false
	}
	s.client, s.fresh, s.stopped, s.leaving, s.rows, s.kept = c, true, false, false, false, s.kept[:0]
	s.looked.since, s.edges = time.Time{}, s.edges+1
	return true
}

// unlend makes the connection nobody's, and counts the lending. The server is locked.
func (s *server) unlend() {
	s.lane.counted.lendings.observe(time.Since(s.client.began))
	s.client = nil
}

// release ends the lending, if nothing is owed, begun, unread or unwritten in either direction. True: the caller has to
// call giveBack, without the lock. Together with part, it alone makes a server's client nothing without ending the
// connection. The server is locked.
func (s *server) release() bool {
	if s.client == nil || s.dead || s.task != nil || !s.x.Edge() || s.writing || s.flushing > 0 || !s.settled || s.cancelled.pending > 0 || s.cancelled.forwarded {
		return false
	}
	if s.door.opt.Mode == Session && !s.leaving {
		return false
	}
	if s.cutoff {
		_ = s.client.conn.SetWriteDeadline(time.Time{}) // it outlives the server
	}
	s.unlend()
	return true
}

// returnWithin is how long a client waits for its connection to be returned, before it goes on using it: it may have sent more than it
// reads, so that the other goroutine waits for the client.
const returnWithin = 100 * time.Millisecond

// returned has a connection at an edge go back before its client uses it again: that was quicker than the goroutine which is about to
// return it. The server is locked, and still is afterwards.
func (s *server) returned(c *client) bool {
	for began := time.Now(); time.Since(began) < returnWithin; {
		if s.release() {
			s.mu.Unlock()
			s.giveBack()
			s.mu.Lock()
		}
		if s.client != c {
			return true
		}
		s.mu.Unlock()
		time.Sleep(50 * time.Microsecond)
		s.mu.Lock()
		if !s.x.Edge() {
			break
		}
	}
	return s.client != c
}

// giveBack returns a connection that nobody has to its pool, reset if need be.
func (s *server) giveBack() {
	s.mu.Lock()
	again, dirty := !s.dead && !s.cutoff && !s.spent, s.dirty && s.door.opt.Mode != Session
	s.mu.Unlock()
	set := s.lane.set.Load()
	reset := dirty || s.door.opt.Mode == Session || set.ServerResetQueryAlways
	switch {
	case !again || !s.seat.Valid():
		s.dismiss()
	case reset && set.ServerResetQuery != "":
		s.begin(set.ServerResetQuery, func(err error) {
			if err != nil || !s.wasReset() {
				s.dismiss()
				return
			}
			s.back()
		})
	case dirty:
		s.dismiss()
	default:
		s.back()
	}
}

// wasReset tells whether a connection may be lent again after its reset query. In a session, what that query undoes is enough, as with
// PgBouncer. In the other modes all has to be gone that outlives a transaction, and only DISCARD ALL is known to do that. Which prepared
// statements are left is not known, so all are made anew.
func (s *server) wasReset() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.statements.clear()
	return !s.dirty || s.door.opt.Mode == Session
}

func (s *server) back() {
	d, now := s.door, time.Now()
	s.used = now
	d.mu.Lock()
	d.book.Return(s.account, now)
	d.carry()
	d.mu.Unlock()
}
