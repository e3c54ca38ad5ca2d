package pooled

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/havenha/haven/internal/proxy/socket"
	"golang.org/x/sys/unix"
)

// Sizes of buffers. A client's is small until it sends much; those of servers carry results.
const (
	smallBuffer = 4 << 10
	largeBuffer = 16 << 10
)

// buffers keeps buffers that nobody needs at the moment, so that those who wait hold none.
type buffers struct{ small, large, writers sync.Pool }

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

func (b *buffers) writer() *socket.Writer {
	if w, ok := b.writers.Get().(*socket.Writer); ok {
		return w
	}
	return &socket.Writer{}
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

	over atomic.Bool // end was called
	// recalled is to be used again, before what was read since.
	recalled atomic.Pointer[[]byte]
	rousing  struct {
		sync.Mutex
		on bool // rouse has ended a wait
	}
	// wait is what is known of the connection's end while its owner waits (see watched).
	wait atomic.Int32
}

// layer is what lies over a connection, such as TLS.
type layer interface{ NetConn() net.Conn }

// open begins to use a connection.
func (s *sock) open(conn net.Conn, b *buffers, size int) {
	s.conn, s.buffers, s.size = conn, b, size
	if t, ok := conn.(*tap); ok {
		conn = t.Conn // no TLS
		s.conn = conn
	}
	inner := conn
	for t, ok := inner.(layer); ok; t, ok = inner.(layer) {
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
}

func (s *sock) unread() []byte { return s.buf[s.r:s.w] }

// serve reads what comes, and has it used, until use is not ok or the connection ends. use tells the length up to which the message
// in the buffer has to be there as a whole; 0: any will do.
func (s *sock) serve(use func() (want int, ok bool)) {
	if s.raw != nil {
		// The runtime tells every arrival once (epoll's EPOLLET), and forgets none as long as one call lasts.
		read := func(fd uintptr) (ended bool) { return s.drain(fd, use) }
		for err := s.raw.Read(read); s.roused(err) && s.again(use); {
			err = s.raw.Read(read)
		}
		return
	}
	for {
		if s.buf == nil {
			s.buf = s.buffers.get(s.size)
		}
		n, err := s.conn.Read(s.buf[s.w:])
		s.reading.Store(true)
		switch {
		case n > 0:
		case s.roused(err):
			if !s.again(use) {
				return
			}
			s.rest()
			continue
		case err != nil:
			return
		}
		s.w += n
		want, ok := use()
		if !ok {
			return
		}
		s.room(want)
	}
}

// drain reads all there is without waiting. A read that leaves room in the buffer has taken all, so none is tried after it: what
// comes later is told (epoll(7), questions and answers, 9). Only an end that came together with those bytes is not.
func (s *sock) drain(fd uintptr, use func() (want int, ok bool)) (ended bool) {
	s.wait.Store(certain)
	for !s.over.Load() {
		if s.buf == nil {
			s.buf = s.buffers.get(s.size)
		}
		room := s.buf[s.w:]
		s.reading.Store(true)
		n, errno := socket.Read(fd, room)
		switch {
		case errno == unix.EAGAIN:
			s.rest()
			return false
		case n == 0:
			return true
		}
		s.w += n
		want, ok := use()
		if !ok {
			return true
		}
		s.room(want)
		if n < len(room) {
			s.wait.Store(unsure)
			s.rest()
			return false
		}
	}
	return true
}

// rest is what comes before a wait.
func (s *sock) rest() {
	if s.r == s.w {
		s.release()
	}
	s.reading.Store(false)
}

// The values of wait: the end would be told; it may have come with the last bytes, untold; and it may have since the last look.
const (
	certain int32 = iota
	unsure
	suspect
)

// watched is called now and then. It finds the end of a connection that came together with the last bytes read, so that the
// owner was not told of it, and wakes the owner up. The same for bytes: a read may leave some although it left room (urgent
// data, and files sent along on a Unix socket, divide a stream), and no client of PostgreSQL sends such.
func (s *sock) watched() {
	switch {
	case s.wait.CompareAndSwap(unsure, suspect):
	case s.wait.CompareAndSwap(suspect, certain):
		if s.peek() != nothing {
			s.rouse()
		}
	}
}

// rouse ends the owner's wait, or its next one.
func (s *sock) rouse() {
	s.rousing.Lock()
	defer s.rousing.Unlock()
	s.rousing.on = true
	_ = s.conn.SetReadDeadline(time.Unix(1, 0)) // one that was closed meanwhile has no owner that waits
}

// roused tells whether rouse has ended the owner's wait with that error, and the connection has not ended, so that it goes on.
func (s *sock) roused(err error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	s.rousing.Lock()
	defer s.rousing.Unlock()
	if !s.rousing.on || s.peek() == ended {
		return false
	}
	s.rousing.on = false
	_ = s.conn.SetReadDeadline(time.Time{})
	return true
}

// recall has the owner use once more what it has used, and wakes it up for that. It is called once, and nothing may have been used
// since.
func (s *sock) recall(b []byte) {
	s.recalled.Store(&b)
	s.rouse()
}

// restore puts what was recalled before what has been read since.
func (s *sock) restore() {
	if s.recalled.Load() == nil {
		return
	}
	b, rest := *s.recalled.Swap(nil), s.unread()
	all := s.buffers.get(max(s.size, len(b)+len(rest)))
	n := copy(all, b)
	n += copy(all[n:], rest)
	if s.buf != nil {
		s.buffers.put(s.buf)
	}
	s.buf, s.r, s.w = all, 0, n
}

// again has what was recalled used.
func (s *sock) again(use func() (want int, ok bool)) bool {
	if s.recalled.Load() == nil {
		return true
	}
	want, ok := use()
	if ok {
		s.room(want)
	}
	return ok
}

// write writes all of b, and waits as long as that needs.
func (s *sock) write(b []byte) (int, error) {
	if s.raw == nil {
		return s.conn.Write(b)
	}
	w := s.buffers.writer()
	defer s.buffers.writers.Put(w)
	return w.Write(s.raw, b)
}

// end ends the connection in both directions, at once, and from any goroutine: nothing is read or written any more. The owner, which
// is woken up by it, closes it: a Close would wait for the owner.
func (s *sock) end() {
	if s.raw == nil {
		s.conn.Close()
		return
	}
	s.over.Store(true)
	_ = s.raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) }) // fails if it has ended already
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
		copy(bigger, s.unread())
		s.buffers.put(s.buf)
		s.buf = bigger
	} else if s.r > 0 && (want > len(s.buf)-s.r || s.w == len(s.buf)) {
		copy(s.buf, s.unread())
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
func (s *sock) hungUp() bool { return s.under != nil && socket.HungUp(s.under) }

func (s *sock) peek() (seen glimpse) {
	if s.under == nil {
		return nothing
	}
	err := s.under.Control(func(fd uintptr) {
		switch n, errno := socket.Peek(fd); {
		case errno == unix.EAGAIN:
			seen = nothing
		case n > 0:
			seen = something
		default:
			seen = ended
		}
	})
	if err != nil {
		return ended
	}
	return seen
}
