package pooled

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// Sizes of buffers. A client's is small until it sends much; those of servers carry results.
const (
	smallBuffer = 4 << 10
	largeBuffer = 16 << 10
)

// buffers keeps buffers that nobody needs at the moment, so that those who wait hold none.
type buffers struct{ small, large sync.Pool }

func (b *buffers) get(size int) []byte {
	switch {
	case size <= smallBuffer:
		if p, ok := b.small.Get().(*[smallBuffer]byte); ok {
			return p[:]
		}
		return make([]byte, smallBuffer)
	case size <= largeBuffer:
		if p, ok := b.large.Get().(*[largeBuffer]byte); ok {
			return p[:]
		}
		return make([]byte, largeBuffer)
	}
	return make([]byte, size)
}

func (b *buffers) put(p []byte) {
	switch cap(p) {
	case smallBuffer:
		b.small.Put((*[smallBuffer]byte)(p[:smallBuffer]))
	case largeBuffer:
		b.large.Put((*[largeBuffer]byte)(p[:largeBuffer]))
	}
}

// sock reads one connection into a buffer that it holds only while there is something in it.
type sock struct {
	conn    net.Conn
	raw     syscall.RawConn // of a connection without TLS; nil: read through conn
	under   syscall.RawConn // the TCP connection, with TLS or without; nil: unknown
	tap     *tap            // below TLS; nil: there is none
	buffers *buffers
	size    int

	buf  []byte
	r, w int // what was read and not yet used is buf[r:w]
	// reading: something was read, or is just being read, that the owner has not seen yet. With TLS, tap knows that.
	reading atomic.Bool

	try    func(fd uintptr) bool
	n      int
	failed error
}

// open begins to use a connection.
func (s *sock) open(conn net.Conn, b *buffers, size int) {
	s.conn, s.buffers, s.size = conn, b, size
	if t, ok := conn.(*tap); ok {
		conn = t.Conn // no TLS
		s.conn = conn
	}
	inner := conn
	if t, ok := conn.(interface{ NetConn() net.Conn }); ok {
		inner = t.NetConn()
	}
	if t, ok := inner.(*tap); ok {
		s.tap, inner = t, t.Conn
	}
	if c, ok := inner.(syscall.Conn); ok {
		s.under, _ = c.SyscallConn()
	}
	if inner == conn {
		s.raw = s.under
	}
	s.try = s.attempt
}

func (s *sock) rest() []byte { return s.buf[s.r:s.w] }

// fill reads once, and waits until there is something to read. want is the length up to which the message in the buffer
// has to be there as a whole; 0: any will do.
func (s *sock) fill(want int) error {
	s.room(want)
	if s.raw == nil {
		if s.buf == nil {
			s.buf = s.buffers.get(s.size)
		}
		n, err := s.conn.Read(s.buf[s.w:])
		s.reading.Store(true)
		if n > 0 {
			s.w += n
			return nil
		}
		return errors.Join(err, io.ErrNoProgress)
	}
	s.n, s.failed = 0, nil
	if err := s.raw.Read(s.try); err != nil {
		return err
	}
	if s.failed != nil {
		return s.failed
	}
	if s.n == 0 {
		return io.EOF
	}
	s.w += s.n
	return nil
}

// attempt reads without waiting; false: there is nothing yet.
func (s *sock) attempt(fd uintptr) bool {
	if s.buf == nil {
		s.buf = s.buffers.get(s.size)
	}
	s.reading.Store(true)
	for {
		n, err := unix.Read(int(fd), s.buf[s.w:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			s.reading.Store(false)
			if s.r == s.w {
				s.release()
			}
			return false
		}
		s.n, s.failed = max(n, 0), err
		return true
	}
}

// room makes room behind what is in the buffer.
func (s *sock) room(want int) {
	switch {
	case s.buf == nil:
		return
	case s.r == s.w:
		s.r, s.w = 0, 0
		if cap(s.buf) > largeBuffer {
			s.release()
		}
		return
	}
	have := s.w - s.r
	if need := max(want, have+1); need > len(s.buf) {
		bigger := s.buffers.get(max(need, min(2*len(s.buf), maxKept)))
		copy(bigger, s.rest())
		s.buffers.put(s.buf)
		s.buf = bigger
	} else if s.r > 0 && (want > len(s.buf)-s.r || s.w == len(s.buf)) {
		copy(s.buf, s.rest())
	} else {
		return
	}
	s.r, s.w = 0, have
}

// busy tells whether something was read, or is just being read, that the owner has not seen yet.
func (s *sock) busy() bool {
	if s.tap != nil {
		return s.tap.busy.Load()
	}
	return s.reading.Load()
}

// grow lets later reads take more at once: much is coming.
func (s *sock) grow() { s.size = largeBuffer }

func (s *sock) release() {
	if s.buf != nil {
		s.buffers.put(s.buf)
		s.buf = nil
	}
	s.r, s.w = 0, 0
}

// glimpse is what a look at a connection shows, without reading it.
type glimpse int

const (
	nothing glimpse = iota
	something
	ended
)

// quiet tells whether there is nothing to read, not even the end. On a connection whose reader waits, that is the last moment
// at which it can be told that the other side was still there.
func (s *sock) quiet() bool { return s.peek() == nothing }

// hungUp tells whether the other side has closed its end, whatever it has sent before.
func (s *sock) hungUp() bool {
	if s.under == nil {
		return false
	}
	gone := false
	err := s.under.Control(func(fd uintptr) {
		look := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(look, 0)
		gone = err == nil && n > 0 && look[0].Revents != 0
	})
	return gone || err != nil
}

func (s *sock) peek() (seen glimpse) {
	if s.under == nil {
		return nothing
	}
	err := s.under.Control(func(fd uintptr) {
		var one [1]byte
		for {
			n, _, err := unix.Recvfrom(int(fd), one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
			switch {
			case err == unix.EINTR:
				continue
			case err == unix.EAGAIN:
				seen = nothing
			case err == nil && n > 0:
				seen = something
			default:
				seen = ended
			}
			return
		}
	})
	if err != nil {
		return ended
	}
	return seen
}
