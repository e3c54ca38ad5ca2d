package hosts

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// namespace is a network namespace without a name. It lives while we hold it, or a process is in it.
type namespace struct {
	file *os.File
	id   string // as in /proc/PID/ns/net
}

const ownNamespace = "/proc/thread-self/ns/net"

// newNamespace makes a namespace on a thread of its own, which ends with it.
func newNamespace() (*namespace, error) {
	type result struct {
		space *namespace
		err   error
	}
	made := make(chan result)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread is in the new namespace, and ends with this goroutine
		s, err := enterNew()
		made <- result{s, err}
	}()
	r := <-made
	return r.space, r.err
}

func enterNew() (*namespace, error) {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("unshare: %w", err)
	}
	f, err := os.Open(ownNamespace)
	if err != nil {
		return nil, err
	}
	id, err := os.Readlink(ownNamespace)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &namespace{file: f, id: id}, nil
}

func (s *namespace) close() error { return s.file.Close() }

// inside runs f in the namespace. Sockets that f makes, and processes that it starts, belong to it from then on.
func (s *namespace) inside(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := s.visit(f)
		if err == nil || !errors.Is(err, errStranded) {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// errStranded: the thread could not leave the namespace again; it ends with its goroutine.
var errStranded = errors.New("the thread could not return to its network namespace")

func (s *namespace) visit(f func() error) error {
	home, err := os.Open(ownNamespace)
	if err != nil {
		return err
	}
	defer home.Close()
	if err := unix.Setns(int(s.file.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the network namespace: %w", err)
	}
	err = f()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, errStranded, back)
	}
	return err
}
