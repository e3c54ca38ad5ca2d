package proxy

import (
	"context"
	"net"
	"time"

	"github.com/havenha/haven/internal/proxy/socket"
	"golang.org/x/sys/unix"
)

// tcpInfo is what the kernel knows of a connection (tcp(7), TCP_INFO); false when it is closed. It costs nothing while
// bytes flow, unlike counting them here, which would end splicing.
func tcpInfo(c *net.TCPConn) (info unix.TCPInfo, ok bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return info, false
	}
	err = raw.Control(func(fd uintptr) {
		if i, e := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); e == nil {
			info, ok = *i, true
		}
	})
	return info, ok && err == nil
}

// bytesOf is what was received and what was acknowledged. The kernel counts the end of each direction as one byte.
func bytesOf(info unix.TCPInfo) (received, acked int64) {
	received, acked = int64(info.Bytes_received), int64(info.Bytes_acked)
	switch info.State {
	case unix.BPF_TCP_CLOSE_WAIT, unix.BPF_TCP_LAST_ACK, unix.BPF_TCP_CLOSING:
		received--
	case unix.BPF_TCP_FIN_WAIT2:
		acked--
	case unix.BPF_TCP_TIME_WAIT, unix.BPF_TCP_CLOSE:
		received, acked = received-1, acked-1
	}
	return max(received, 0), max(acked, 0)
}

// leg is the connection of a session that the kernel keeps numbers of: the client's, or the server's for a client at a Unix
// socket. flipped: what it receives is what the client gets.
func (s *session) leg() (c *net.TCPConn, flipped bool) {
	if c, ok := s.client.(*net.TCPConn); ok {
		return c, false
	}
	return s.server, true
}

// departed tells whether the client has closed its end. Clients of PostgreSQL do so only when they want no answer.
func departed(c stream) bool {
	raw, err := c.SyscallConn()
	return err != nil || socket.HungUp(raw)
}

// endIdle closes sessions without traffic for idle_timeout, until ctx ends.
func (l *listener) endIdle(ctx context.Context) {
	for ctx.Err() == nil {
		limit := l.board.limits(l.ledger).IdleTimeout
		for _, s := range l.board.idle(l.ledger, limit) {
			s.client.Close()
			s.server.Close()
		}
		pause := time.Second
		if limit > 0 {
			pause = min(pause, limit/4+time.Millisecond)
		}
		sleep(ctx, pause)
	}
}

// idle returns the listener's sessions without traffic for at least limit.
func (b *board) idle(l *ledger, limit time.Duration) (out []*session) {
	if limit <= 0 {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.sessions {
		if s.ledger != l || s.client == nil {
			continue
		}
		leg, _ := s.leg()
		info, ok := tcpInfo(leg)
		quiet := time.Duration(min(info.Last_data_recv, info.Last_data_sent)) * time.Millisecond
		if ok && quiet >= limit {
			out = append(out, s)
		}
	}
	return out
}
