package proxy

import (
	"errors"
	"io"
	"sync"

	"github.com/havenha/haven/internal/proxy/socket"
	"golang.org/x/sys/unix"
)

// A message goes through a buffer of this process: that is cheaper than splice(2) as long as it is short. From somebody who sends
// that much, that often in a row, so much more is spliced: between TCP connections, those bytes never enter this process.
const (
	bufferSize = 16 << 10
	much       = 8 << 10 // what PostgreSQL sends at once (PQ_SEND_BUFFER_SIZE in pqcomm.c)
	often      = 8
	spliced    = 256 << 10
)

// copying is one direction of a session. It holds a buffer only while there is something in it.
type copying struct {
	buffers *sync.Pool
	buffer  *[bufferSize]byte // nil: there is nothing in it
	n       int
	failed  error
	writer  socket.Writer
}

// copyAll copies until from ends. Buffers are taken from there and put back.
func copyAll(to, from stream, buffers *sync.Pool) (total int64, err error) {
	source, err := from.SyscallConn()
	if err != nil {
		return 0, err
	}
	sink, err := to.SyscallConn()
	if err != nil {
		return 0, err
	}
	c := &copying{buffers: buffers}
	defer c.release()
	read := c.read
	for row := 0; ; {
		if err := source.Read(read); err != nil || c.failed != nil || c.n == 0 {
			return total, errors.Join(err, c.failed)
		}
		n, err := c.writer.Write(sink, c.buffer[:c.n])
		total += int64(n)
		if err != nil {
			return total, err
		}
		row++
		if c.n < much {
			row = 0
		}
		if row < often {
			continue
		}
		row = often - 1 // unless less comes next, it goes on so
		c.release()
		more, err := io.CopyN(to, from, spliced)
		total += more
		switch {
		case errors.Is(err, io.EOF):
			return total, nil
		case err != nil:
			return total, err
		}
	}
}

// read reads without waiting; false: there is nothing yet.
func (c *copying) read(fd uintptr) (done bool) {
	if c.buffer == nil {
		var ok bool
		if c.buffer, ok = c.buffers.Get().(*[bufferSize]byte); !ok {
			c.buffer = new([bufferSize]byte)
		}
	}
	n, errno := socket.Read(fd, c.buffer[:])
	switch errno {
	case 0:
		c.n = n
	case unix.EAGAIN:
		c.release()
		return false
	default:
		c.failed = errno
	}
	return true
}

func (c *copying) release() {
	if c.buffer != nil {
		c.buffers.Put(c.buffer)
		c.buffer = nil
	}
}
