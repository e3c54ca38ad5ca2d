package pooled

import (
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/havenha/haven/internal/postgres/pgtest"
)

// served runs a sock on one end of a connection, and returns the other end, what is used, and the end of serve.
func served[C net.Conn](t *testing.T, network, address string) (s *sock, far C, used chan string, over chan struct{}) {
	t.Helper()
	l, err := net.Listen(network, address)
	pgtest.Must(t, err)
	defer l.Close()
	dialed, err := net.Dial(network, l.Addr().String())
	pgtest.Must(t, err)
	near, err := l.Accept()
	pgtest.Must(t, err)
	t.Cleanup(func() { dialed.Close(); near.Close() })
	s, used, over = &sock{}, make(chan string), make(chan struct{})
	s.open(near, &buffers{}, smallBuffer)
	go func() {
		defer close(over)
		s.serve(func() (int, bool) {
			used <- string(s.unread())
			s.r = s.w
			return 0, true
		})
	}()
	return s, dialed.(C), used, over
}

// An end that comes in one segment with the last bytes is not told by the poller, once these were read.
func TestEndTogetherWithTheLastBytesIsFound(t *testing.T) {
	s, far, used, over := served[*net.TCPConn](t, "tcp", "127.0.0.1:0")
	raw, err := far.SyscallConn()
	pgtest.Must(t, err)
	var corked error
	pgtest.Must(t, raw.Control(func(fd uintptr) { corked = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK, 1) }))
	pgtest.Must(t, corked)
	_, err = far.Write([]byte("the last bytes"))
	pgtest.Must(t, err)
	pgtest.Must(t, far.CloseWrite())
	if got := <-used; got != "the last bytes" {
		t.Errorf("got %q", got)
	}
	for looks := 0; ; looks++ {
		select {
		case <-over:
			return
		case <-time.After(10 * time.Millisecond):
		}
		if looks > 1000 {
			t.Fatal("the end is not found")
		}
		s.watched()
	}
}

// A file that is sent along divides a stream: the read before it leaves room though there is more.
func TestBytesBehindAFileAreRead(t *testing.T) {
	s, far, used, over := served[*net.UnixConn](t, "unix", filepath.Join(t.TempDir(), "s"))
	raw, err := far.SyscallConn()
	pgtest.Must(t, err)
	var sent error
	// Both are there before the owner reads again.
	_, err = far.Write([]byte("first, "))
	pgtest.Must(t, err)
	pgtest.Eventually(t, "the owner has something to use", func() error {
		if !s.reading.Load() {
			return errors.New("it waits")
		}
		return nil
	})
	pgtest.Must(t, raw.Control(func(fd uintptr) {
		rights := unix.UnixRights(int(fd))
		sent = errors.Join(unix.Sendmsg(int(fd), []byte("before"), rights, nil, 0), unix.Sendmsg(int(fd), []byte("after"), nil, nil, 0))
	}))
	pgtest.Must(t, sent)
	for got := ""; got != "first, beforeafter"; {
		select {
		case more := <-used:
			got += more
		case <-time.After(10 * time.Millisecond):
			s.watched()
		case <-over:
			t.Fatalf("the connection has ended after %q", got)
		}
	}
	_, err = far.Write([]byte(", and so on"))
	pgtest.Must(t, err)
	if got := <-used; got != ", and so on" {
		t.Errorf("after that comes %q", got)
	}
	pgtest.Must(t, far.Close())
	<-over
}

// Nothing that comes while something is used is forgotten.
func TestBytesThatComeMeanwhileAreRead(t *testing.T) {
	_, far, used, over := served[*net.TCPConn](t, "tcp", "127.0.0.1:0")
	for sent := range 20000 {
		_, err := far.Write([]byte{byte(sent)})
		pgtest.Must(t, err)
		if sent%7 == 0 {
			for got := <-used; got[len(got)-1] != byte(sent); got = <-used {
			}
		}
	}
	far.Close()
	for {
		select {
		case <-used:
		case <-over:
			return
		}
	}
}

// To end a connection from the goroutine that uses it, or from another, ends it for both sides.
func TestEndFromAnywhere(t *testing.T) {
	s, far, _, over := served[*net.TCPConn](t, "tcp", "127.0.0.1:0")
	s.end()
	<-over
	if n, err := far.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("read %d bytes, %v", n, err)
	}
	if _, err := s.write([]byte("x")); err == nil {
		t.Error("it can still be written to")
	}
}
