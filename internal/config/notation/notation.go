// Package notation reads single values as they are written in configurations: booleans, durations, sizes, rates,
// addresses, networks, lists. An error says what to write instead. It looks nothing up.
package notation

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// ParseBool reads a boolean as Patroni and YAML 1.1 do.
func ParseBool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "true", "on", "yes", "1":
		return true, nil
	case "false", "off", "no", "0":
		return false, nil
	}
	return false, errors.New("write true or false")
}

// YAMLBool tells whether YAML 1.1 takes an unquoted word for a boolean.
func YAMLBool(s string) (value, ok bool) {
	switch s {
	case "0", "1":
		return false, false
	}
	b, err := ParseBool(s)
	return b, err == nil
}

// ParseDuration reads 250ms, 5s, 2min, 12h, 7d (PostgreSQL's units); a bare number is in seconds, off is 0.
func ParseDuration(s string) (time.Duration, error) {
	number, unit := splitUnit(s)
	scale, ok := map[string]time.Duration{"": time.Second, "us": time.Microsecond, "ms": time.Millisecond, "s": time.Second,
		"sec": time.Second, "m": time.Minute, "min": time.Minute, "h": time.Hour, "d": 24 * time.Hour}[unit]
	f, err := strconv.ParseFloat(number, 64)
	switch {
	case strings.EqualFold(s, "off"):
		return 0, nil
	case err != nil || !ok || math.IsNaN(f):
		return 0, errors.New("write 250ms, 5s, 2min, 12h or 7d; a bare number is in seconds")
	case math.Abs(f)*float64(scale) > float64(math.MaxInt64/2):
		return 0, errors.New("that is more than a hundred years")
	}
	return time.Duration(math.Round(f * float64(scale))), nil
}

// ParseSize reads bytes, or kB, MB, GB, TB as powers of 1024 (PostgreSQL's manual, 20.1.1).
func ParseSize(s string) (int64, error) {
	number, unit := splitUnit(s)
	scale, ok := map[string]float64{"": 1, "b": 1, "kb": 1 << 10, "mb": 1 << 20, "gb": 1 << 30, "tb": 1 << 40}[strings.ToLower(unit)]
	f, err := strconv.ParseFloat(number, 64)
	switch {
	case err != nil || !ok || math.IsNaN(f):
		return 0, errors.New("write a number of bytes, or kB, MB, GB, TB: 16MB")
	case math.Abs(f)*scale >= math.MaxInt64/2:
		return 0, errors.New("that is too large")
	}
	return int64(math.Round(f * scale)), nil
}

func splitUnit(s string) (number, unit string) {
	s = strings.TrimSpace(s)
	i := strings.LastIndexAny(s, "0123456789.") + 1
	return s[:i], strings.TrimSpace(s[i:])
}

// ParseRate reads 200, 200/s or 200 per s.
func ParseRate(s string) (int, error) {
	for _, suffix := range []string{"per s", "/s"} {
		s = strings.TrimSpace(strings.TrimSuffix(s, suffix))
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return 0, errors.New("write how many a second: 200")
	}
	return n, nil
}

// SplitAddress reads host:port, [v6]:port or *:port. Host comes without brackets.
func SplitAddress(s string) (host string, port int, err error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		switch {
		case strings.Count(s, ":") > 1 && !strings.Contains(s, "["):
			return "", 0, errors.New("an IPv6 address stands in brackets: [v6]:port")
		case !strings.Contains(s, ":"):
			return "", 0, errors.New("the port is missing: write host:port, [v6]:port or *:port")
		}
		return "", 0, errors.New("write host:port, [v6]:port or *:port")
	}
	port, err = ParsePort(p)
	if err != nil {
		return "", 0, err
	}
	return host, port, CheckHost(host)
}

// ParsePort reads a port from 1 to 65535.
func ParsePort(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, fmt.Errorf("the port `%s` is not a number", s)
	}
	if n < 1 || n > 65535 {
		return 0, fmt.Errorf("port %d is out of range (1 to 65535)", n)
	}
	return n, nil
}

// CheckHost judges a name or an address; empty and * mean every address.
func CheckHost(host string) error {
	if host == "" || host == "*" {
		return nil
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return nil
	}
	if strings.Trim(host, "0123456789.") == "" {
		return fmt.Errorf("`%s` is not an IPv4 address (four numbers from 0 to 255)", host)
	}
	if i := strings.IndexFunc(host, badInHost); i >= 0 {
		return fmt.Errorf("a host name cannot hold `%s`", string([]rune(host[i:])[0]))
	}
	return nil
}

func badInHost(c rune) bool {
	return c <= ' ' || strings.ContainsRune("/\\:[]{}()<>\"'`,;@#?&=$*|!", c)
}

// SplitListen reads PostgreSQL's listen: a,b:port, where the port may be left out (5432).
func SplitListen(s string) (hosts []string, port int, err error) {
	addresses, p := s, "5432"
	if i := strings.LastIndexByte(s, ':'); i >= 0 && i > strings.LastIndexByte(s, ']') {
		addresses, p = s[:i], s[i+1:]
		if strings.Contains(addresses, ":") && !strings.Contains(addresses, "[") && !strings.Contains(addresses, ",") {
			return nil, 0, errors.New("an IPv6 address stands in brackets: [fe80::1]:5432")
		}
	}
	if port, err = ParsePort(p); err != nil {
		return nil, 0, err
	}
	for host := range strings.SplitSeq(addresses, ",") {
		host = strings.Trim(strings.TrimSpace(host), "[]")
		if err := CheckHost(host); err != nil {
			return nil, 0, err
		}
		if host == "" {
			host = "*"
		}
		hosts = append(hosts, host)
	}
	return hosts, port, nil
}

// MaxSocketPath is how long the path of a Unix socket may be in bytes (unix(7): sun_path, with a null byte at its end).
const MaxSocketPath = 107

// socketName is the longest name that a Unix socket of PostgreSQL has in its directory.
const socketName = "/.s.PGSQL.65535"

// SplitSockets reads a,b:port, where a host may also be the absolute path of a directory: that of a Unix socket.
func SplitSockets(s string) (hosts []string, port int, err error) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 || i < strings.LastIndexByte(s, ']') {
		return nil, 0, errors.New("the port is missing: write host:port, [v6]:port, *:port or /directory:port")
	}
	if port, err = ParsePort(s[i+1:]); err != nil {
		return nil, 0, err
	}
	for host := range strings.SplitSeq(s[:i], ",") {
		host = strings.TrimSpace(host)
		if !strings.HasPrefix(host, "/") {
			if host, _, err = SplitAddress(host + s[i:]); err != nil {
				return nil, 0, err
			}
			if host == "" {
				host = "*"
			}
		} else if len(host)+len(socketName) > MaxSocketPath {
			return nil, 0, fmt.Errorf("the directory of a Unix socket has at most %d bytes", MaxSocketPath-len(socketName))
		}
		hosts = append(hosts, host)
	}
	return hosts, port, nil
}

// ParseFileMode reads permissions in octal digits, such as 0770.
func ParseFileMode(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n == 0 || n > 0o777 {
		return 0, errors.New("write permissions in octal digits, such as 0770")
	}
	return uint32(n), nil
}

// CheckEndpoint judges an etcd endpoint: host, host:port or a URL.
func CheckEndpoint(s string) error {
	if strings.Contains(s, "://") {
		u, err := url.Parse(s)
		if err != nil || u.Hostname() == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return errors.New("write http://host:port or https://host:port")
		}
		return nil
	}
	if s == "" {
		return errors.New("an endpoint is empty: write host:port")
	}
	_, _, err := SplitAddress(WithPort(s, 2379))
	return err
}

// WithPort adds a port where there is none.
func WithPort(s string, port int) string {
	if _, err := netip.ParseAddr(s); err == nil || !strings.Contains(s, ":") {
		return net.JoinHostPort(s, strconv.Itoa(port))
	}
	if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
		return s + ":" + strconv.Itoa(port)
	}
	return s
}

// SplitList reads a comma separated list, each element of which may be quoted.
func SplitList(s string) []string {
	var out []string
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		if len(part) > 1 && (part[0] == '\'' || part[0] == '"') && part[len(part)-1] == part[0] {
			part = part[1 : len(part)-1]
		}
		if part != "" {
			out = append(out, part)
		}
	}
	return out
}

// privateNetworks are what the word private stands for: loopback, RFC 1918 and RFC 4193.
func privateNetworks() []netip.Prefix {
	var out []netip.Prefix
	for _, s := range []string{"127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"} {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// ParseNetwork reads an address, a network in CIDR notation, or the word private.
func ParseNetwork(s string) ([]netip.Prefix, error) {
	if s == "private" {
		return privateNetworks(), nil
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		return []netip.Prefix{p.Masked()}, nil
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}, nil
	}
	return nil, errors.New("write a network such as 10.0.0.0/8, an address, or private")
}
