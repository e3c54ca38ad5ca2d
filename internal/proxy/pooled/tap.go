package pooled

import (
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// tap is a connection below TLS. It tells whether TLS has anything in hand, which no look at the socket shows: TLS asks for
// more only when it has passed on all it had, except for a part of a record.
type tap struct {
	net.Conn
	raw  syscall.RawConn
	busy atomic.Bool // something was read, or is just being read, and TLS has not asked for more since

	// What was read last ends so many bytes before the end of a record, or with this part of its head.
	left int
	head []byte
}

// tapped puts a tap on a connection, if it has a socket.
func tapped(conn net.Conn) net.Conn {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return conn
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return conn
	}
	return &tap{Conn: conn, raw: raw}
}

func (t *tap) Read(b []byte) (int, error) {
	var n int
	var failed error
	err := t.raw.Read(func(fd uintptr) bool {
		t.busy.Store(true)
		for {
			n, failed = unix.Read(int(fd), b)
			switch failed {
			case unix.EINTR:
				continue
			case unix.EAGAIN:
				t.busy.Store(t.left > 0 || len(t.head) > 0)
				return false
			}
			return true
		}
	})
	switch {
	case err != nil:
		return 0, err
	case failed != nil:
		return 0, os.NewSyscallError("read", failed)
	case n == 0 && len(b) > 0:
		return 0, io.EOF
	}
	t.follow(b[:n])
	return n, nil
}

// recordHead is the length of the head of a TLS record: type, version, length (RFC 8446, section 5.1).
const recordHead = 5

// follow keeps account of records. Before TLS begins there is the server's answer to the request for it, of a type that no
// record has.
func (t *tap) follow(b []byte) {
	for len(b) > 0 {
		switch {
		case t.left > 0:
			n := min(t.left, len(b))
			t.left, b = t.left-n, b[n:]
			continue
		case len(t.head) > 0 || b[0] >= 20 && b[0] <= 24:
			t.head = append(t.head, b[0])
		}
		b = b[1:]
		if len(t.head) == recordHead {
			t.left, t.head = int(t.head[3])<<8|int(t.head[4]), t.head[:0]
		}
	}
}
