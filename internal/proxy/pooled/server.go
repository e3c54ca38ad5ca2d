package pooled

import (
	"bytes"
	"cmp"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/havenha/haven/internal/pgwire"
	"github.com/havenha/haven/internal/pgwire/frame"
)

type exchange = frame.Exchange[*statement]

type entry = frame.Entry[*statement]

// server is one server connection. Its own goroutine is the only one that reads it.
type server struct {
	door     *Door
	lane     *lane
	seat     Seat
	conn     net.Conn
	key      *pgwire.CancelKey
	reported []pgwire.Param
	base     params   // of a new session
	account  *account // guarded by the door
	gone     chan struct{}
	told     chan struct{} // its client was told of its end
	in       sock
	received atomic.Int64
	sent     atomic.Int64

	// Of the reading goroutine alone: what is left of a message that is passed on in parts, and whether the client gets it.
	passing int
	passOn  bool

	mu sync.Mutex
	// client is whom the connection is lent to; nil: nobody.
	client *client
	x      exchange
	task   *task // a statement of our own; only while nobody has the connection, or while verifying
	dead   bool
	// writing: the client's goroutine sends a message, or has sent a part of one. fresh: nothing of what it sends since
	// the connection was lent, or was at an edge last, has left yet.
	writing, fresh bool
	stopped        bool // in the middle of a message, whose rest the client is to send
	crowded        bool // the client is not read, since too much is owed
	// flushing: so many writes to the client are under way. settled: the reading goroutine has nothing left.
	flushing int
	settled  bool
	// torn: the client has a part of a message. undelivered: it has nothing of what it was to get last.
	torn, undelivered bool
	leaving           bool // the client has left at an edge
	cutoff            bool
	fatal             bool // the server has said why it ends
	dirty             bool // something was done that outlives a transaction
	spent             bool // not to be lent again
	params            params
	statements        statements
	suspended         []*statement // portals of these were left before their end since the last ReadyForQuery outside of a transaction
	outside           bool         // a ROLLBACK came since the last ReadyForQuery, so that what follows may be in no transaction block
	rows              bool         // since the last CommandComplete
	unsettled         bool         // since the last ReadyForQuery something was run that may have changed settings, and changed them back
	failed            bool         // an error came since the last ReadyForQuery
	inject            []byte       // for the client, after what was passed on
	ended             *task
	// kept is what was sent first since the connection was lent, or was at an edge last, if nothing came since. unheard: the
	// server has read nothing of it, and the goroutine that sends it is to be told.
	kept      []byte
	unheard   bool
	outcome   frame.Fate // when the connection ended
	turns     uint64
	edges     uint64 // transactions that have ended, and lendings
	looked    looked
	used      time.Time // when it was given back last
	cancelled cancelled
}

func newServer(d *Door, l *lane, seat Seat, login *pgwire.Server) *server {
	s := &server{
		door: d, lane: l, seat: seat, conn: login.Conn, key: login.Key, reported: login.Params, gone: make(chan struct{}), told: make(chan struct{}),
		settled: true, base: d.tracked.of(login.Params), used: time.Now(),
	}
	s.in.open(login.Conn, &d.buffers, largeBuffer)
	s.params = s.base
	s.x.Status = 'I'
	s.x.Drop = s.dropped
	s.cancelled.calm.L = &s.mu
	return s
}

// run reads the server until one of the two sides ends.
func (s *server) run() {
	s.in.serve(s.handle)
	s.finish()
}

// handle uses what was read. It returns the length that the next message has to be there with; false: give up.
func (s *server) handle() (want int, ok bool) {
	s.mu.Lock()
	for more := true; more; {
		b := s.in.unread()
		used, kept, needed, sane := s.sort(b)
		s.in.r += used
		want, more = needed, s.inject != nil
		// After FATAL or PANIC comes nothing, and its end may have come with it.
		if err := s.pass(b[:kept]); err != nil || !sane || s.dead || s.fatal && s.passing == 0 {
			s.mu.Unlock()
			return 0, false
		}
	}
	s.settled = s.in.r == s.in.w && s.passing == 0
	s.in.reading.Store(false)
	t := s.ended
	s.ended = nil
	then := s.verify()
	released := s.release()
	s.mu.Unlock()
	if t != nil {
		t.end(t.failed)
	}
	if then != nil {
		then()
	}
	if released {
		s.giveBack()
	}
	return want, true
}

// pass writes to the client what is its, and what is to be injected after it. The server is locked, and is unlocked
// meanwhile.
func (s *server) pass(b []byte) error {
	c, inject := s.client, s.inject
	s.inject = nil
	if c == nil || len(b)+len(inject) == 0 {
		return nil
	}
	s.flushing++
	s.mu.Unlock()
	if inject != nil {
		b = append(slices.Clip(b), inject...)
	}
	n, err := c.in.write(b)
	s.received.Add(int64(n))
	s.mu.Lock()
	s.flushing--
	switch {
	case err == nil:
		s.torn = s.passing > 0 && s.passOn
	case n == 0 && !s.torn:
		s.undelivered = true
	default:
		s.torn = true
	}
	return err
}

// sort goes through the messages in b, and moves those that the client is to get to its beginning. used bytes are done
// with, kept bytes are the client's. The server is locked.
func (s *server) sort(b []byte) (used, kept, want int, sane bool) {
	for used < len(b) {
		rest := b[used:]
		if s.passing > 0 {
			n := min(s.passing, len(rest))
			if s.passOn {
				kept += move(b, kept, used, n)
			}
			used, s.passing = used+n, s.passing-n
			continue
		}
		kind, size := frame.Next(rest)
		if size == 0 {
			return used, kept, frame.Head, true
		}
		if err := frame.FromServer(kind, size); err != nil {
			s.doubt(err)
			return used, kept, 0, false
		}
		if size > len(rest) && !streams(kind, size) {
			return used, kept, size, true
		}
		n := min(size, len(rest))
		pass, err := s.receive(kind, rest[:n], n == size)
		if err != nil {
			s.doubt(err)
			return used, kept, 0, false
		}
		if pass {
			kept += move(b, kept, used, n)
		}
		used, s.passing, s.passOn = used+n, size-n, pass
		if s.inject != nil {
			return used, kept, 0, true
		}
	}
	return used, kept, 0, true
}

func move(b []byte, to, from, n int) int {
	if to != from {
		copy(b[to:], b[from:from+n])
	}
	return n
}

// streams tells whether a message may be passed on before all of it is there.
func streams(kind byte, size int) bool {
	switch kind {
	case 'D', 'd':
		return true
	case 'E', 'N', 'A', 'T', 't', 'V':
		return size > largeBuffer/2
	}
	return false
}

// errFreed: a statement was dropped in the batch that then makes another one of its name, so the server has made what it should refuse.
var errFreed = errors.New("a prepared statement was made under a name that was taken for taken")

// goodbye is FATAL or PANIC while nothing is owed, such as a server says to idle sessions before it stops.
type goodbye struct{ body []byte }

func (e *goodbye) Error() string {
	said, err := pgwire.ParseError(e.body)
	if err != nil {
		return "it ended, and its last words make no sense"
	}
	return said.Message
}

func (s *server) doubt(err error) {
	var e *goodbye
	if errors.As(err, &e) {
		s.door.opt.Log.Info("a server connection was ended by the server", "server", s.seat.Server(), "reason", e)
		return
	}
	s.door.opt.Log.Warn("a server connection is given up: its messages make no sense", "server", s.seat.Server(), "error", err)
}

// receive enters one message of the server, of which m has at least the head. It tells whether the client gets it. The server
// is locked.
func (s *server) receive(kind byte, m []byte, whole bool) (pass bool, err error) {
	body := m[frame.Head:]
	if kind == 'S' {
		s.parameter(body)
	}
	if s.task != nil {
		return false, s.task.receive(s, kind, body)
	}
	c := s.client
	if kind == 'E' && isFatal(body) {
		if c == nil || s.door.opt.Mode != Session && s.x.Edge() && !s.torn && len(s.cancelled.stash) == 0 {
			return false, &goodbye{body} // the client has all that it has asked for, though the connection is not returned yet
		}
		if len(s.cancelled.stash) > 0 {
			// What is withheld was done before: the words of the server would deny it.
			s.refuse(lost(frame.Unknown))
			return false, nil
		}
		if s.handBack(c, body) {
			return false, &goodbye{body}
		}
		s.fatal, s.spent = true, true
		return true, nil
	}
	s.kept = s.kept[:0]
	if c == nil {
		return false, s.alone(kind)
	}
	status, rows, executed := statusIn(kind, body), s.rows, false
	switch kind {
	case 'E':
		s.failed, s.rows = true, false
		s.statements.unnamed = unknown // a query that failed early has left it
	case 's':
		s.rows, s.unsettled = false, true
	case 'I':
		s.rows = false
	case 'Z':
		s.rows, s.unsettled = false, false
	case 'D':
		s.rows = true
	case 'T':
		s.rows = s.rows || s.x.Asked() == 'Q'
	case 'C':
		executed, s.rows = true, false
	}
	e, err := s.x.Receive(kind, status)
	if err == nil && kind == '1' && e.Note != nil && e.Note.twice {
		err = errFreed
	}
	if err != nil {
		return false, err
	}
	if executed {
		s.tag(body, e, rows)
	} else if kind == 's' {
		s.suspend(e.Note)
	}
	s.spent = s.spent || s.x.Strays() // else who has the connection next might get what was not for it
	pass = s.answered(kind, e, m)
	if kind == 'Z' {
		if !s.x.Owes() {
			s.statements.rest = s.statements.batch
		}
		defer func() { s.turns, s.failed, s.outside = s.turns+1, false, false }()
		s.cancelled.calm.Broadcast()
		if status == 'I' {
			s.edges++
			s.closePortals()
		}
		if pass && s.door.opt.Mode == Statement && status != 'I' {
			s.refuse(&pgwire.Error{Code: "08P01", Message: "transaction blocks not allowed in statement pooling mode"})
			return false, nil
		}
	}
	if s.cancelled.forwarded && pass {
		return s.withhold(kind, e, m, whole)
	}
	return pass, nil
}

// statusIn is that of a ReadyForQuery; 0: it is another message.
func statusIn(kind byte, body []byte) byte {
	if kind != 'Z' {
		return 0
	}
	return body[0]
}

// keep notes what is being sent, if it is the first since the connection was lent. more: the last message is not whole. The server is
// locked.
func (s *server) keep(b []byte, more bool) {
	s.kept = s.kept[:0]
	if s.fresh && !more && len(b) <= smallBuffer && s.door.opt.Mode != Session {
		s.kept = append(s.kept, b...)
	}
}

// handBack gives the client back what it has sent, if the last words of the server prove that nothing of it was read: a server process
// that finds its postmaster gone says where it stood (field R of the error), and in secure_read it waits for its client. Had it executed
// a single message, then the reply would have come before these words (be-secure.c and pqcomm.c of PostgreSQL). The server is locked.
func (s *server) handBack(c *client, body []byte) bool {
	if len(s.kept) == 0 || s.torn || s.undelivered || s.flushing > 0 || s.cancelled.pending > 0 || s.cancelled.forwarded ||
		string(field(body, 'C')) != "57P01" || string(field(body, 'R')) != "secure_read" {
		return false
	}
	s.dead = true
	if s.writing {
		s.unheard = true
		return true
	}
	s.takeBack()
	if s.cutoff {
		_ = c.conn.SetWriteDeadline(time.Time{}) // it outlives the server
	}
	s.client = nil
	c.in.recall(slices.Clone(s.kept))
	return true
}

// takeBack undoes what the messages on their way were to do to the client's prepared statements. The server is locked.
func (s *server) takeBack() {
	s.x.Abandon()
	s.client.prepared.undo()
}

// alone judges a message while nobody has the connection.
func (s *server) alone(kind byte) error {
	switch kind {
	case 'S', 'N':
		return nil
	}
	return errUnasked
}

// duplicate is the SQLSTATE of a name that is taken by another prepared statement.
const duplicate = "42P05"

// answered does what a reply means for prepared statements, and tells whether the client gets it.
func (s *server) answered(kind byte, e entry, m []byte) bool {
	switch {
	case kind == 'E':
		if e.Note != nil && e.Note.twice && string(field(m[frame.Head:], 'C')) == duplicate {
			s.replace(&pgwire.Error{Severity: "ERROR", Code: duplicate, Message: "prepared statement \"" + e.Note.client + "\" already exists"})
			return false
		}
		if e.Note != nil && !e.Note.unnamed && outdated(m[frame.Head:]) {
			s.statements.distrust(e.Note.name)
		}
		return true
	case (kind == 'T' && e.Kind == 'D' || kind == 's') && e.Note != nil: // a portal that is suspended has rows
		e.Note.rows = true
	case kind == '1' && e.Note != nil && !e.Note.unnamed && s.unsettled: // by what settings it was parsed is not known
		s.statements.distrust(e.Note.name)
	case kind == '1' && e.Note != nil && !e.Note.unnamed:
		s.statements.confirm(e.Note)
	}
	if e.Note != nil && !e.Swallow && (kind == '1' || e.As == '1') {
		e.Note.made = true
	}
	if e.As != 0 {
		m[0] = e.As
	}
	return !e.Swallow
}

// replace puts an error of our own in the place of the server's: behind what is withheld, if something is.
func (s *server) replace(e *pgwire.Error) {
	if k := &s.cancelled; len(k.stash) > 0 {
		k.stash = pgwire.AppendErrorResponse(k.stash, e)
		k.due = !s.x.Owes()
		return
	}
	s.inject = pgwire.AppendErrorResponse(nil, e)
}

// refuse ends client and server with an error. What is withheld was done all the same, as far as anybody knows.
func (s *server) refuse(e *pgwire.Error) {
	if len(s.cancelled.stash) > 0 {
		e = lost(frame.Unknown)
	}
	if s.client != nil {
		s.client.ends(e)
	}
	s.inject = pgwire.AppendErrorResponse(nil, e)
	s.fatal, s.dead = true, true
}

// parameter keeps what the server reports of its settings.
func (s *server) parameter(body []byte) {
	name, rest, ok1 := frame.Text(body)
	value, _, ok2 := frame.Text(rest)
	if !ok1 || !ok2 {
		return
	}
	i := s.door.tracked.at(string(name))
	if i < 0 {
		return
	}
	s.params = s.door.tracked.with(s.params, i, string(value))
	if s.client != nil && s.task == nil {
		s.client.params = s.params
		if i != nameless {
			s.statements.reported()
		}
	}
}

// outdated tells whether an error may mean that a prepared statement is not there, or does not fit its tables any more.
func outdated(body []byte) bool {
	switch string(field(body, 'C')) {
	case "0A000", "26000", "": // not understood
		return true
	}
	return false
}

// isFatal looks for the severity of an ErrorResponse: V, which is never translated, or S.
func isFatal(body []byte) bool {
	severity := field(body, 'V')
	if severity == nil {
		severity = field(body, 'S')
	}
	return string(severity) == "FATAL" || string(severity) == "PANIC"
}

// field is one of an ErrorResponse; nil: it is not there.
func field(body []byte, code byte) []byte {
	for len(body) > 1 && body[0] != 0 {
		value, rest, ok := frame.Text(body[1:])
		if !ok {
			return nil
		}
		if body[0] == code {
			return value
		}
		body = rest
	}
	return nil
}

// tag looks at a CommandComplete for what outlives a transaction.
func (s *server) tag(body []byte, e entry, rows bool) {
	tag, _, _ := frame.Text(body)
	s.unsettled = s.unsettled || !begins(tag)
	switch string(tag) {
	case "COMMIT":
		s.edges++ // also where the next one begins at once (AND CHAIN)
	case "ROLLBACK":
		s.outside = true
	}
	switch {
	case string(tag) == "DISCARD ALL", string(tag) == "DEALLOCATE ALL":
		s.statements.forget()
		s.client.prepared.forget()
	case string(tag) == "DEALLOCATE":
		s.spent = true // one of ours, perhaps
	case bytes.HasPrefix(tag, []byte("SELECT ")):
		// CREATE TABLE AS and SELECT INTO have this tag too, but return no rows.
		switch {
		case e.Note != nil && (rows || e.Note.rows):
			e.Note.rows, e.Note.clean = true, true
		case !rows:
			s.dirty = true
		}
	case !passing(tag):
		s.dirty = true
	case e.Note != nil:
		e.Note.clean = true
	}
}

// suspend notes that an Execute with a limit of rows ended before its portal did. What has no end has no tag either: it may be EXPLAIN
// ANALYZE or CALL, which are done by then (PORTAL_UTIL_SELECT in pquery.c of PostgreSQL).
func (s *server) suspend(st *statement) {
	switch {
	case st == nil, len(s.suspended) >= maxPortals: // nobody knows whose the portal is, or there are too many
		s.dirty = true
	case !st.clean && !slices.Contains(s.suspended, st):
		s.suspended = append(s.suspended, st)
	}
}

// closePortals is told of the end of a transaction, which is that of its portals.
func (s *server) closePortals() {
	if slices.ContainsFunc(s.suspended, func(st *statement) bool { return !st.clean }) {
		s.dirty = true
	}
	clear(s.suspended)
	s.suspended = s.suspended[:0]
}

// begins tells whether a command does nothing but begin a transaction, or a part of one, or join that to the rest. The end of either may
// change settings back.
func begins(tag []byte) bool {
	switch string(tag) {
	case "BEGIN", "START TRANSACTION", "SAVEPOINT", "RELEASE":
		return true
	}
	return false
}

// passing tells whether what a command did ends with its transaction at the latest. EXPLAIN ANALYZE does what it explains.
func passing(tag []byte) bool {
	word := tag
	if i := bytes.IndexByte(tag, ' '); i >= 0 {
		word = tag[:i]
	}
	switch string(word) {
	case "INSERT", "UPDATE", "DELETE", "MERGE", "BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE", "FETCH", "MOVE", "COPY",
		"SHOW", "VACUUM", "ANALYZE", "TRUNCATE", "LOCK", "CLOSE", "NOTIFY", "CHECKPOINT", "REINDEX", "START":
		return true
	}
	return string(tag) == "PREPARE TRANSACTION"
}

// finish is the end of the connection: nobody gets anything of it any more.
func (s *server) finish() {
	s.mu.Lock()
	s.dead = true
	c, t := s.client, cmp.Or(s.task, s.ended) // what has just been answered, too, if other messages came right behind that
	fate := s.fate()
	// The client's goroutine, which is about to learn that nothing could be sent, decides by itself.
	undecided := c != nil && s.fresh && s.writing && !s.undelivered && !s.torn && len(s.cancelled.stash) == 0
	if undecided {
		s.outcome = fate
		if s.x.Owes() { // else all was answered, and holds
			s.takeBack()
		}
	}
	s.task, s.ended = nil, nil
	ends := c != nil && !undecided && (fate != frame.Nothing || s.fatal || s.door.opt.Mode == Session || s.torn)
	switch {
	case undecided:
		s.client = nil
	case c != nil:
		s.unlend()
	}
	if ends {
		c.doomed.Store(true)
	} else if c != nil && !undecided && s.cutoff {
		_ = c.conn.SetWriteDeadline(time.Time{})
	}
	s.cancelled.calm.Broadcast()
	s.mu.Unlock()
	s.conn.Close()
	s.in.release()
	d := s.door
	d.mu.Lock()
	delete(d.servers, s)
	s.lane.counted.past.add(s.traffic())
	d.book.Closed(s.account, time.Now())
	d.carry()
	d.mu.Unlock()
	s.seat.Leave(s.sent.Load(), s.received.Load())
	close(s.gone)
	defer close(s.told)
	if t != nil {
		t.end(errGone)
	}
	if ends && !s.fatal {
		c.ends(lost(fate))
	}
	switch {
	case ends && !s.fatal && !s.torn:
		c.lastWords(lost(fate))
		c.in.end()
	case ends:
		c.in.end()
	}
}

// fate is what may have become of the client's transaction when the connection breaks off. What is withheld may have been
// committed, and so may what the client was not told. The server is locked.
func (s *server) fate() frame.Fate {
	if s.undelivered || len(s.cancelled.stash) > 0 {
		return frame.Unknown
	}
	return s.x.Fate()
}

// lost is what a client is told whose server connection has broken off.
func lost(fate frame.Fate) *pgwire.Error {
	switch fate {
	case frame.Unknown:
		return &pgwire.Error{Code: "08007", Message: "the connection to the server was lost while a transaction may have been committed",
			Hint: "Whether it was committed is not known. Look before you try again."}
	case frame.Lost:
		return &pgwire.Error{Code: "08006", Message: "the connection to the server was lost, and with it the open transaction, which was not committed"}
	}
	return &pgwire.Error{Code: "08006", Message: "the connection to the server was lost, and with it the session"}
}

// cut ends the connection from outside, at once.
func (s *server) cut() {
	s.mu.Lock()
	s.hurry()
	s.mu.Unlock()
	s.in.end()
}

// hurry gives the client little time to take what is still to come from a server that is gone, or has to go. The server is locked.
func (s *server) hurry() {
	s.cutoff = true
	if c := s.client; c != nil {
		_ = c.conn.SetWriteDeadline(time.Now().Add(farewell))
	}
}

// farewell is how long the last bytes to somebody may take.
const farewell = 200 * time.Millisecond

// dismiss ends a connection that nobody has.
func (s *server) dismiss() {
	s.mu.Lock()
	s.dead = true
	s.mu.Unlock()
	_ = s.conn.SetWriteDeadline(time.Now().Add(farewell))
	_, _ = s.conn.Write(frame.Append(nil, 'X')) // for the server's log; if it is gone already, it does not matter
	s.in.end()
}
