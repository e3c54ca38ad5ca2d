package pooled

import (
	"fmt"
	"sync"
	"time"

	"github.com/havenha/haven/internal/pgwire"
	"github.com/havenha/haven/internal/pgwire/frame"
)

// ownLimit bounds a statement of our own. None of them does work.
const ownLimit = 30 * time.Second

// task is a statement of our own on a server connection. Its replies reach no client.
type task struct {
	then   func(error)
	once   sync.Once
	failed error
	heard  bool // of its outcome
}

// end reports the outcome, once.
func (t *task) end(err error) { t.once.Do(func() { t.then(err) }) }

// begin runs a statement on a connection that nobody has. then is called when it is done, by the reading goroutine. One that
// takes too long ends the connection.
func (s *server) begin(sql string, then func(error)) {
	s.mu.Lock()
	if s.dead || s.task != nil || s.client != nil {
		s.mu.Unlock()
		then(errGone)
		return
	}
	limit := time.AfterFunc(ownLimit, func() { s.in.end() })
	s.entrust(func(err error) { limit.Stop(); then(err) })
	s.mu.Unlock()
	s.put(sql)
}

// entrust makes a statement the server's task. A Query drops the unnamed statement, ours as well as a client's. The server is locked.
func (s *server) entrust(then func(error)) {
	s.task = &task{then: then}
	s.statements.unnamed = unknown
}

// put writes a query of our own. If that fails, the reading goroutine notices.
func (s *server) put(sql string) {
	if _, err := s.conn.Write(frame.Append(nil, 'Q', sql, "\x00")); err != nil {
		s.in.end()
	}
}

// own runs a statement, and waits. The reading goroutine must not call it.
func (s *server) own(sql string) error {
	done := make(chan error, 1)
	s.begin(sql, func(err error) { done <- err })
	return <-done
}

// receive takes one message in answer to the statement. The server is locked.
func (t *task) receive(s *server, kind byte, body []byte) error {
	switch kind {
	case 'E':
		e, err := pgwire.ParseError(body)
		if err != nil {
			return err
		}
		t.failed, t.heard = e, true
	case 'C':
		t.heard = true
		if tag, _, _ := frame.Text(body); string(tag) == "DISCARD ALL" {
			s.dirty = false // nothing that a client can leave outlives it (PostgreSQL's manual, DISCARD)
		}
	case 'I':
		t.heard = true
	case 'T', 'D', 'S', 'N', 'A':
	case 'Z':
		if body[0] != 'I' || !t.heard {
			return fmt.Errorf("%w: status %q after a statement of ours", errUnasked, body[0])
		}
		s.task, s.ended = nil, t
	default:
		return fmt.Errorf("%w: type %q in answer to a statement of ours", errUnasked, kind)
	}
	return nil
}
