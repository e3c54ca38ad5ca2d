package listen

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/havenha/haven/internal/config/notation"
	"golang.org/x/sys/unix"
)

// everybody is PgBouncer's default of unix_socket_mode.
const everybody = 0o777

// errSocket marks errors of Unix sockets, which say by themselves what to do.
var errSocket = errors.New("the Unix socket could not be made")

func failed(format string, a ...any) error {
	return fmt.Errorf("%w: %w", errSocket, fmt.Errorf(format, a...))
}

// socket is a listening Unix socket whose file goes with it.
type socket struct {
	*net.UnixListener
	path string
	file os.FileInfo // to tell it from one that has taken its place
}

// bind makes the socket under another name and moves it to its own: so it is never there with other permissions, and
// takes the place of a stale one at once. The lock on the directory keeps another proxy from doing so at the same time.
func bind(path string, u Unix) (net.Listener, error) {
	if len(path) > notation.MaxSocketPath {
		return nil, failed("%s has %d bytes, and a socket's path at most %d: choose a shorter directory", path, len(path), notation.MaxSocketPath)
	}
	unlock, err := lock(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := vacant(path); err != nil {
		return nil, err
	}
	interim := filepath.Join(filepath.Dir(path), ".hv"+suffix())
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: interim, Net: "unix"})
	if err != nil {
		return nil, failed("this user may not make files in %s: give the directory to it, or choose another: %w", filepath.Dir(path), err)
	}
	l.SetUnlinkOnClose(false)
	s := &socket{UnixListener: l, path: path}
	if err := s.place(interim, u); err != nil {
		l.Close()
		os.Remove(interim)
		return nil, err
	}
	return s, nil
}

// suffix is short, so that the interim name is no longer than the final one.
func suffix() string {
	var random [3]byte
	rand.Read(random[:]) // never fails
	return hex.EncodeToString(random[:])
}

func (s *socket) place(interim string, u Unix) (err error) {
	if u.Group != "" {
		gid, err := groupID(u.Group)
		if err != nil {
			return err
		}
		if err := os.Chown(interim, -1, gid); err != nil {
			return failed("it cannot be given to the group %s: unix_socket_group has to be one that this user belongs to: %w", u.Group, err)
		}
	}
	mode := u.Mode
	if mode == 0 {
		mode = everybody
	}
	if err := os.Chmod(interim, fs.FileMode(mode)); err != nil {
		return failed("set unix_socket_mode: %w", err)
	}
	if s.file, err = os.Lstat(interim); err != nil {
		return failed("look at it: %w", err)
	}
	if err := os.Rename(interim, s.path); err != nil {
		return failed("move it to %s: %w", s.path, err)
	}
	return nil
}

func groupID(name string) (int, error) {
	if n, err := strconv.Atoi(name); err == nil {
		return n, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, failed("unix_socket_group names %s, and this host has no such group: make it, or name another: %w", name, err)
	}
	return strconv.Atoi(g.Gid)
}

// lock keeps other proxies from making sockets in the directory.
func lock(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, failed("there is no directory %s: make it, and give it to the user that runs haven", dir)
	case err != nil:
		return nil, failed("%s may not be read by this user: give it to the user that runs haven: %w", dir, err)
	}
	for begun := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Since(begun) > locking {
			f.Close()
			return nil, failed("the lock of %s cannot be had: see who holds it with lslocks, or choose another directory: %w", dir, err)
		}
	}
}

// knocking is how long a socket may take to answer, locking how long others may take to make theirs.
const (
	knocking = time.Second
	locking  = 5 * time.Second
)

// vacant tells whether the path may be used: nothing is there, or a socket on which nobody listens.
func vacant(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return failed("look at %s: %w", path, err)
	case info.Mode().Type() != fs.ModeSocket:
		return failed("%s is there, and is no socket: move it away, or choose another directory", path)
	}
	conn, err := net.DialTimeout("unix", path, knocking)
	if err == nil {
		conn.Close()
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, fs.ErrPermission):
		return failed("%s may not be connected to by this user, so it is not known whether a program listens there: remove it if none does: %w", path, err)
	}
	return failed("another program listens on %s: stop it, or choose another port or directory", path)
}

// Addr is the socket under its own name.
func (s *socket) Addr() net.Addr { return &net.UnixAddr{Name: s.path, Net: "unix"} }

// Close removes the file too, if it still is the socket's own.
func (s *socket) Close() error {
	if now, err := os.Lstat(s.path); err == nil && os.SameFile(now, s.file) {
		_ = os.Remove(s.path) // who finds it is refused, and the next proxy replaces it
	}
	return s.UnixListener.Close()
}
