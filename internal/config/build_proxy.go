package config

import (
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/havenha/haven/internal/config/notation"
	"github.com/havenha/haven/internal/config/tree"
)

func (l *loader) proxySection(n *Node) {
	if v := l.given("proxy"); v == nil || v.Shape != tree.Mapping {
		return
	}
	p := &Proxy{Address: l.text("proxy.address"), Discover: strings.ToLower(l.text("proxy.discover")), Members: l.strings("proxy.members"), Threads: l.number("proxy.threads")}
	l.listeners(p)
	if slices.ContainsFunc(p.Listeners, Listener.Pooled) {
		l.login(n, p)
	}
	p.Overrides = l.overrides(p)
	p.Stats = l.stats(p)
	if p.Discover == "rest" && len(p.Members) == 0 {
		l.report.errorf(l.doc.Nearest("proxy.discover"), "`proxy.members` is missing: with `discover: rest`, list the REST addresses of the members, such as [10.0.1.10:8008]")
	}
	if p.Discover == "etcd" && len(p.Members) > 0 {
		l.report.warnf(l.doc.Nearest("proxy.members"), "`proxy.members` has no effect with `discover: etcd`")
	}
	for i, m := range p.Members {
		if err := checkRESTAddress(m); err != nil {
			l.report.errorf(l.doc.Nearest("proxy.members"), "`proxy.members[%d]` is `%s`, which is not valid: %v", i, m, err)
		}
	}
	n.Proxy = p
	l.tooManyConnections(n)
}

func checkRESTAddress(s string) error {
	if strings.Contains(s, "://") {
		return notation.CheckEndpoint(s)
	}
	_, _, err := notation.SplitAddress(s)
	return err
}

// listeners reads proxy.listeners, or makes the two default ones.
func (l *loader) listeners(p *Proxy) {
	section := l.given("proxy.listeners")
	if section == nil {
		section = &tree.Value{Shape: tree.List, At: tree.Place{Note: "default"}}
		for _, d := range [][2]string{{"5000", "primary"}, {"5001", "replica"}} {
			item := &tree.Value{Shape: tree.Mapping, At: section.At}
			item.Put("listen", tree.Text(net.JoinHostPort(p.Address, d[0]), "default"))
			item.Put("target", tree.Text(d[1], "default"))
			section.Items = append(section.Items, item)
		}
		l.doc.Set("proxy.listeners", section)
	}
	for i := range section.Items {
		p.Listeners = append(p.Listeners, l.listener(fmt.Sprintf("proxy.listeners[%d]", i)))
	}
	if section.Shape == tree.List && len(section.Items) == 0 {
		l.report.errorf(section.At, "`proxy.listeners` is empty: name at least one, or leave it out for 5000 and 5001")
	}
}

func (l *loader) listener(path string) Listener {
	// What a listener does not say, the section proxy says for all of them.
	for _, name := range []string{"mode", "hold_timeout", "max_lag", "fallback", "admit", "connect_timeout", "idle_timeout", "unix_socket_mode", "unix_socket_group"} {
		if common := l.leaf("proxy." + name); l.given(path+"."+name) == nil && common != nil {
			l.doc.Set(path+"."+name, common)
		}
	}
	for _, name := range []string{"listen", "target"} {
		if l.given(path+"."+name) == nil {
			l.report.errorf(l.doc.Nearest(path+"."+name), "`%s.%s` is missing: write {listen: \"*:5000\", target: primary}", path, name)
		}
	}
	out := Listener{
		Listen: l.text(path + ".listen"), Target: strings.ToLower(l.text(path + ".target")), Mode: strings.ToLower(l.text(path + ".mode")),
		HoldTimeout: l.duration(path + ".hold_timeout"), MaxLag: l.size(path + ".max_lag"), Fallback: strings.ToLower(l.text(path + ".fallback")),
		SocketMode: l.fileMode(path + ".unix_socket_mode"), SocketGroup: l.text(path + ".unix_socket_group"),
		Admit: l.rate(path + ".admit"), ConnectTimeout: l.duration(path + ".connect_timeout"), IdleTimeout: l.duration(path + ".idle_timeout"),
	}
	if out.Pooled() {
		for _, name := range poolNames() {
			if common := l.given("proxy." + name); l.given(path+"."+name) == nil && common != nil {
				l.doc.Set(path+"."+name, common)
			}
		}
		out.Pool = l.pool(path)
		l.resets(path+".pool.server_reset_query", out)
	}
	return out
}

// resets warns where a reset query does not undo all that a client may leave.
func (l *loader) resets(key string, li Listener) {
	query := li.Pool.ServerResetQuery
	switch session := li.Mode == "session"; {
	case strings.EqualFold(strings.TrimRight(strings.TrimSpace(query), "; "), "DISCARD ALL"): // beside nothing else: it refuses to be one of several statements
	case session && query == "":
		l.report.warnf(l.doc.Nearest(key), "`%s` is empty: whatever a client leaves in its session (settings, temporary tables, prepared statements, locks) is there for the next one", key)
	case session:
		l.report.warnf(l.doc.Nearest(key), "`%s` is `%s`: what that does not undo of a client's session (settings, temporary tables, locks) is there for the next one; DISCARD ALL undoes everything", key, query)
	case query != "":
		l.report.warnf(l.doc.Nearest(key), "`%s` is `%s`, which may leave something: a server connection in which a client has left settings, temporary tables or the like is closed rather than lent again; DISCARD ALL, the default, keeps it", key, query)
	}
}

func (l *loader) stats(p *Proxy) *Stats {
	if l.refused("proxy.stats") {
		return nil
	}
	if l.given("proxy.stats.listen") == nil {
		l.derive("proxy.stats.listen", net.JoinHostPort(p.Address, "7000"), "default")
	}
	const auth = "proxy.stats.authentication."
	s := &Stats{Listen: l.text("proxy.stats.listen"), Username: l.text(auth + "username"), Password: l.secret(auth + "password")}
	for _, network := range l.strings("proxy.stats.allow") {
		prefixes, err := notation.ParseNetwork(network)
		if err == nil { // else reported by the walker
			s.Allow = append(s.Allow, prefixes...)
		}
	}
	if s.Username != "" {
		l.required(auth+"password", s.Password, "")
	}
	return s
}

// listens is every address that this node listens on.
func (n *Node) listens() []wanted {
	var out []wanted
	add := func(key, address string) {
		hosts, port, err := notation.SplitListen(address)
		if err != nil {
			hosts, port, err = notation.SplitSockets(address)
		}
		if err != nil || address == "" {
			return
		}
		out = append(out, wanted{key: key, hosts: hosts, port: port, at: n.doc.Nearest(key)})
	}
	if n.Postgres != nil {
		add("postgresql.listen", n.Postgres.Listen)
	}
	add("restapi.listen", n.RESTAPI.Listen)
	if own, ok := n.Etcd.Own(n.Name); ok && n.Etcd.Embedded {
		add("etcd.members."+n.Name, own.Client)
		add("etcd.members."+n.Name, own.Peer)
	}
	if n.Proxy != nil {
		for i, listener := range n.Proxy.Listeners {
			add(fmt.Sprintf("proxy.listeners[%d].listen", i), listener.Listen)
		}
		if n.Proxy.Stats != nil {
			add("proxy.stats.listen", n.Proxy.Stats.Listen)
		}
	}
	return out
}

// sameAddress reports two sections of this node that would listen on one port.
func (l *loader) sameAddress(n *Node) {
	all := n.listens()
	for i, a := range all {
		for _, b := range all[:i] {
			if a.port == b.port && a.overlaps(b) {
				l.report.errorf(a.at, "`%s` and `%s` both listen on port %d: give one of them another", b.key, a.key, a.port)
			}
		}
	}
}
