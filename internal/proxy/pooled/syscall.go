package pooled

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// receive is recv(2) on a socket, without waiting; EAGAIN: there is nothing yet. Since it does not block, the scheduler is not told of
// it, which would often give the processor to another thread in the meantime, for nothing.
func receive(fd uintptr, b []byte, flags int) (int, syscall.Errno) {
	for {
		n, _, e := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), uintptr(flags|unix.MSG_DONTWAIT), 0, 0)
		switch e {
		case 0:
			return int(n), 0
		case unix.EINTR:
		default:
			return 0, e
		}
	}
}

// send is send(2) on a socket, without waiting, like receive.
func send(fd uintptr, b []byte) (int, syscall.Errno) {
	for {
		n, _, e := unix.RawSyscall6(unix.SYS_SENDTO, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
		switch e {
		case 0:
			return int(n), 0
		case unix.EINTR:
		default:
			return 0, e
		}
	}
}

// writing is one write to a connection.
type writing struct {
	b      []byte
	n      int
	failed error
	try    func(fd uintptr) (done bool)
}

// attempt writes what can be written without waiting.
func (w *writing) attempt(fd uintptr) (done bool) {
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

// run writes all of b, and waits as long as that needs.
func (w *writing) run(raw syscall.RawConn, b []byte) (int, error) {
	w.b, w.n, w.failed = b, 0, nil
	err := raw.Write(w.try)
	w.b = nil
	if err == nil {
		err = w.failed
	}
	return w.n, err
}
