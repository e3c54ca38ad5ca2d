package config

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/havenha/haven/internal/config/sockets"
	"github.com/havenha/haven/internal/config/tree"
)

// wanted is an address that this node means to listen on. A host that is an absolute path is the directory of a Unix socket.
type wanted struct {
	key   string
	hosts []string
	port  int
	at    tree.Place
}

func (w wanted) overlaps(o wanted) bool {
	return slices.ContainsFunc(w.hosts, func(a string) bool {
		return slices.ContainsFunc(o.hosts, func(b string) bool { return sameHost(a, b) })
	})
}

func sameHost(a, b string) bool {
	unixSocket := filepath.IsAbs(a) || filepath.IsAbs(b)
	return a == b || !unixSocket && (everyAddress(a) || everyAddress(b))
}

func everyAddress(host string) bool {
	return host == "*" || host == "" || host == "0.0.0.0" || host == "::"
}

// BusyPorts reports every address of this node that another process listens on, and which process that is, as far as
// /proc shows it to this user. A server that runs in this node's own data directory is not reported. Names other than
// localhost are compared with sockets that listen on every address only, since nothing is looked up.
func (n *Node) BusyPorts() []Fault {
	open := sockets.Listening("/proc")
	if len(open) == 0 {
		return nil
	}
	var r Report
	for _, w := range n.listens() {
		for _, s := range open {
			if int(s.Addr.Port()) != w.port || !w.meets(s.Addr.Addr()) {
				continue
			}
			pids := sockets.Holders("/proc", s.Inode)
			if slices.Contains(pids, os.Getpid()) || n.ownServer(pids) {
				continue
			}
			r.errorf(w.at, "`%s` %s is in use by %s: stop it, or choose another port, for instance %d", w.key, w.shown(), sockets.HolderName("/proc", pids), sockets.FreePort(w.port, open))
			break
		}
	}
	r.sort()
	return r.Faults
}

func (w wanted) shown() string {
	return fmt.Sprintf("%s:%d", strings.Join(w.hosts, ","), w.port)
}

func (w wanted) meets(addr netip.Addr) bool {
	for _, host := range w.hosts {
		if everyAddress(host) || addr.IsUnspecified() {
			return true
		}
		if host == "localhost" && addr.IsLoopback() {
			return true
		}
		if a, err := netip.ParseAddr(host); err == nil && a.Unmap() == addr.Unmap() {
			return true
		}
	}
	return false
}

// ownServer tells whether a process is the server of this node's data directory (its pid is the first line of postmaster.pid).
func (n *Node) ownServer(pids []int) bool {
	if n.Postgres == nil {
		return false
	}
	content, err := os.ReadFile(filepath.Join(n.Postgres.DataDir, "postmaster.pid"))
	if err != nil {
		return false
	}
	first, _, _ := strings.Cut(string(content), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	return err == nil && slices.Contains(pids, pid)
}
