package config

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// wanted is an address that this node means to listen on.
type wanted struct {
	key   string
	hosts []string
	port  int
	at    place
}

func (w wanted) overlaps(o wanted) bool {
	return slices.ContainsFunc(w.hosts, func(a string) bool {
		return slices.ContainsFunc(o.hosts, func(b string) bool { return everyAddress(a) || everyAddress(b) || a == b })
	})
}

func everyAddress(host string) bool {
	return host == "*" || host == "" || host == "0.0.0.0" || host == "::"
}

// socket is a listening TCP socket of this host, of whichever process.
type socket struct {
	addr  netip.AddrPort
	inode string
}

// BusyPorts reports every address of this node that another process listens on, and which process that is, as far as
// /proc shows it to this user. A server that runs in this node's own data directory is not reported. Names other than
// localhost are compared with sockets that listen on every address only, since nothing is looked up.
func (n *Node) BusyPorts() []Fault {
	sockets := listening("/proc")
	if len(sockets) == 0 {
		return nil
	}
	var r Report
	for _, w := range n.listens() {
		for _, s := range sockets {
			if int(s.addr.Port()) != w.port || !w.meets(s.addr.Addr()) {
				continue
			}
			pids := holders("/proc", s.inode)
			if slices.Contains(pids, os.Getpid()) || n.ownServer(pids) {
				continue
			}
			r.errorf(w.at, "`%s` %s is in use by %s: stop it, or choose another port, for instance %d", w.key, w.shown(), holderName("/proc", pids), freePort(w.port, sockets))
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

// freePort is the first port above that nothing listens on; 6432 is the usual other port of a pooler.
func freePort(port int, sockets []socket) int {
	candidate := port + 1
	if port == 5000 || port == 5001 {
		candidate = port - 5000 + 6432
	}
	for slices.ContainsFunc(sockets, func(s socket) bool { return int(s.addr.Port()) == candidate }) {
		candidate++
	}
	return candidate
}

// listening reads the listening sockets from net/tcp and net/tcp6 (proc(5): state 0A, addresses in host byte order).
func listening(proc string) []socket {
	var out []socket
	for _, name := range []string{"net/tcp", "net/tcp6"} {
		f, err := os.Open(filepath.Join(proc, name))
		if err != nil {
			continue
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			fields := strings.Fields(lines.Text())
			if len(fields) < 10 || fields[3] != "0A" {
				continue
			}
			if addr, ok := procAddress(fields[1]); ok {
				out = append(out, socket{addr: addr, inode: fields[9]})
			}
		}
		f.Close()
	}
	return out
}

func procAddress(s string) (netip.AddrPort, bool) {
	host, port, ok := strings.Cut(s, ":")
	raw, err := hex.DecodeString(host)
	p, perr := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || perr != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(raw); i += 4 {
		binary.BigEndian.PutUint32(raw[i:], binary.NativeEndian.Uint32(raw[i:]))
	}
	addr, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr.Unmap(), uint16(p)), ok
}

// holders are the processes that have a socket open, as far as they may be looked at.
func holders(proc, inode string) []int {
	links, err := filepath.Glob(filepath.Join(proc, "[0-9]*/fd/*"))
	if err != nil {
		return nil
	}
	var pids []int
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil || target != "socket:["+inode+"]" {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(link))))
		if err == nil && !slices.Contains(pids, pid) {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids
}

func holderName(proc string, pids []int) string {
	if len(pids) == 0 {
		return "another user's process"
	}
	name, err := os.ReadFile(filepath.Join(proc, strconv.Itoa(pids[0]), "comm"))
	if err != nil {
		return fmt.Sprintf("pid %d", pids[0])
	}
	return fmt.Sprintf("pid %d (%s)", pids[0], strings.TrimSpace(string(name)))
}
