package pooled

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/havenha/haven/internal/pgwire"
	"github.com/havenha/haven/internal/pgwire/frame"
)

// maxKept bounds the text of a prepared statement that is kept to be prepared again.
const maxKept = 1 << 20

var errDeparted = errors.New("the client left while it waited")

// client is one client. Its own goroutine is the only one that reads it, and the only one that links it to a server.
type client struct {
	door   *Door
	who    *pgwire.Client
	conn   net.Conn
	key    pgwire.CancelKey
	lane   *lane
	in     sock
	waiter waiter
	grant  chan grant
	began  time.Time // when it got a server last
	doomed atomic.Bool
	// linking: a server is asked for, or being prepared.
	linking atomic.Bool
	turns   atomic.Uint64 // batches sent, so that idle ones are told

	seen  uint64 // turns, when limits of time were looked at last; guarded by the door
	since time.Time

	// The client's goroutine's own: the server that it was linked to last, and how much of a message is yet to come.
	server *server
	pass   int
	// declining: what the client sends is left out, since the batch that it belongs to has failed. first: the next message
	// is the one that failed.
	declining, first bool

	// Guarded by the server's mutex while the client is linked, else the client's goroutine's own.
	params   params
	prepared prepared
}

func newClient(d *Door, who *pgwire.Client) *client {
	c := &client{door: d, who: who, conn: who.Conn, grant: make(chan grant, 1)}
	c.waiter.Client = c
	c.in.open(who.Conn, &d.buffers, smallBuffer)
	c.key.Secret = newSecret(who.Version)
	return c
}

// greet tells the client what a server would after the login. Parameters that it asked for are tried on a server, unless
// it is known what comes of them.
func (c *client) greet() error {
	d := c.door
	wishes, refusal := d.wishes(c.who.Params)
	if refusal != nil {
		return c.refuse(refusal)
	}
	wishes, name := called(wishes)
	var key strings.Builder
	for _, w := range wishes {
		fmt.Fprintf(&key, "%d=%s%s", w.at, w.value, between)
	}
	d.mu.Lock()
	t := trial{welcome: c.lane.welcome}
	var ok bool
	t.got, ok = c.lane.known[key.String()]
	d.mu.Unlock()
	if !ok {
		var err error
		if t, err = c.try(wishes); err != nil {
			return c.refuse(err)
		}
		d.mu.Lock()
		c.lane.learn(key.String(), t)
		d.mu.Unlock()
	}
	c.params = t.got
	if name != nil {
		c.params = d.tracked.with(t.got, nameless, *name)
	}
	return c.hello(t.welcome)
}

// maxKnown bounds the sets of startup parameters that are remembered.
const maxKnown = 1000

// trial is what comes of startup parameters beside the settings that a new session has.
type trial struct {
	welcome   []pgwire.Param
	base, got params
}

// learn keeps what came of startup parameters, if the settings beside them still hold. The door is locked.
func (l *lane) learn(wishes string, t trial) {
	if t.base != l.base {
		return
	}
	if len(l.known) >= maxKnown {
		clear(l.known)
	}
	l.known[wishes] = t.got
}

// trial begins one.
func (c *client) trial() trial {
	c.door.mu.Lock()
	defer c.door.mu.Unlock()
	return trial{welcome: c.lane.welcome, base: c.lane.base}
}

// try sets parameters at a server, and reads what they are then.
func (c *client) try(wishes []wish) (trial, error) {
	defer c.linking.Store(false)
	for {
		s, _, err := c.checkout()
		if err != nil {
			return trial{}, err
		}
		for _, w := range wishes {
			name := c.door.tracked[w.at]
			if !slices.ContainsFunc(s.reported, func(p pgwire.Param) bool { return strings.EqualFold(p.Name, name) }) {
				s.giveBack()
				return trial{}, &pgwire.Error{Code: "08P01", Message: "unsupported startup parameter: " + name,
					Hint: "The server does not report changes of it, so it cannot be tracked. Remove it from pool.track_extra_parameters."}
			}
		}
		t := c.trial()
		if has := s.values(); has != t.base {
			err = s.own(c.door.tracked.change(has, t.base))
		}
		if err == nil && len(wishes) > 0 {
			err = s.own(c.door.tracked.statement(wishes))
		}
		t.got = s.values()
		switch {
		case err == nil:
			s.giveBack()
			return t, nil
		case errors.Is(err, errGone):
			s.dismiss()
		default:
			s.giveBack()
			return trial{}, err
		}
	}
}

// hello ends the login.
func (c *client) hello(welcome []pgwire.Param) error {
	out := c.who.Unsent
	values := strings.Split(c.params.Value(), between)
	for _, p := range welcome {
		if i := c.door.tracked.at(p.Name); i >= 0 {
			p.Value, _ = decoded(values[i])
		}
		out = pgwire.AppendParameterStatus(out, p.Name, p.Value)
	}
	out = pgwire.AppendBackendKeyData(out, c.key)
	_, err := c.conn.Write(pgwire.AppendReadyForQuery(out, pgwire.Idle))
	return err
}

// refuse ends the login with an error.
func (c *client) refuse(why error) error {
	c.door.opt.Log.Info("a client was refused", "client", c.conn.RemoteAddr().String(), "user", c.who.User, "database", c.who.Database, "error", why)
	_, _ = c.conn.Write(c.who.Unsent) // fails like what follows
	c.lastWords(why)
	return why
}

// lastWord is how long the words to a client that has to go may take.
const lastWord = time.Second

// lastWords tells the client why its connection ends. The caller closes it.
func (c *client) lastWords(why error) {
	var e *pgwire.Error
	if !errors.As(why, &e) {
		e = &pgwire.Error{Code: "08000", Message: why.Error()}
	}
	told := *e
	told.Severity = "FATAL"
	_ = c.conn.SetWriteDeadline(time.Now().Add(lastWord))
	_, _ = c.conn.Write(pgwire.AppendErrorResponse(nil, &told)) // who is not there needs no words
}

// run serves the client until it leaves, or is to be left.
func (c *client) run() {
	var failed error
	c.in.serve(func() (want int, ok bool) {
		c.turns.Add(1)
		want, failed = c.handle()
		return want, failed == nil
	})
	if failed != nil {
		c.say(failed)
	}
}

// say tells the client why it has to go, if it is for us to tell.
func (c *client) say(err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, errDeparted) || c.doomed.Load() {
		return
	}
	if errors.Is(err, frame.ErrMessage) {
		err = &pgwire.Error{Code: "08P01", Message: err.Error()}
	}
	c.ends(err)
	if c.part() { // now nobody else writes to it
		c.lastWords(err)
	}
}

// ends notes that the client has to go.
func (c *client) ends(why error) {
	c.door.opt.Log.Info("a client was ended", "client", c.conn.RemoteAddr().String(), "user", c.who.User, "database", c.who.Database, "error", why)
}

// handle uses what was read. It returns the length that the next message has to be there with.
func (c *client) handle() (want int, err error) {
	for {
		c.in.restore()
		b := c.in.unread()
		if len(b) == 0 {
			return 0, nil
		}
		if c.doomed.Load() {
			return 0, io.EOF
		}
		if c.pass > 0 {
			if err := c.forward(b[:min(c.pass, len(b))]); err != nil {
				return 0, err
			}
			continue
		}
		if s := c.server; s != nil {
			s.mu.Lock()
			if s.client == c {
				want, err = c.send(s, b) // unlocks
				if want != 0 || err != nil {
					return want, err
				}
				continue
			}
			s.mu.Unlock()
			c.server = nil
			continue
		}
		if want, err = c.begin(b); want != 0 || err != nil {
			return want, err
		}
	}
}

// begin looks at the first message of a client that has no server, and gets it one.
func (c *client) begin(b []byte) (want int, err error) {
	kind, size := frame.Next(b)
	if size == 0 {
		return frame.Head, nil
	}
	if err := frame.FromClient(kind, size); err != nil {
		return 0, err
	}
	if c.declining && kind != 'X' {
		return c.decline(kind, size, b)
	}
	switch kind {
	case 'X':
		return 0, io.EOF
	case 'd', 'c', 'f', 'H':
		// PostgreSQL ignores them too, for instance the rest of COPY data after an error.
		n := min(size, len(b))
		c.in.r, c.pass = c.in.r+n, size-n
		return 0, nil
	case 'p':
		return 0, fmt.Errorf("%w: a password after the login", frame.ErrMessage)
	}
	if size > len(b) && size <= largeBuffer {
		return size, nil
	}
	err = c.link()
	var e *pgwire.Error
	if !errors.As(err, &e) || e.Severity != "ERROR" {
		return 0, err
	}
	// The client outlives the statement that got no server: that is failed, and what belongs to it is left out.
	if _, err := c.conn.Write(pgwire.AppendErrorResponse(nil, e)); err != nil {
		return 0, io.EOF
	}
	c.declining, c.first = true, true
	return c.decline(kind, size, b)
}

// decline leaves out a message of a batch that has failed. Query and FunctionCall end it, as does Sync.
func (c *client) decline(kind byte, size int, b []byte) (want int, err error) {
	n := min(size, len(b))
	c.in.r, c.pass = c.in.r+n, size-n
	if kind == 'S' || c.first && (kind == 'Q' || kind == 'F') {
		c.declining = false
		if _, err := c.conn.Write(pgwire.AppendReadyForQuery(nil, pgwire.Idle)); err != nil {
			return 0, io.EOF
		}
	}
	c.first = false
	return 0, nil
}

// forward sends a part of a message whose beginning was sent, or drops it if the server is gone.
func (c *client) forward(part []byte) error {
	defer func(n int) { c.in.r, c.pass = c.in.r+n, c.pass-n }(len(part))
	c.in.grow()
	s := c.server
	if s == nil {
		return nil
	}
	s.mu.Lock()
	if s.client != c {
		s.mu.Unlock()
		c.server = nil
		return nil
	}
	s.fresh, s.stopped = false, false
	s.mu.Unlock()
	return c.write(s, part, len(part) < c.pass)
}

// maxOwed is how many replies may be owed before a client has to wait: it may ask for much in few bytes, and read none of it.
const maxOwed = 1 << 16

// send enters and sends as many messages as there are in b. The server is locked, and is unlocked.
func (c *client) send(s *server, b []byte) (want int, err error) {
	s.stopped = false // what it has sent may have to wait, and that is no fault of its own
	if err := c.awaitRoom(s); err != nil {
		s.mu.Unlock()
		return 0, err
	}
	if s.client != c {
		s.mu.Unlock()
		return 0, nil
	}
	if c.door.opt.Mode != Session && !s.fresh && s.x.Edge() && !s.cancelled.forwarded {
		if s.returned(c) {
			s.mu.Unlock()
			return 0, nil // and a connection is lent anew, after a look at it
		}
		s.fresh = true // as if it were lent anew
	}
	p := parcel{b: b}
	last := c.prepared.parcel
	c.prepared.begin()
	used, more := 0, 0
	for used < len(b) && more == 0 && len(p.out) < maxKept && s.x.Owed() < maxOwed { // a message of a few bytes may need a whole Parse before it
		kind, size := frame.Next(b[used:])
		if size == 0 {
			want = frame.Head
			break
		}
		if err = frame.FromClient(kind, size); err != nil || kind == 'X' || kind == 'p' {
			break
		}
		if want, err = c.enter(s, &p, used, kind, size); want != 0 || err != nil {
			break
		}
		n := min(size, len(b)-used)
		used, more = used+n, size-n
	}
	if used == 0 {
		c.prepared.parcel = last // what was sent last may have to be undone yet
		defer s.mu.Unlock()
		return c.hesitate(s, b[0], want, err)
	}
	out := p.close(used)
	s.writing = true
	s.keep(b[:used], more > 0)
	s.mu.Unlock()
	err = c.write(s, out, more > 0)
	p.release(&c.door.buffers)
	if errors.Is(err, errUnsent) {
		c.server = nil
		return 0, nil
	}
	c.in.r, c.pass = c.in.r+used, more
	return 0, err // what is wanted for the next message is asked again
}

// hesitate tells what comes of a message of that kind that was not entered. The server is locked.
func (c *client) hesitate(s *server, kind byte, want int, err error) (int, error) {
	switch {
	case want == replies:
		// All that is owed will not come: what follows the last Sync is not answered yet.
		turns := s.turns
		return 0, c.await(s, func() bool { return s.turns == turns && !s.x.Copying() })
	case err != nil:
		return 0, err
	case want != 0:
		s.stopped = true
		return want, nil
	case kind == 'p':
		return 0, fmt.Errorf("%w: a password after the login", frame.ErrMessage)
	}
	return 0, io.EOF
}

// awaitRoom waits until what is sent next may be: while a cancel request is on its way or is made good, or too much is owed. The server is
// locked.
func (c *client) awaitRoom(s *server) error {
	limit := maxOwed
	defer func() { s.crowded = false }()
	return c.await(s, func() bool {
		if s.crowded = s.x.Owed() >= limit; s.crowded {
			limit = maxOwed / 2 // so that it does not wait again for every reply
			if !s.cutoff && s.in.hungUp() {
				s.hurry() // nobody writes to it, who would notice, and its client may not read
			}
		}
		return s.crowded || s.cancelled.unclear()
	})
}

// await waits as long as that holds, the client has the server, and is there itself: while it waits, nobody reads it. The
// server is locked.
func (c *client) await(s *server, holds func() bool) error {
	for s.client == c && holds() {
		if c.in.hungUp() {
			return errDeparted
		}
		wake := time.AfterFunc(tick, func() {
			s.mu.Lock() // else it may come before the wait
			defer s.mu.Unlock()
			s.cancelled.calm.Broadcast()
		})
		s.cancelled.calm.Wait()
		wake.Stop()
	}
	return nil
}

// errUnsent: not a byte has left this process, or the server has said that it read none, and the server connection is gone.
var errUnsent = errors.New("nothing was sent")

// write writes to the server what was entered before. more: the message is not whole with it.
func (c *client) write(s *server, out []byte, more bool) error {
	n, err := s.in.write(out)
	s.sent.Add(int64(n))
	if err != nil {
		// Whatever the server has said before it went, its goroutine passes on; a client that takes none of it holds up neither.
		s.mu.Lock()
		s.hurry()
		s.mu.Unlock()
		_ = s.conn.SetReadDeadline(time.Now().Add(farewell))
		<-s.gone
	}
	s.mu.Lock()
	fresh, ours := s.fresh, s.client == c
	if s.dead && fresh && !c.doomed.Load() {
		s.mu.Unlock()
		return c.without(s, n == 0 && err != nil && s.in.raw != nil)
	}
	if !more {
		s.writing = false
	}
	s.fresh, s.stopped = false, more
	then := s.verify()
	released := ours && s.release()
	s.mu.Unlock()
	if then != nil {
		then()
	}
	if released {
		s.giveBack()
	}
	return nil
}

// without decides how it goes on after the server was lost while the first messages to it were sent.
func (c *client) without(s *server, unsent bool) error {
	c.server = nil
	<-s.gone
	s.mu.Lock()
	fate, said, unheard := s.outcome, s.fatal, s.unheard
	s.mu.Unlock()
	if !said && (unsent || unheard) {
		_ = c.conn.SetWriteDeadline(time.Time{})
		return errUnsent
	}
	c.lane.counted.lendings.observe(time.Since(c.began))
	switch {
	case said: // by the server itself, and passed on
		return io.EOF
	case fate == frame.Nothing && c.door.opt.Mode != Session: // all was answered already
		_ = c.conn.SetWriteDeadline(time.Time{})
		return nil
	}
	return lost(fate)
}

// part ends the client's link. A server connection at an edge goes back to its pool, any other is closed. whole: the client
// has no part of a message, and nobody writes to it.
func (c *client) part() (whole bool) {
	s := c.server
	c.server = nil
	if s == nil {
		return true
	}
	s.mu.Lock()
	if s.client != c {
		s.mu.Unlock()
		return true
	}
	whole = !s.torn && s.flushing == 0
	if !s.writing && !s.dead && s.x.Edge() && s.cancelled.pending == 0 && !s.cancelled.forwarded {
		s.leaving = true
		released := s.release()
		s.mu.Unlock() // if not released, the server's goroutine is about to
		if released {
			s.giveBack()
		}
		return whole
	}
	s.unlend()
	s.dead = true
	s.mu.Unlock()
	s.in.end()
	return whole
}

// departed tells whether the client has closed its end.
func (s *sock) departed() bool { return s.peek() == ended }
