package addresses

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/havenha/haven/internal/proxy/listen"
)

// Dial connects to the first of the addresses that answers. ctx bounds all tries together.
func Dial(ctx context.Context, addresses []netip.AddrPort) (*net.TCPConn, error) {
	err := errors.New("no address is known")
	for i, a := range addresses {
		conn, e := dialOne(ctx, a, len(addresses)-i)
		if e == nil {
			return conn, nil
		}
		err = e
	}
	return nil, err
}

// dialOne gives one address its share of the time that is left for n of them.
func dialOne(ctx context.Context, a netip.AddrPort, n int) (*net.TCPConn, error) {
	if deadline, ok := ctx.Deadline(); ok && n > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(n))
		defer cancel()
	}
	d := net.Dialer{KeepAliveConfig: listen.KeepAlive()}
	conn, err := d.DialContext(ctx, "tcp", a.String())
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil
}
