// Package freeport finds ports of loopback for servers of a demo or a test.
//
// They are taken from below the range out of which Linux gives source ports to connections (ip_local_port_range, 32768 by
// default): one from within it may be a connection's own a moment later. A port that was given is given to nobody else,
// here or in another process, for as long as this one lives; strangers may still be faster.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"

	"golang.org/x/sys/unix"
)

const (
	lowest = 15_000
	span   = 17_000
	tries  = 200
)

// Pick returns a port of 127.0.0.1 on which nobody listened a moment ago.
func Pick() (int, error) {
	var last error
	for range tries {
		port := lowest + rand.IntN(span)
		if err := reserve(port); err != nil {
			last = err
			continue
		}
		l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			return port, l.Close()
		}
		last = err
	}
	return 0, fmt.Errorf("no free port found in %d tries: %w", tries, last)
}

// reserve holds a name of the system that only one process can have (unix(7), abstract sockets) until this one ends: the
// descriptor is never closed.
func reserve(port int) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("@haven-port-%d", port)}); err != nil {
		return errors.Join(fmt.Errorf("port %d is reserved: %w", port, err), unix.Close(fd))
	}
	return nil
}
