package proxy

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// farewell is how long a client has to close after its server has. A PostgreSQL server never closes one half only, so
// nobody reads what such a client may still send.
const farewell = 5 * time.Second

// stream is a TCP connection, or one of a Unix socket.
type stream interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
}

// session is one client connected to one server.
type session struct {
	ledger *ledger
	pick   pick
	client stream // nil in the pooled modes
	server *net.TCPConn
	cut    func() // ends the session in the pooled modes
	// ended is closed when both connections are.
	ended chan struct{}
	// Bytes as they were last reported, guarded by the board: what is reported never shrinks.
	seenIn, seenOut int64
}

// run passes bytes on until both directions have ended. It returns how many came from the client and went to it.
func (s *session) run(buffers *sync.Pool) (in, out int64) {
	var sending sync.WaitGroup
	sending.Go(func() { in = s.pass(s.server, s.client, buffers) })
	out = s.pass(s.client, s.server, buffers)
	s.client.SetReadDeadline(time.Now().Add(farewell))
	sending.Wait()
	s.client.Close()
	s.server.Close()
	return in, out
}

// pass copies one direction. Its end is passed on as an end, its failure as a reset of both; a client that has not
// closed in time after its server is just closed, so that it can still read the server's last words.
func (s *session) pass(to, from stream, buffers *sync.Pool) int64 {
	n, err := copyAll(to, from, buffers)
	if err == nil {
		err = to.CloseWrite()
	}
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		s.reset()
	}
	return n
}

// reset ends both connections at once: without lingering, close sends RST (socket(7), SO_LINGER), which also drops what
// was not sent yet, so that a client notices even while it waits for an answer. That of a Unix socket notices anyway.
func (s *session) reset() {
	if s.cut != nil {
		s.cut()
		return
	}
	reset(s.client)
	reset(s.server)
}

func reset(c stream) {
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.Close()
}
