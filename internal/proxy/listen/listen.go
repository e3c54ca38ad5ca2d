// Package listen opens the sockets of a listener: TCP ports, and Unix sockets under the name that clients of PostgreSQL
// look for.
package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Unix says how Unix sockets are made; the zero value is PgBouncer's default.
type Unix struct {
	// Mode is unix_socket_mode: the permissions of the socket. 0: 0777, everybody may connect.
	Mode uint32
	// Group is unix_socket_group: the name or number of the socket's group; empty: that of the process.
	Group string
}

// Open binds all addresses of a setting in the form a,b:port. * is every address of the host; a directory stands for the
// Unix socket .s.PGSQL.port in it. An error says what it means and what to do; then nothing stays bound.
func Open(setting string, u Unix) (out []net.Listener, err error) {
	hosts, port, err := split(setting)
	if err != nil {
		return nil, err
	}
	for _, host := range hosts {
		l, err := open(host, port, u)
		if err != nil {
			Close(out)
			return nil, unbound(setting, port, err)
		}
		out = append(out, l)
	}
	return out, nil
}

// Check tells what Open would fail for beside the addresses themselves: directories and a group of Unix sockets.
func Check(setting string, u Unix) error {
	hosts, _, err := split(setting)
	if err != nil {
		return err
	}
	for _, dir := range hosts {
		if !filepath.IsAbs(dir) {
			continue
		}
		unlock, err := lock(dir)
		if err == nil {
			unlock()
		}
		if err == nil && u.Group != "" {
			_, err = groupID(u.Group)
		}
		if err != nil {
			return fmt.Errorf("listen on %s: %w", setting, err)
		}
	}
	return nil
}

// split takes a setting apart.
func split(setting string) (hosts []string, port string, err error) {
	i := strings.LastIndexByte(setting, ':')
	if i < 0 {
		return nil, "", fmt.Errorf("listen on %q: write host:port", setting)
	}
	for host := range strings.SplitSeq(setting[:i], ",") {
		hosts = append(hosts, strings.TrimSpace(host))
	}
	return hosts, setting[i+1:], nil
}

func open(host, port string, u Unix) (net.Listener, error) {
	if filepath.IsAbs(host) {
		return bind(SocketFile(host, port), u)
	}
	host = strings.Trim(host, "[]")
	if host == "*" {
		host = ""
	}
	config := net.ListenConfig{KeepAliveConfig: KeepAlive()}
	return config.Listen(context.Background(), "tcp", net.JoinHostPort(host, port))
}

// SocketFile is where clients look for a Unix socket (PostgreSQL's manual, unix_socket_directories).
func SocketFile(dir, port string) string { return filepath.Join(dir, ".s.PGSQL."+port) }

// Close closes all of them. Errors are of no use: nothing is lost.
func Close(sockets []net.Listener) {
	for _, s := range sockets {
		_ = s.Close()
	}
}

// KeepAlive finds a peer that is gone within half a minute.
func KeepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}
}

// unbound says what a failed listen means and what to do.
func unbound(setting, port string, err error) error {
	switch {
	case errors.Is(err, errSocket):
		return fmt.Errorf("listen on %s: %w", setting, err)
	case errors.Is(err, syscall.EADDRINUSE):
		other := map[string]string{"5000": "6432", "5001": "6433", "7000": "7001"}[port]
		if other == "" {
			other = "6432"
		}
		return fmt.Errorf("listen on %s: another program uses this port: stop it, or choose another port, for instance %s: %w", setting, other, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("listen on %s: this host has no such address: use one of its own, or *: %w", setting, err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("listen on %s: this user may not use the port: choose one above 1023: %w", setting, err)
	}
	return fmt.Errorf("listen on %s: %w", setting, err)
}
