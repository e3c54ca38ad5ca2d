package hosts

import (
	"context"
	"crypto/rand"
	"net"
	"net/netip"
	"sync"
	"time"
)

// earPort is the UDP port on which every host hears probes.
const earPort = 7

// ear hears probes, so that a cut and its undoing can be verified one direction at a time.
type ear struct {
	conn  *net.UDPConn
	ended chan struct{}

	mu      sync.Mutex
	waiting map[string]chan struct{}
}

func listen(h *Host) (*ear, error) {
	e := &ear{waiting: map[string]chan struct{}{}, ended: make(chan struct{})}
	err := h.space.inside(func() (err error) {
		e.conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(h.Addr, earPort)))
		return err
	})
	if err != nil {
		return nil, err
	}
	go e.hear()
	return e, nil
}

func (e *ear) hear() {
	defer close(e.ended)
	buf := make([]byte, 64)
	for {
		n, _, err := e.conn.ReadFromUDP(buf)
		if err != nil {
			return // closed
		}
		e.mu.Lock()
		if c := e.waiting[string(buf[:n])]; c != nil {
			close(c)
			delete(e.waiting, string(buf[:n]))
		}
		e.mu.Unlock()
	}
}

func (e *ear) expect(word string) <-chan struct{} {
	c := make(chan struct{})
	e.mu.Lock()
	e.waiting[word] = c
	e.mu.Unlock()
	return c
}

func (e *ear) forget(word string) {
	e.mu.Lock()
	delete(e.waiting, word)
	e.mu.Unlock()
}

func (e *ear) close() {
	e.conn.Close()
	<-e.ended
}

// probeTime is how long a probe tries; it sends one datagram every tenth of that.
const probeTime = 500 * time.Millisecond

// Reaches tells whether packets from h with that UDP source port (0: any) arrive at to, in this direction alone.
func (h *Host) Reaches(ctx context.Context, to *Host, source uint16) (bool, error) {
	var conn *net.UDPConn
	err := h.space.inside(func() (err error) {
		conn, err = net.DialUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(h.Addr, source)),
			net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.Addr, earPort)))
		return err
	})
	if err != nil {
		return false, err
	}
	defer conn.Close()
	word := rand.Text()
	heard := to.ear.expect(word)
	defer to.ear.forget(word)
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	again := time.NewTicker(probeTime / 10)
	defer again.Stop()
	for {
		_, _ = conn.Write([]byte(word)) // an error tells of an earlier datagram that was not taken
		select {
		case <-heard:
			return true, nil
		case <-again.C:
		case <-ctx.Done():
			return false, nil
		}
	}
}
