// Package hosts makes hosts out of network namespaces, connects them by a switch of our own, and does to them what
// happens to real ones: processes die, cables are cut, answers are late, disks fill and slow down.
//
// It guarantees that every fault is verified when it is made and when it is undone, that a process started on a host is
// found by the host's namespace whatever became of its parents, and that nothing of a network is left once it is closed or its
// process is gone: namespaces, addresses and the switch live only as long as we hold them. It leaves to the caller what runs on the
// hosts. It needs root (Available).
package hosts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
)

// subnet is where all hosts live. Namespaces are apart from each other and from the machine, so two networks may have
// the same addresses.
const subnet = "10.77.0.%d"

// Network is a set of hosts on one switch.
type Network struct {
	hosts []*Host
	wire  *wire
}

// Host is one of them.
type Host struct {
	Name string
	Addr netip.Addr

	network *Network
	index   int
	space   *namespace
	ear     *ear

	mu      sync.Mutex
	started []*Process
}

// Available tells in one line why hosts cannot be made here; nil: they can.
func Available() error {
	if os.Geteuid() != 0 {
		return errors.New("hosts need root: network namespaces and TAP devices cannot be made by another user")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		return fmt.Errorf("hosts need TAP devices: %w", err)
	}
	s, err := newNamespace()
	if err != nil {
		return fmt.Errorf("hosts need network namespaces: %w", err)
	}
	return s.close()
}

// New makes hosts of these names.
func New(names ...string) (*Network, error) {
	n := &Network{wire: newWire()}
	for i, name := range names {
		h, err := n.add(i, name)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("make host %s: %w", name, err), n.Close())
		}
		n.hosts = append(n.hosts, h)
	}
	return n, nil
}

func (n *Network) add(i int, name string) (*Host, error) {
	space, err := newNamespace()
	if err != nil {
		return nil, err
	}
	h := &Host{Name: name, Addr: netip.MustParseAddr(fmt.Sprintf(subnet, i+11)), network: n, index: i, space: space}
	port, err := openTap(space, i, h.Addr)
	if err != nil {
		return nil, errors.Join(err, space.close())
	}
	n.wire.attach(port)
	if h.ear, err = listen(h); err != nil {
		return nil, errors.Join(err, space.close())
	}
	return h, nil
}

// Host returns the host of that name; nil: there is none.
func (n *Network) Host(name string) *Host {
	for _, h := range n.hosts {
		if h.Name == name {
			return h
		}
	}
	return nil
}

// Hosts returns all hosts.
func (n *Network) Hosts() []*Host { return slices.Clone(n.hosts) }

// Others returns all hosts but these.
func (n *Network) Others(of ...*Host) []*Host {
	return slices.DeleteFunc(n.Hosts(), func(h *Host) bool { return slices.Contains(of, h) })
}

// Close ends every process on every host, and the network.
func (n *Network) Close() error {
	var errs []error
	for _, h := range n.hosts {
		errs = append(errs, h.KillAll())
	}
	for _, h := range n.hosts {
		for _, p := range h.processes() {
			<-p.Gone
		}
		h.ear.close()
	}
	n.wire.close()
	for _, h := range n.hosts {
		errs = append(errs, h.space.close())
	}
	return errors.Join(errs...)
}

// Dial connects from the host, as net.Dialer does. Addresses must be numeric.
func (h *Host) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	var c net.Conn
	err := h.space.inside(func() (err error) {
		c, err = (&net.Dialer{FallbackDelay: -1, Control: nil}).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// At is host:port on this host.
func (h *Host) At(port int) string { return fmt.Sprintf("%s:%d", h.Addr, port) }
