package config

import (
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/havenha/haven/internal/config/notation"
	"github.com/havenha/haven/internal/config/schema"
	"github.com/havenha/haven/internal/config/tree"
)

func (l *loader) etcdSection(n *Node) {
	l.inheritTLS(n, "etcd.cacert", "etcd.cert", "etcd.key")
	e := &n.Etcd
	*e = Etcd{
		Embedded: l.bool("etcd.embedded"), Username: l.text("etcd.username"), Password: l.secret("etcd.password"),
		CACert: l.existing("etcd.cacert"), Cert: l.existing("etcd.cert"), Key: l.existing("etcd.key"),
		SRVSuffix: l.text("etcd.srv_suffix"), UseProxies: l.bool("etcd.use_proxies"),
		ElectionTimeout: l.duration("etcd.election_timeout"),
	}
	if e.Cert != "" && e.Cert == n.Haven.TLS.CertFile && e.Key == n.Haven.TLS.KeyFile {
		e.KeyPassword = n.Haven.TLS.KeyPassword
	}
	if e.Username != "" {
		l.required("etcd.password", e.Password, "PATRONI_ETCD3_PASSWORD")
	}
	l.certificateWithKey("etcd.cert", "etcd.key")
	if l.given("etcd.members") != nil || e.Embedded {
		l.members(n)
	} else {
		l.externalEtcd(n)
	}
	e.Scheme = strings.ToLower(l.text("etcd.protocol"))
	if e.Cert != "" && l.doc.Find("etcd.protocol").At.Note == "default" && (e.Embedded || len(e.Members) > 0) {
		e.Scheme = l.derive("etcd.protocol", "https", "etcd.cert").Text
	}
	if e.Embedded {
		e.PeerTLS = TLS{CAFile: e.CACert, CertFile: e.Cert, KeyFile: e.Key}
		if e.KeyPassword != "" {
			l.report.errorf(l.doc.Nearest("haven.tls.keyfile_password"), "`haven.tls.keyfile` has a password, which the embedded etcd cannot use: store the key without one, readable by its owner only, or name another certificate in `etcd.cert`, `etcd.key` and `etcd.cacert`")
		}
		if l.given("etcd.token") == nil {
			l.derive("etcd.token", n.Scope, "scope")
		}
		if e.ElectionTimeout < 50e6 || e.ElectionTimeout > 50e9 {
			l.report.errorf(l.doc.Nearest("etcd.election_timeout"), "`etcd.election_timeout` must be between 50ms and 50s")
		}
	}
	e.Token = l.text("etcd.token")
	l.needEtcd(n)
}

// needEtcd reports that there is no consensus store where one is needed.
func (l *loader) needEtcd(n *Node) {
	e := n.Etcd
	if len(e.Hosts) > 0 || e.SRV != "" || l.given("etcd.members") != nil || e.Embedded {
		return
	}
	if n.Postgres == nil && strings.EqualFold(l.given("proxy.discover").TextOr(""), "rest") {
		return
	}
	for _, other := range []string{"consul", "zookeeper", "exhibitor", "kubernetes", "raft"} {
		if l.given(other) != nil {
			return // reported as not supported
		}
	}
	l.report.errorf(l.doc.Nearest("etcd"), "no consensus store is configured: write `etcd3: {hosts: …}` for an existing etcd cluster, or `etcd: {embedded: true, members: {name: address, …}}`, or set PATRONI_ETCD3_HOSTS")
}

// members reads etcd.members, which is the same on every node.
func (l *loader) members(n *Node) {
	e := &n.Etcd
	section := l.given("etcd.members")
	if section == nil {
		l.report.errorf(l.doc.Nearest("etcd.embedded"), "`etcd.members` is missing: name every member and its address, this node among them, such as `members: {%s: 10.0.1.10, …}`", n.Name)
		return
	}
	if section.Shape != tree.Mapping {
		return
	}
	for _, f := range section.Fields {
		if f.Value.Shape != tree.Null {
			e.Members = append(e.Members, l.member(f))
		}
	}
	for _, other := range []string{"hosts", "host", "url", "srv", "proxy"} {
		if v := l.given("etcd." + other); v != nil {
			l.report.errorf(v.At, "`etcd.%s` and `etcd.members` are both given: with `members` the endpoints follow from it, so remove `%s`", other, other)
		}
	}
	l.checkMembers(n, section)
	own := func(m EtcdMember) bool { return m.Name == n.Name }
	if i := slices.IndexFunc(e.Members, own); i >= 0 {
		e.Hosts = append(e.Hosts, e.Members[i].Client)
	}
	for _, m := range e.Members {
		if !own(m) {
			e.Hosts = append(e.Hosts, m.Client)
		}
	}
}

func (l *loader) member(f tree.Field) EtcdMember {
	m := EtcdMember{Name: f.Name}
	path := "etcd.members." + f.Name
	switch f.Value.Shape {
	case tree.Scalar:
		host := f.Value.Text
		if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
			host = host[1 : len(host)-1]
		}
		if err := notation.CheckHost(host); err != nil || host == "" || host == "*" {
			l.report.errorf(f.Value.At, "`%s` is `%s`, which is not a host: write a name or an address (ports 2379 and 2380 are used), or {client: host:port, peer: host:port}", path, f.Value.Text)
		}
		m.Client, m.Peer = net.JoinHostPort(host, "2379"), net.JoinHostPort(host, "2380")
	case tree.Mapping:
		m.Client, m.Peer = l.memberPart(path, f, "client", 2379), l.memberPart(path, f, "peer", 2380)
		for _, inner := range f.Value.Fields {
			if inner.Name != "client" && inner.Name != "peer" {
				l.report.errorf(inner.At, "unknown key `%s.%s`%s", path, inner.Name, schema.DidYouMean(inner.Name, []string{"client", "peer"}))
			}
		}
	default:
		l.report.errorf(f.Value.At, "`%s` is a list: write a host, or {client: host:port, peer: host:port}", path)
	}
	return m
}

func (l *loader) memberPart(path string, f tree.Field, part string, port int) string {
	v := f.Value.Field(part)
	if v == nil || v.Shape != tree.Scalar {
		l.report.errorf(f.At, "`%s.%s` is missing: write host:port", path, part)
		return ""
	}
	address := notation.WithPort(v.Text, port)
	host, p, err := notation.SplitAddress(address)
	if err != nil || host == "" || host == "*" {
		if err == nil {
			l.report.errorf(v.At, "`%s.%s` is `%s`: the other members need a host that they can reach", path, part, v.Text)
		} else {
			l.report.errorf(v.At, "`%s.%s` is `%s`, which is not a valid address: %v", path, part, v.Text, err)
		}
		return ""
	}
	return net.JoinHostPort(host, strconv.Itoa(p))
}

func (l *loader) checkMembers(n *Node, section *tree.Value) {
	e := n.Etcd
	seen := map[string]string{}
	for i, m := range e.Members {
		for _, address := range []string{m.Client, m.Peer} {
			if other := seen[address]; other != "" && address != "" {
				l.report.errorf(section.Fields[i].At, "`etcd.members.%s` has the address %s, which %s has already: every member needs its own", m.Name, address, other)
			}
			seen[address] = "`" + m.Name + "`"
		}
	}
	if _, ok := e.Own(n.Name); !ok && e.Embedded && !l.src.Client {
		var names []string
		for _, m := range e.Members {
			names = append(names, m.Name)
		}
		l.report.errorf(section.At, "this node is `%s`, which is not in `etcd.members` (%s): add it there, or set `embedded: false`", n.Name, strings.Join(names, ", "))
	}
	if count := len(e.Members); count%2 == 0 {
		l.report.warnf(section.At, "%s etcd members survive the loss of %s: add %s, for instance on the balancer", inWords(count), lossOf(count), inOrder(count+1))
	}
}

func inWords(n int) string {
	return map[int]string{0: "no", 2: "two", 4: "four", 6: "six"}[n]
}

func lossOf(members int) string {
	return map[int]string{0: "none", 2: "none", 4: "one, as three do", 6: "two, as five do"}[members]
}

func inOrder(n int) string {
	return map[int]string{1: "one", 3: "a third", 5: "a fifth", 7: "a seventh"}[n]
}

// externalEtcd reads the endpoints of an existing cluster: one of several keys, the first in Patroni's order.
func (l *loader) externalEtcd(n *Node) {
	e := &n.Etcd
	var used []string
	for _, key := range []string{"proxy", "srv", "url", "hosts", "host"} {
		if l.given("etcd."+key) != nil {
			used = append(used, key)
		}
	}
	if len(used) == 0 {
		return
	}
	if len(used) > 1 {
		at := l.given("etcd." + used[1]).At
		if l.format == Haven {
			l.report.errorf(at, "`etcd.%s` and `etcd.%s` are both given: keep one", used[0], used[1])
		} else {
			l.report.warnf(at, "`etcd.%s` has no effect beside `etcd.%s`", used[1], used[0])
		}
	}
	if used[0] == "srv" {
		e.SRV = l.text("etcd.srv")
		return
	}
	port := 2379
	if p := l.number("etcd.port"); p > 0 {
		port = p
	}
	e.UseProxies = e.UseProxies || used[0] == "proxy"
	for _, host := range l.strings("etcd." + used[0]) {
		host = strings.TrimSuffix(host, "/")
		if !strings.Contains(host, "://") {
			host = notation.WithPort(host, port)
		}
		e.Hosts = append(e.Hosts, host)
	}
}
