package config

import (
	"cmp"
	"strings"

	"github.com/havenha/haven/internal/config/schema"
	"github.com/havenha/haven/internal/config/tree"
)

// Pooled tells whether the listener lends server connections.
func (l Listener) Pooled() bool {
	return l.Mode == "session" || l.Mode == "transaction" || l.Mode == "statement"
}

// poolNames are the keys of a pool, as a listener has them.
func poolNames() []string {
	var out []string
	for _, k := range schema.Keys() {
		if name, ok := strings.CutPrefix(k.Path, "proxy.pool."); ok {
			out = append(out, "pool."+name)
		}
	}
	return out
}

// login reads how clients of pooled listeners prove who they are.
func (l *loader) login(n *Node, p *Proxy) {
	l.inheritTLS(n, "proxy.tls.cafile", "proxy.tls.certfile", "proxy.tls.keyfile")
	p.Auth = ProxyAuth{
		Type: strings.ToLower(l.text("proxy.auth_type")), File: l.existing("proxy.auth_file"), HBAFile: l.existing("proxy.auth_hba_file"),
		Query: l.text("proxy.auth_query"), User: l.text("proxy.auth_user"), Database: l.text("proxy.auth_dbname"),
		ClientMode: strings.ToLower(l.text("proxy.client_tls_sslmode")), ServerMode: strings.ToLower(l.text("proxy.server_tls_sslmode")),
	}
	p.TLS = TLS{CAFile: l.existing("proxy.tls.cafile"), CertFile: l.existing("proxy.tls.certfile"), KeyFile: l.existing("proxy.tls.keyfile")}
	l.certificateWithKey("proxy.tls.certfile", "proxy.tls.keyfile")
	p.ServerTLS = TLS{
		CAFile:   cmp.Or(l.existing("proxy.server_tls_ca_file"), p.TLS.CAFile),
		CertFile: l.existing("proxy.server_tls_cert_file"), KeyFile: l.existing("proxy.server_tls_key_file"),
	}
	l.certificateWithKey("proxy.server_tls_cert_file", "proxy.server_tls_key_file")
	if p.TLS.On() && p.TLS.CertFile == n.Haven.TLS.CertFile && n.Haven.TLS.KeyPassword != "" {
		l.report.errorf(l.doc.Nearest("proxy.tls"), "`haven.tls.keyfile` has a password, which pooled listeners cannot use: name another certificate in `proxy.tls`, or set `proxy.tls.certfile: null`")
	}
	if p.Auth.ClientMode == "" {
		p.Auth.ClientMode = "disable"
		if p.TLS.On() {
			p.Auth.ClientMode = "prefer"
		}
	}
	a := p.Auth
	at := func(key string) tree.Place { return l.doc.Nearest("proxy." + key) }
	switch {
	case (a.Type == "trust" || a.Type == "any" || a.Type == "cert") && a.File == "":
	case a.File == "":
		l.report.errorf(at("auth_file"), "`proxy.auth_file` is missing: with `auth_type: %s`, name a file of users and secrets, each line \"name\" \"secret\"", a.Type)
	}
	if a.Type == "hba" && a.HBAFile == "" {
		l.report.errorf(at("auth_hba_file"), "`proxy.auth_hba_file` is missing: `auth_type: hba` takes its rules from there")
	}
	if a.ClientMode != "disable" && !p.TLS.On() {
		l.report.errorf(at("client_tls_sslmode"), "`proxy.client_tls_sslmode` is `%s`, and there is no certificate: set `proxy.tls.certfile` and `keyfile`", a.ClientMode)
	}
}

// defaultMaxConnections is what PostgreSQL allows where nothing is said (its manual, 20.3.1), and Patroni.
const defaultMaxConnections = 100

// defaultReserved is superuser_reserved_connections where nothing is said (ibid.).
const defaultReserved = 3

// tooManyConnections warns when the pools of the cluster's proxies could ask for more connections than servers allow.
func (l *loader) tooManyConnections(n *Node) {
	if n.Proxy == nil {
		return
	}
	const cluster, own = "bootstrap.dcs.postgresql.parameters", "postgresql.parameters"
	setting := func(name string, def int, paths ...string) (n int, given bool) {
		for _, path := range paths {
			if v := l.settings(path)[name]; v != "" {
				return whole(v), true
			}
		}
		return def, false
	}
	note := ""
	allowed, given := setting("max_connections", defaultMaxConnections, cluster, own)
	if !given {
		note = ", where the cluster's configuration does not say otherwise"
	}
	sum, whose := 0, "each database and user"
	for i := range n.Proxy.Listeners {
		if li := n.Proxy.Listeners[i]; li.Pooled() {
			most := n.Proxy.Overrides.most(li.Pool)
			if sum += most; most > li.Pool.most() {
				whose = "the databases and users that `proxy.databases` and `proxy.users` name"
			}
		}
	}
	proxies := cmp.Or(l.proxies, len(n.Etcd.Members), 1) // all members of an embedded etcd share such a file
	superusers, _ := setting("superuser_reserved_connections", defaultReserved, own, cluster)
	reserved, _ := setting("reserved_connections", 0, own, cluster)
	kept := superusers + reserved
	if sum*proxies > allowed-kept {
		l.report.warnf(l.doc.Nearest("proxy"), "the pools of %d proxies may ask for %d server connections for %s, and `max_connections` is %d%s, of which %d are kept back: lower `pool.default_pool_size`, or set `pool.max_db_connections`", proxies, sum*proxies, whose, allowed, note, kept)
	}
}

func whole(s string) int {
	n := 0
	for _, c := range s {
		if c < '0' || c > '9' {
			return 0
		}
		n = n*10 + int(c-'0')
	}
	return n
}
