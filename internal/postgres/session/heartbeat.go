package session

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// Heartbeat keeps one session open. A reader waits on it all the time, so that a server that crashes or is stopped is
// noticed within milliseconds, without a query. It may be used from several goroutines; Close waits for its own.
type Heartbeat struct {
	config func() (*pgconn.Config, error)
	turn   chan struct{} // holds one token: whoever has it may use the session

	mu     sync.Mutex
	conn   *heartConn
	closed bool
	lost   error // why the last session ended
}

// heartConn is one session: a reader goroutine assembles results, the holder of the turn sends queries.
type heartConn struct {
	net      net.Conn
	frontend *pgproto3.Frontend
	results  chan heartResult
	lost     chan struct{} // closed when the session has ended
	done     chan struct{} // closed when the reader goroutine has ended
	err      error         // why; set before lost is closed
}

type heartResult struct {
	rows [][]string
	err  error
}

// NewHeartbeat is a session that config tells how to open; it is opened by the first Query.
func NewHeartbeat(config func() (*pgconn.Config, error)) *Heartbeat {
	h := &Heartbeat{config: config, turn: make(chan struct{}, 1)}
	h.turn <- struct{}{}
	return h
}

// Lost is closed when the present session breaks; nil while there is none.
func (h *Heartbeat) Lost() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conn == nil {
		return nil
	}
	return h.conn.lost
}

// LossReason is why the last session ended; nil when none has.
func (h *Heartbeat) LossReason() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.conn; c != nil {
		select {
		case <-c.lost:
			return c.err
		default:
		}
	}
	return h.lost
}

// Query runs one statement on the session, opening it if need be. It never blocks longer than ctx: a
// session that has not answered by then is given up.
func (h *Heartbeat) Query(ctx context.Context, sql string) ([][]string, error) {
	if err := h.await(ctx); err != nil {
		return nil, err
	}
	defer func() { h.turn <- struct{}{} }()
	conn, err := h.session(ctx)
	if err != nil {
		return nil, err
	}
	// A peer that takes nothing must not hold us up either.
	deadline, ok := ctx.Deadline()
	if !ok {
		deadline = time.Now().Add(10 * time.Second)
	}
	_ = conn.net.SetWriteDeadline(deadline)
	conn.frontend.SendQuery(&pgproto3.Query{String: sql})
	if err := conn.frontend.Flush(); err != nil {
		conn.end()
		return nil, fmt.Errorf("heartbeat: %w", err)
	}
	select {
	case r := <-conn.results:
		return r.rows, r.err
	case <-conn.lost:
		return nil, fmt.Errorf("heartbeat: the connection ended: %w", conn.err)
	case <-ctx.Done():
		conn.end()
		return nil, fmt.Errorf("heartbeat: no answer: %w", ctx.Err())
	}
}

// ErrBusy is the error of a query for which too little time was left, since others had asked first. It says nothing about the server.
var ErrBusy = errors.New("heartbeat: others asked first")

// leastTime is what must be left for an answer after the wait for the turn. With less, a session would be given up whose server is well.
const leastTime = time.Second

// await waits for the turn.
func (h *Heartbeat) await(ctx context.Context) error {
	select {
	case <-h.turn:
		return nil
	default:
	}
	select {
	case <-h.turn:
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrBusy, ctx.Err())
	}
	if end, ok := ctx.Deadline(); ok && time.Until(end) < leastTime {
		h.turn <- struct{}{}
		return fmt.Errorf("%w: %w", ErrBusy, context.DeadlineExceeded)
	}
	return nil
}

// session gives the open session, or opens one. The caller has the turn.
func (h *Heartbeat) session(ctx context.Context) (*heartConn, error) {
	h.mu.Lock()
	conn, closed := h.conn, h.closed
	h.mu.Unlock()
	if closed {
		return nil, errors.New("heartbeat: the instance is closed")
	}
	if conn != nil {
		select {
		case <-conn.lost:
			<-conn.done
		default:
			return conn, nil
		}
	}
	conn, err := h.open(ctx)
	if err != nil {
		return nil, fmt.Errorf("heartbeat: %w", err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.conn != nil {
		h.lost = h.conn.err
	}
	h.conn = conn
	go conn.read()
	return conn, nil
}

func (h *Heartbeat) open(ctx context.Context) (*heartConn, error) {
	cfg, err := h.config()
	if err != nil {
		return nil, err
	}
	c, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	hc, err := c.Hijack()
	if err != nil {
		return nil, err
	}
	_ = hc.Conn.SetDeadline(time.Time{})
	return &heartConn{net: hc.Conn, frontend: hc.Frontend, results: make(chan heartResult, 1),
		lost: make(chan struct{}), done: make(chan struct{})}, nil
}

// end breaks the session; the reader then ends by itself.
func (c *heartConn) end() {
	_ = c.net.Close()
	<-c.lost
}

func (c *heartConn) read() {
	defer close(c.done)
	var res heartResult
	var fatal error
	for {
		msg, err := c.frontend.Receive()
		if err != nil {
			c.err = err
			if fatal != nil {
				c.err = fatal
			}
			close(c.lost)
			_ = c.net.Close()
			return
		}
		switch m := msg.(type) {
		case *pgproto3.DataRow:
			row := make([]string, len(m.Values))
			for n, v := range m.Values {
				row[n] = string(v)
			}
			res.rows = append(res.rows, row)
		case *pgproto3.ErrorResponse:
			res.err = pgconn.ErrorResponseToPgError(m)
			if m.Severity == "FATAL" || m.SeverityUnlocalized == "FATAL" {
				fatal = res.err
			}
		case *pgproto3.NoticeResponse:
			// The server announces a crash of another process by WARNING 57P02 before it ends the session.
			if m.Code == "57P02" {
				fatal = pgconn.ErrorResponseToPgError((*pgproto3.ErrorResponse)(m))
			}
		case *pgproto3.ReadyForQuery:
			c.deliver(res)
			res = heartResult{}
		}
	}
}

// deliver replaces a result that nobody took: its query was given up.
func (c *heartConn) deliver(r heartResult) {
	select {
	case <-c.results:
	default:
	}
	c.results <- r
}

// Close ends the session for good and waits for its reader.
func (h *Heartbeat) Close() {
	h.mu.Lock()
	conn := h.conn
	h.closed = true
	h.mu.Unlock()
	if conn != nil {
		conn.end()
		<-conn.done
	}
}
