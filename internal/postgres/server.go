package postgres

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Server is one running postmaster, started by us or adopted.
type Server struct {
	pid     int
	end     func() string // how it ended, once it has; our own child is reaped by it
	adopted bool
	started time.Time
	pidfd   int
	wake    int // eventfd that ends the watch

	exited  chan struct{}
	watched chan struct{} // closed when the watching goroutine has ended
	once    sync.Once

	mu     sync.Mutex
	status string
	ended  bool // the watch is over, and pidfd is closed
}

// newServer begins to watch pid by a pidfd (pidfd_open(2), Linux 5.3), which tells of the exit within milliseconds
// whether or not the process is our child, and cannot be fooled by a pid that is used again.
func newServer(pid int, end func() string, adopted bool, started time.Time) (*Server, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("watch the server process %d: pidfd_open: %w", pid, err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch the server process %d: eventfd: %w", pid, err), unix.Close(fd))
	}
	return &Server{pid: pid, end: end, adopted: adopted, started: started, pidfd: fd, wake: wake,
		exited: make(chan struct{}), watched: make(chan struct{})}, nil
}

// PID is the process id of the postmaster.
func (s *Server) PID() int { return s.pid }

// Exited is closed when the postmaster has exited. Its children may live on; Kill ends them.
func (s *Server) Exited() <-chan struct{} { return s.exited }

// Adopted tells whether somebody else started the server.
func (s *Server) Adopted() bool { return s.adopted }

// Started is when the postmaster started, on the wall clock.
func (s *Server) Started() time.Time { return s.started }

// ExitStatus is how the postmaster ended: "signal: killed", "exit status 1", "unknown (adopted)"; empty while it runs.
func (s *Server) ExitStatus() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// watch waits for the end of the process, or of the watch. It owns both descriptors.
func (s *Server) watch() {
	defer close(s.watched)
	defer s.endWatch()
	if !s.await() {
		return
	}
	// Reaping: a zombie would keep the next server from starting, since the lock file's pid still exists.
	status := s.end()
	s.mu.Lock()
	s.status = status
	s.mu.Unlock()
	close(s.exited)
}

func (s *Server) await() (gone bool) {
	fds := []unix.PollFd{{Fd: int32(s.pidfd), Events: unix.POLLIN}, {Fd: int32(s.wake), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false
		}
		if fds[0].Revents != 0 {
			return true
		}
		if fds[1].Revents != 0 {
			return false
		}
	}
}

// detach ends the watch and waits for its end. The server goes on.
func (s *Server) detach() {
	s.once.Do(func() {
		_, _ = unix.Write(s.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		<-s.watched
		unix.Close(s.wake)
	})
}

func (s *Server) alive() bool {
	select {
	case <-s.exited:
		return false
	default:
		return true
	}
}

// signal sends through the pidfd: it never hits a process that came to use the number later.
func (s *Server) signal(sig unix.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return nil
	}
	err := unix.PidfdSendSignal(s.pidfd, sig, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	return err
}

func (s *Server) endWatch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	unix.Close(s.pidfd)
}
