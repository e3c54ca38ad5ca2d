package pooled

import (
	"context"
	"net"
	"sync"
	"syscall"

	"github.com/havenha/haven/internal/proxy/socket"
)

// arrivals are clients that log in. While a secret is looked up nobody reads them, and the lookup may have to wait for a server: so it is
// looked whether they are still there.
type arrivals struct {
	mu  sync.Mutex
	all map[*arrival]struct{}
}

type arrival struct {
	raw syscall.RawConn
	end context.CancelFunc
}

// come notes one whose login ends with end; the result is called when that is over.
func (a *arrivals) come(conn net.Conn, end context.CancelFunc) (over func()) {
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return func() {}
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return func() {}
	}
	one := &arrival{raw, end}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.all == nil {
		a.all = map[*arrival]struct{}{}
	}
	a.all[one] = struct{}{}
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.all, one)
	}
}

// look ends the logins of those who have left.
func (a *arrivals) look() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for one := range a.all {
		if socket.HungUp(one.raw) {
			one.end()
		}
	}
}
