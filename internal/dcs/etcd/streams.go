package etcd

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// streamTimeout is after how long without an acknowledgement, or without any sign of life, a connection between members
// is closed: etcd's own read and write timeouts of such connections (rafthttp.DefaultConnReadTimeout).
const streamTimeout = 5 * time.Second

// streamLook is how often connections are looked for that are not bounded yet.
const streamLook = 2 * time.Second

// boundStreams sees until ctx ends that the connections between members do not outlive a broken network.
//
// etcd gives its streams timeouts by the Dial of their http.Transport. Since its transport sets DialContext, too, which
// takes precedence (net/http, Transport.Dial), they have been without any: after a minute of a cut network the kernel
// sends what waits in them again only at its next attempt, which it doubles (RFC 6298, 5.5), 50 s later, and until then the
// members cannot elect a leader. The kernel is told the same timeouts here (tcp(7)). etcd opens its sockets by itself, so
// they are found among the descriptors of this process by their ports. Should a descriptor be given to another socket
// between the look and the setting, that one is closed after streamTimeout without a sign of life: no more than that.
func (s *Server) boundStreams(ctx context.Context) {
	ports := s.peerPorts()
	t := time.NewTicker(streamLook)
	defer t.Stop()
	for {
		for _, fd := range streams(ports) {
			if err := boundStream(fd); err != nil {
				s.opt.Log.Debug("etcd connection not bounded", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (s *Server) peerPorts() map[int]bool {
	out := map[int]bool{}
	for _, m := range s.opt.Members {
		if _, port, err := net.SplitHostPort(m.Peer); err == nil {
			if n, err := strconv.Atoi(port); err == nil {
				out[n] = true
			}
		}
	}
	return out
}

// streams are the descriptors of this process that are connections from or to one of these ports.
func streams(ports map[int]bool) []int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil
	}
	var out []int
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		far, err := unix.Getpeername(fd)
		if err != nil {
			continue // no socket, or not connected
		}
		near, err := unix.Getsockname(fd)
		if err == nil && (ports[socketPort(far)] || ports[socketPort(near)]) {
			out = append(out, fd)
		}
	}
	return out
}

// socketPort is the port of an address of TCP; 0: it is of another kind.
func socketPort(a unix.Sockaddr) int {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return a.Port
	case *unix.SockaddrInet6:
		return a.Port
	}
	return 0
}

func boundStream(fd int) error {
	limit, idle := int(streamTimeout.Milliseconds()), int(streamTimeout.Seconds())
	hasLimit, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
	hasIdle, errIdle := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE)
	if err := errors.Join(err, errIdle); err != nil || hasLimit == limit && hasIdle == idle { // who has opened it may set the latter later
		return err
	}
	for _, o := range []struct{ level, name, value int }{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, idle},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 1},
		{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, limit},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return os.NewSyscallError("setsockopt", err)
		}
	}
	return nil
}
