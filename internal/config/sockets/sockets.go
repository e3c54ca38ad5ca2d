// Package sockets tells from /proc which TCP ports of this host are listened on, and by which processes, as far as the
// system shows that to this user. What cannot be read is left out.
package sockets

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
	"unicode"
)

// Socket is a listening TCP socket of this host, of whichever process.
type Socket struct {
	Addr  netip.AddrPort
	Inode string
}

// Listening reads the listening sockets from net/tcp and net/tcp6 (proc(5): state 0A, addresses in host byte order).
func Listening(proc string) []Socket {
	var out []Socket
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
				out = append(out, Socket{Addr: addr, Inode: fields[9]})
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

// Holders are the processes that have a socket open, as far as they may be looked at.
func Holders(proc, inode string) []int {
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

// HolderName names the first of the processes, as a sentence does.
func HolderName(proc string, pids []int) string {
	if len(pids) == 0 {
		return "another user's process"
	}
	name := processName(filepath.Join(proc, strconv.Itoa(pids[0])))
	if name == "" {
		return fmt.Sprintf("pid %d", pids[0])
	}
	return fmt.Sprintf("pid %d (%s)", pids[0], name)
}

// processName is the name by which a person knows a process: that of the command that was typed, else the kernel's own,
// which is cut off after 15 bytes and is that of the file, whatever the file is called (proc_pid_comm(5)).
func processName(dir string) string {
	line, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err == nil {
		if name := commandName(string(line)); name != "" {
			return name
		}
	}
	comm, err := os.ReadFile(filepath.Join(dir, "comm"))
	if err != nil {
		return ""
	}
	return printable(strings.TrimSpace(string(comm)))
}

// commandName is the last part of the first argument. Servers write a title over their arguments, such as
// "nginx: master process /usr/sbin/nginx": its beginning is their name.
func commandName(cmdline string) string {
	first, _, _ := strings.Cut(cmdline, "\x00")
	if title, _, ok := strings.Cut(first, ": "); ok {
		first = title
	}
	first = strings.TrimPrefix(strings.TrimSpace(first), "-") // of a login shell
	if first == "" {
		return ""
	}
	return printable(filepath.Base(first))
}

// printable takes out what a process of another user might say to the terminal.
func printable(name string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, name)
}

// FreePort is the first port above that nothing listens on; 6432 is the usual other port of a pooler.
func FreePort(port int, sockets []Socket) int {
	candidate := port + 1
	if port == 5000 || port == 5001 {
		candidate = port - 5000 + 6432
	}
	for slices.ContainsFunc(sockets, func(s Socket) bool { return int(s.Addr.Port()) == candidate }) {
		candidate++
	}
	return candidate
}
