// Package socket reads and writes sockets that do not block, by raw system calls.
//
// The scheduler is not told of such a call: it would often give the processor to another thread meanwhile, which costs more than
// the call. That is right only since the call does not wait for the other side: the sockets of package net do not block
// (O_NONBLOCK), so nobody may make one of them block again. It may wait for memory, like any instruction.
package socket

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Read is read(2). EAGAIN: there is nothing yet. 0 without an error: the other side has ended its direction.
func Read(fd uintptr, b []byte) (int, syscall.Errno) {
	n, errno := call(unix.SYS_READ, fd, b, 0)
	filled(b[:n])
	return n, errno
}

// Peek looks for a byte that could be read, and leaves it there; else like Read.
func Peek(fd uintptr) (int, syscall.Errno) {
	var one [1]byte
	return call(unix.SYS_RECVFROM, fd, one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
}

// HungUp tells whether the other side has closed its end, whatever it has sent before.
func HungUp(raw syscall.RawConn) bool {
	gone := false
	err := raw.Control(func(fd uintptr) {
		look := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(look, 0)
		gone = err == nil && n > 0
	})
	return gone || err != nil
}

// send is send(2), without SIGPIPE.
func send(fd uintptr, b []byte) (int, syscall.Errno) {
	taken(b)
	return call(unix.SYS_SENDTO, fd, b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
}

// call is a system call on a socket and a buffer, made again if a signal interrupts it; one that takes no flags ignores them.
func call(number, fd uintptr, b []byte, flags uintptr) (int, syscall.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(number, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), flags, 0, 0)
		switch errno {
		case 0:
			return int(n), 0
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}

// Writer writes to sockets. It is for one goroutine at a time; the zero value is ready.
type Writer struct {
	b      []byte
	n      int
	failed error
	try    func(fd uintptr) (done bool)
}

// attempt writes what can be written without waiting.
func (w *Writer) attempt(fd uintptr) (done bool) {
	for w.n < len(w.b) {
		n, errno := send(fd, w.b[w.n:])
		switch errno {
		case 0:
			w.n += n
		case unix.EAGAIN:
			return false
		default:
			w.failed = errno
			return true
		}
	}
	return true
}

// Write writes all of b, waits as long as that needs, and tells how much was written.
func (w *Writer) Write(to syscall.RawConn, b []byte) (int, error) {
	if w.try == nil {
		w.try = w.attempt
	}
	w.b, w.n, w.failed = b, 0, nil
	err := to.Write(w.try)
	w.b = nil
	if err == nil {
		err = w.failed
	}
	return w.n, err
}
