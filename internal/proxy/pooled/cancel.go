package pooled

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/havenha/haven/internal/pgwire"
	"github.com/havenha/haven/internal/pgwire/frame"
)

// cancelled is the state of a server connection for which a cancel request came. PostgreSQL reports success for a commit
// whose wait for a standby was cancelled, and the warning may be hidden. So no request is forwarded while the server waits
// for a standby; and after one was forwarded, a success is withheld until one more commit has waited for the standby.
type cancelled struct {
	pending   int  // requests under way: the connection is not to change hands
	forwarded bool // one was sent for what is owed now
	committed bool // a commit was among what is withheld
	due       bool // all that is owed has come, and some of it is withheld
	verifying bool
	late      int // so many verifications were hit by the request
	stash     []byte
	calm      sync.Cond // verifying or pending have ended, or a turn: somebody may go on
}

// unclear tells whether what is sent next has to wait: for the request that is on its way, or for the verification.
func (k *cancelled) unclear() bool { return k.verifying || k.due || k.forwarded && k.pending > 0 }

// signals is how often one request may hit: the postmaster signals the process, and then its group (signal_child in postmaster.c).
const signals = 2

// maxStash bounds what is withheld.
const maxStash = 256 << 10

// syncWait is how often a server is asked whether it still waits for a standby.
const syncWait = 100 * time.Millisecond

func newSecret(v pgwire.Version) []byte {
	n := 4
	if v >= pgwire.Version32 {
		n = 32
	}
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}

// cancel carries out a client's cancel request.
func (d *Door) cancel(key *pgwire.CancelKey) {
	d.mu.Lock()
	c := d.clients[key.PID]
	if c == nil || subtle.ConstantTimeCompare(c.key.Secret, key.Secret) != 1 {
		d.mu.Unlock()
		return
	}
	if d.book.Leave(&c.waiter) {
		d.mu.Unlock()
		c.grant <- grant{err: &pgwire.Error{Severity: "ERROR", Code: "57014", Message: "canceling statement due to user request, while it waited for a server"}}
		return
	}
	var all []*server
	for s := range d.servers {
		if s.lane == c.lane {
			all = append(all, s)
		}
	}
	d.mu.Unlock()
	for _, s := range all {
		if s.cancel(c) {
			return
		}
	}
}

// cancel forwards a request, if the connection is lent to that client and owes something.
func (s *server) cancel(c *client) bool {
	s.mu.Lock()
	if s.client != c {
		s.mu.Unlock()
		return false
	}
	if !s.x.Owes() || s.dead || s.key == nil || s.cancelled.verifying || s.cancelled.pending > 0 {
		s.mu.Unlock()
		return true
	}
	s.cancelled.pending++
	turns, before := s.turns, s.cancelled.forwarded
	s.mu.Unlock()
	err := s.forward(c, turns)
	if err != nil {
		s.door.opt.Log.Warn("a cancel request was not forwarded", "server", s.seat.Server(), "error", err)
	}
	s.mu.Lock()
	s.cancelled.pending--
	switch {
	case errors.Is(err, pgwire.ErrCancelSent) && s.client != nil:
		s.breakOff(lost(s.fate())) // it could hit whatever the client commits next
		return true
	case err != nil && len(s.cancelled.stash) == 0: // it was not sent
		s.cancelled.forwarded = before
	}
	s.missed()
	s.cancelled.calm.Broadcast()
	then := s.verify()
	released := s.release()
	s.mu.Unlock()
	if then != nil {
		then()
	}
	if released {
		s.giveBack()
	}
	return true
}

// missed forgets requests that have arrived, if all that they were for has ended, with an error. They can hit nothing later: a server
// that waits for its client ignores them. The server is locked.
func (s *server) missed() {
	k := &s.cancelled
	if len(k.stash) == 0 && !s.x.Owes() && !s.x.Begun() {
		k.forwarded = false
	}
}

// breakOff ends the connection and its client, which is told why unless it is in the middle of a message. The server is locked, and is not
// afterwards.
func (s *server) breakOff(why *pgwire.Error) {
	c, busy := s.client, s.flushing > 0 || s.torn
	c.doomed.Store(true)
	s.unlend()
	s.dead = true
	s.cancelled.calm.Broadcast()
	s.mu.Unlock()
	s.in.end()
	c.ends(why)
	if !busy {
		c.lastWords(why)
	}
	c.in.end()
}

// forward waits until the server does not wait for a standby, and sends the request if it is still wanted.
func (s *server) forward(c *client, turns uint64) error {
	d := s.door
	ctx, end := context.WithCancel(d.ctx)
	defer end()
	for s.owes(c, turns) {
		waits, err := d.waitsForStandby(ctx, s)
		var refused *pgwire.Error
		if errors.As(err, &refused) { // for want of connections, say, which a cancel request needs none of; a success is made sure of anyway
			waits, err = false, nil
		}
		if err != nil {
			return err
		}
		if waits {
			select {
			case <-ctx.Done():
			case <-s.gone:
			case <-time.After(syncWait):
			}
			continue
		}
		s.mu.Lock()
		wanted := s.client == c && s.turns == turns && s.x.Owes() && !s.dead
		s.cancelled.forwarded = s.cancelled.forwarded || wanted
		s.mu.Unlock()
		if !wanted {
			return nil
		}
		return d.sendCancel(ctx, s)
	}
	return nil
}

func (s *server) owes(c *client, turns uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.client == c && s.turns == turns && s.x.Owes() && !s.dead
}

func (d *Door) sendCancel(ctx context.Context, s *server) error {
	ctx, cancel := context.WithTimeout(ctx, d.patience())
	defer cancel()
	conn, err := s.seat.Dial(ctx)
	if err != nil {
		return err
	}
	o := d.terms.Load().ServerTLS
	return pgwire.Cancel(ctx, conn, *s.key, pgwire.CancelOptions{SSLMode: o.SSLMode, TLS: o.TLS, Host: d.host(s.seat)})
}

// waitsForStandby asks on a connection of its own whether the session waits for synchronous replication.
func (d *Door) waitsForStandby(ctx context.Context, s *server) (bool, error) {
	if !s.seat.Primary() {
		return false, nil
	}
	select {
	case d.control <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	defer func() { <-d.control }()
	ctx, cancel := context.WithTimeout(ctx, d.patience())
	defer cancel()
	conn, err := s.seat.Dial(ctx)
	if err != nil {
		return false, fmt.Errorf("ask whether it waits for a standby: %w", err)
	}
	login, err := d.login(s.lane, s.seat, conn)
	if err != nil {
		return false, fmt.Errorf("ask whether it waits for a standby: %w", err)
	}
	defer func() { _ = login.Terminate() }() // a good-bye
	login.Conn.SetDeadline(time.Now().Add(d.patience()))
	got, err := ask(login.Conn, fmt.Sprintf("SELECT coalesce(pg_catalog.max(wait_event), '') FROM pg_catalog.pg_stat_activity WHERE pid = %d", s.key.PID))
	if err != nil {
		return false, fmt.Errorf("ask whether it waits for a standby: %w", err)
	}
	return got == "SyncRep", nil
}

// withhold judges a message that the client would get, after a cancel request was forwarded. The server is locked.
func (s *server) withhold(kind byte, e entry, m []byte, whole bool) (pass bool, err error) {
	k, status := &s.cancelled, s.x.Status
	if s.outside {
		status = 'I'
	}
	switch {
	case kind == 'C' && commits(m[frame.Head:], status), kind == 'Z' && s.x.Status == 'I' && !(s.failed && len(k.stash) == 0):
		k.committed = true
	}
	switch {
	case kind == 'C' && e.Kind == 'E' && !s.x.Ends() && !k.committed && len(k.stash) == 0:
		return true, nil // nothing is committed before the Sync that is yet to come
	case kind == 'Z' && len(k.stash) == 0 && s.failed:
		// The exchange has ended with an error, which is the truth.
		k.forwarded, s.spent = s.x.Owes() || k.pending > 0, true
		return true, nil
	case kind != 'C' && kind != 'Z' && len(k.stash) == 0:
		return true, nil
	}
	if kind == 'G' || !whole || len(k.stash)+len(m) > maxStash { // the server waits for data, and the client does not know
		s.refuse(lost(frame.Unknown))
		return false, nil
	}
	k.stash = append(k.stash, m...)
	k.due = !s.x.Owes()
	return false, nil
}

// commits tells by its tag whether a command may have been committed before the exchange has ended: COMMIT itself, and,
// outside of a transaction, what is not known to wait for the end of its batch. status is that before the exchange, or before the command,
// if a ROLLBACK came in between.
func commits(body []byte, status byte) bool {
	tag, _, _ := frame.Text(body)
	if bytes.HasPrefix(tag, []byte("COMMIT")) || string(tag) == "PREPARE TRANSACTION" {
		return true
	}
	if status != 'I' || string(tag) == "ROLLBACK" {
		return false
	}
	word, _, _ := bytes.Cut(tag, []byte(" "))
	switch string(word) {
	case "SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "COPY", "BEGIN", "START", "FETCH", "MOVE", "SHOW", "SET":
		return false
	}
	return true
}

// sure is a commit that waits for the standby: a record in the WAL, and nothing else. Whatever synchronous_commit the session has, that of
// the transaction before it may have been another one (SET LOCAL), so it waits in any case. In recovery there is nothing to make sure of,
// for nothing is committed.
const sure = `SELECT CASE WHEN pg_catalog.pg_is_in_recovery() OR pg_catalog.set_config('synchronous_commit',
  CASE WHEN pg_catalog.current_setting('synchronous_commit') OPERATOR(pg_catalog.=) 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true) IS NULL
THEN NULL ELSE pg_catalog.pg_logical_emit_message(true, 'haven', '') END`

// verify begins to make sure of what is withheld, when all of it has come, the client has what came before, and nothing is
// being sent. What it returns is to be called without the lock. The server is locked.
func (s *server) verify() func() {
	k := &s.cancelled
	if !k.due || k.pending > 0 || k.verifying || s.flushing > 0 || s.writing || s.client == nil || s.dead {
		return nil
	}
	k.verifying = true
	if s.x.Status != 'I' || s.x.Begun() { // a statement of ours would be a part of it
		if k.committed {
			return func() { s.verified(errors.New("a new transaction has begun already")) }
		}
		return func() { s.verified(nil) }
	}
	s.entrust(s.verified)
	return func() { s.put(sure) }
}

// verified hands out what was withheld, or says that the outcome is unknown.
func (s *server) verified(err error) {
	var said *pgwire.Error
	s.mu.Lock()
	k, c := &s.cancelled, s.client
	if errors.As(err, &said) && said.Code == "57014" && k.late < signals && !s.dead {
		// The request was late, and hit the verification, before that had anything to wait for.
		k.late++
		s.entrust(s.verified)
		s.mu.Unlock()
		s.put(sure)
		return
	}
	if c == nil {
		s.mu.Unlock()
		return
	}
	if err != nil {
		s.breakOff(lost(frame.Unknown))
		return
	}
	stash := k.stash
	s.inject = stash
	k.stash, k.due, k.committed, k.forwarded, k.late, s.spent = nil, false, false, false, 0, true
	err = s.pass(nil)
	k.verifying = false // not before the client has that, else what it sends next might be answered before it
	if err != nil {
		s.dead = true
		c.doomed.Store(true)
		c.in.end() // it may have a part of that
	}
	k.calm.Broadcast()
	released := s.release()
	dead := s.dead
	s.mu.Unlock()
	if dead {
		s.in.end()
	}
	if released {
		s.giveBack()
	}
}
