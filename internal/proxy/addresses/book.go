// Package addresses keeps the addresses of hosts at hand, and connects to the first that answers.
package addresses

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Names are looked up when they appear and again every refreshAfter; one that has no address yet every retryAfter. A
// failed lookup leaves the addresses that were known.
const (
	refreshAfter  = time.Minute
	retryAfter    = time.Second
	lookupTimeout = 5 * time.Second
)

// Lookup finds the addresses of a host.
type Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

// Book holds the addresses of hosts, so that nobody waits for a name server at a change of leader.
type Book struct {
	lookup  Lookup
	wake    chan struct{}
	updated chan struct{} // capacity 1

	mu    sync.Mutex
	hosts map[string][]netip.Addr // wanted; empty: not known yet
}

// New makes an empty book; Run fills it.
func New(l Lookup) *Book {
	return &Book{lookup: l, wake: make(chan struct{}, 1), updated: make(chan struct{}, 1), hosts: map[string][]netip.Addr{}}
}

// System asks the name servers of this host.
func System(ctx context.Context, host string) ([]netip.Addr, error) {
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// Updated tells that addresses have changed.
func (b *Book) Updated() <-chan struct{} { return b.updated }

// Want says which hosts are needed from now on.
func (b *Book) Want(hosts []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	next := make(map[string][]netip.Addr, len(hosts))
	for _, h := range hosts {
		known, ok := b.hosts[h]
		if !ok {
			signal(b.wake)
		}
		next[h] = known
	}
	b.hosts = next
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// At returns the addresses of host:port, as far as they are known; a literal address is its own.
func (b *Book) At(hostport string) []netip.AddrPort {
	host, text, err := net.SplitHostPort(hostport)
	port, perr := strconv.ParseUint(text, 10, 16)
	if err != nil || perr != nil {
		return nil
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(a, uint16(port))}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []netip.AddrPort
	for _, a := range b.hosts[host] {
		out = append(out, netip.AddrPortFrom(a.Unmap(), uint16(port)))
	}
	return out
}

// Run looks names up until ctx ends.
func (b *Book) Run(ctx context.Context) {
	refreshed := time.Now()
	timer := time.NewTimer(retryAfter)
	defer timer.Stop()
	for {
		all := time.Since(refreshed) >= refreshAfter
		if all {
			refreshed = time.Now()
		}
		pause := refreshAfter
		if b.round(ctx, all) > 0 {
			pause = retryAfter
		}
		timer.Reset(pause)
		select {
		case <-ctx.Done():
			return
		case <-b.wake:
		case <-timer.C:
		}
	}
}

// round looks up the names without an address, or all; it returns how many are left without.
func (b *Book) round(ctx context.Context, all bool) (missing int) {
	b.mu.Lock()
	var names []string
	for h, known := range b.hosts {
		if all || len(known) == 0 {
			names = append(names, h)
		}
	}
	b.mu.Unlock()
	var asked sync.WaitGroup
	for _, h := range names {
		asked.Go(func() { b.ask(ctx, h) })
	}
	asked.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, known := range b.hosts {
		if len(known) == 0 {
			missing++
		}
	}
	return missing
}

func (b *Book) ask(ctx context.Context, host string) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	found, err := b.lookup(ctx, host)
	if err != nil || len(found) == 0 {
		return
	}
	slices.SortFunc(found, netip.Addr.Compare)
	b.mu.Lock()
	defer b.mu.Unlock()
	if known, wanted := b.hosts[host]; wanted && !slices.Equal(known, found) {
		b.hosts[host] = found
		signal(b.updated)
	}
}

// Through makes the client take addresses from the book. A client with a transport of its own kind is left as it is.
func (b *Book) Through(c *http.Client) *http.Client {
	if c == nil {
		c = &http.Client{}
	}
	t, ok := c.Transport.(*http.Transport)
	switch {
	case c.Transport == nil:
		t = &http.Transport{DisableKeepAlives: true}
	case !ok:
		return c
	default:
		t = t.Clone()
	}
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if known := b.At(address); len(known) > 0 {
			return Dial(ctx, known)
		}
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	out := *c
	out.Transport = t
	return &out
}
