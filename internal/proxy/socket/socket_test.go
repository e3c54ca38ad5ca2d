package socket

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// pair is a TCP connection, and what the near end is used by.
func pair(t *testing.T) (near, far *net.TCPConn, raw syscall.RawConn) {
	t.Helper()
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if far, err = net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr)); err != nil {
		t.Fatal(err)
	}
	if near, err = l.AcceptTCP(); err != nil {
		t.Fatal(err)
	}
	if raw, err = near.SyscallConn(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far, raw
}

// control runs f on the socket.
func control(t *testing.T, raw syscall.RawConn, f func(fd uintptr)) {
	t.Helper()
	if err := raw.Control(f); err != nil {
		t.Fatal(err)
	}
}

func TestReadAndPeek(t *testing.T) {
	_, far, raw := pair(t)
	control(t, raw, func(fd uintptr) {
		if _, errno := Read(fd, make([]byte, 8)); errno != unix.EAGAIN {
			t.Errorf("read of nothing: %v", errno)
		}
		if _, errno := Peek(fd); errno != unix.EAGAIN {
			t.Errorf("a look at nothing: %v", errno)
		}
	})
	if _, err := far.Write([]byte("word")); err != nil {
		t.Fatal(err)
	}
	far.CloseWrite()
	b := make([]byte, 8)
	for range 2 { // a look takes nothing
		if err := raw.Read(func(fd uintptr) bool { n, errno := Peek(fd); return errno == 0 && n == 1 }); err != nil {
			t.Fatal(err)
		}
	}
	control(t, raw, func(fd uintptr) {
		if n, errno := Read(fd, b); errno != 0 || string(b[:n]) != "word" {
			t.Errorf("got %q, %v", b[:n], errno)
		}
	})
	err := raw.Read(func(fd uintptr) bool { n, errno := Read(fd, b); return errno == 0 && n == 0 })
	if err != nil {
		t.Errorf("the end: %v", err)
	}
}

// More than the buffers of both sockets take is written as a whole, while the other side reads.
func TestWriterWaits(t *testing.T) {
	near, far, raw := pair(t)
	sent := make([]byte, 32<<20)
	random := rand.NewChaCha8([32]byte{})
	random.Read(sent)
	got := make(chan []byte, 1)
	go func() {
		b, err := io.ReadAll(far)
		if err != nil {
			t.Error(err)
		}
		got <- b
	}()
	var w Writer
	if n, err := w.Write(raw, sent); n != len(sent) || err != nil {
		t.Fatalf("%d bytes, %v", n, err)
	}
	near.CloseWrite()
	if !bytes.Equal(<-got, sent) {
		t.Error("something else has arrived")
	}
}

func TestWriterTellsWhatWasLost(t *testing.T) {
	near, far, raw := pair(t)
	far.SetLinger(0)
	far.Close()
	var w Writer
	var err error
	for err == nil {
		_, err = w.Write(raw, []byte("x"))
	}
	if !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("got %v", err)
	}
	near.Close()
	if n, err := w.Write(raw, []byte("x")); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %d, %v", n, err)
	}
}
