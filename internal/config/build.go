package config

import (
	"cmp"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/havenha/haven/internal/config/notation"
	"github.com/havenha/haven/internal/config/schema"
	"github.com/havenha/haven/internal/config/tree"
)

// build makes a Node of the merged document, filling in defaults as it goes, and checks what needs more than one key.
func (l *loader) build() *Node {
	if l.src.Client {
		return l.buildClient()
	}
	n := &Node{Format: l.format, File: l.src.Path, src: l.src}
	l.identity(n)
	l.haven(n)
	l.postgresSection(n)
	l.etcdSection(n)
	l.restapi(n)
	l.connectAddresses(n)
	l.bootstrap(n)
	l.ctl(n)
	l.proxySection(n)
	l.logSection(n)
	l.watchdog(n)
	n.Tags = l.tags()
	l.roles(n)
	n.doc = l.doc
	l.sameAddress(n)
	l.apart(n)
	n.Origins = origins(l.doc)
	return n
}

func (l *loader) identity(n *Node) {
	if l.given("scope") == nil && l.format == Patroni {
		l.report.warnf(l.doc.At, "`scope` is missing: the cluster is called `main`")
	}
	n.Scope, n.Namespace = l.text("scope"), strings.Trim(l.text("namespace"), "/")
	if l.given("name") == nil {
		if host := shortHost(l.src.Hostname); host != "" {
			l.derive("name", host, "host name")
			if l.format == Patroni && !l.src.Client {
				l.report.warnf(l.doc.At, "`name` is missing: this node is called `%s` as its host", host)
			}
		}
	}
	n.Name = l.text("name")
	paths := []string{"scope", "namespace", "name"}
	if l.src.Client { // it has no name of its own
		paths = paths[:2]
	}
	for _, path := range paths {
		v, at := strings.Trim(l.text(path), "/"), l.doc.Nearest(path)
		if path != "namespace" {
			v = l.text(path)
		}
		switch {
		case v == "":
			l.report.errorf(at, "`%s` is missing: write one word", path)
		case strings.ContainsFunc(v, func(c rune) bool { return c <= ' ' || c == 0x7f }) || strings.Contains(v, "/") && path != "namespace":
			l.report.errorf(at, "`%s` is `%s`: it may hold no blanks, no control characters and no `/`, as it is part of a key in etcd", path, v)
		case v == "." || v == ".." || v == "__patroni_strict_sync_replica_placeholder__":
			l.report.errorf(at, "`%s` may not be `%s`: choose another", path, v)
		}
	}
}

func (l *loader) haven(n *Node) {
	h := &n.Haven
	if l.format == Haven {
		l.checkFormat()
	}
	h.TLS = TLS{CAFile: l.existing("haven.tls.cafile"), CertFile: l.existing("haven.tls.certfile"), KeyFile: l.existing("haven.tls.keyfile"), KeyPassword: l.secret("haven.tls.keyfile_password")}
	l.certificateWithKey("haven.tls.certfile", "haven.tls.keyfile")
	if h.TLS.On() && h.TLS.CAFile == "" {
		l.report.errorf(l.doc.Nearest("haven.tls"), "`haven.tls.cafile` is missing: members check each other's certificates against it")
	}
	if l.given("haven.state_dir") == nil {
		l.derive("haven.state_dir", l.stateDir(), "default")
	}
	h.StateDir = l.abs("haven.state_dir")
	h.Guard, h.GuardMargin, h.JournalSize = l.bool("haven.guard"), l.duration("haven.guard_margin"), l.size("haven.journal_size")
	l.ownAddress()
	h.Address = l.address
}

func (l *loader) checkFormat() {
	v := l.given("haven.format")
	if v == nil {
		l.report.errorf(l.doc.Nearest("haven"), "`haven.format` is missing: write `haven: {format: 1}`")
		return
	}
	if v.Text != "1" {
		l.report.errorf(v.At, "`haven.format` is %s, but this version reads format 1 only: use the version of haven that the file was written for", v.Text)
	}
}

func (l *loader) stateDir() string {
	if l.src.Root {
		return "/var/lib/haven"
	}
	if dir, ok := lookup(l.src.Env, "XDG_STATE_HOME"); ok {
		return filepath.Join(dir, "haven")
	}
	home, _ := lookup(l.src.Env, "HOME")
	return filepath.Join(home, ".local", "state", "haven")
}

// ownAddress settles the host by which others reach this node; empty when nothing says it.
func (l *loader) ownAddress() {
	if v := l.given("haven.address"); v != nil {
		if everyAddress(v.Text) {
			l.report.errorf(v.At, "`haven.address` is `%s`, which other hosts cannot connect to: write this host's own name or address", v.Text)
		}
		l.address = v.Text
		return
	}
	if m := l.doc.Find("etcd.members").Field(l.doc.Find("name").TextOr("")); m != nil && m.Shape != tree.Null {
		host := m.Text
		if m.Shape == tree.Mapping {
			host = cmp.Or(m.Field("client").TextOr(""), m.Field("peer").TextOr(""))
		}
		if strings.Contains(host, ":") && strings.Count(host, ":") == 1 || strings.HasPrefix(host, "[") {
			host, _, _ = net.SplitHostPort(host)
		}
		if host != "" && host != "*" {
			l.address = l.derive("haven.address", host, "etcd.members").Text
			return
		}
	}
	if len(l.src.Addresses) == 1 {
		l.address = l.derive("haven.address", l.src.Addresses[0].String(), "the host's only address").Text
	}
}

// needAddress reports that a key needs the node's address and nothing says it.
func (l *loader) needAddress(path string) {
	at := l.doc.Nearest(path)
	if len(l.src.Addresses) == 0 {
		l.report.errorf(at, "`%s` cannot be derived, since this host has no address but loopback: set `haven.address` (127.0.0.1 for a cluster on one host)", path)
		return
	}
	var all []string
	for _, a := range l.src.Addresses {
		all = append(all, a.String())
	}
	l.report.errorf(at, "`%s` cannot be derived, since this host has several addresses (%s): set `haven.address` to the one that the other nodes reach", path, strings.Join(all, ", "))
}

func (l *loader) certificateWithKey(cert, key string) {
	c, k := l.given(cert), l.given(key)
	switch {
	case c != nil && !c.At.Written(): // inherited from haven.tls, and reported there
	case c != nil && k == nil && l.format == Haven:
		l.report.errorf(c.At, "`%s` is given without `%s`: give the private key too", cert, key)
	case c == nil && k != nil:
		l.report.errorf(k.At, "`%s` is given without `%s`: give the certificate too", key, cert)
	}
}

// inheritTLS fills the three files of a section in from haven.tls, unless the section names or refuses a certificate.
func (l *loader) inheritTLS(n *Node, ca, cert, key string) {
	t := n.Haven.TLS
	if !t.On() || l.given(cert) != nil || l.refused(cert) {
		return
	}
	for _, f := range [][2]string{{ca, t.CAFile}, {cert, t.CertFile}, {key, t.KeyFile}} {
		if l.given(f[0]) == nil && f[1] != "" {
			l.derive(f[0], f[1], "haven.tls")
		}
	}
}

func (l *loader) restapi(n *Node) {
	l.inheritTLS(n, "restapi.cafile", "restapi.certfile", "restapi.keyfile")
	if l.format == Patroni && l.given("restapi.listen") == nil {
		l.report.warnf(l.doc.Nearest("restapi"), "`restapi.listen` is missing: *:8008 is used")
	}
	const auth = "restapi.authentication."
	r := &RESTAPI{
		Listen: l.text("restapi.listen"), ConnectAddress: l.text("restapi.connect_address"),
		Username: l.text(auth + "username"), Password: l.secret(auth + "password"),
		CertFile: l.existing("restapi.certfile"), KeyFile: l.existing("restapi.keyfile"), KeyPassword: l.secret("restapi.keyfile_password"), CAFile: l.existing("restapi.cafile"),
		Ciphers: l.text("restapi.ciphers"), VerifyClient: strings.ToLower(l.text("restapi.verify_client")),
		AllowList: l.strings("restapi.allowlist"), AllowListIncludeMembers: l.bool("restapi.allowlist_include_members"),
		HTTPExtraHeaders: l.settings("restapi.http_extra_headers"), HTTPSExtraHeaders: l.settings("restapi.https_extra_headers"),
		RequestQueueSize: l.number("restapi.request_queue_size"), ServerTokens: strings.ToLower(l.text("restapi.server_tokens")),
	}
	if r.KeyPassword == "" && r.CertFile == n.Haven.TLS.CertFile {
		r.KeyPassword = n.Haven.TLS.KeyPassword
	}
	if r.Username != "" {
		l.required(auth+"password", r.Password, "PATRONI_RESTAPI_PASSWORD")
	} else if r.Password != "" {
		l.report.errorf(l.doc.Nearest(auth+"password"), "`%spassword` is given without `username`, so nobody could use it: give both", auth)
	} else if l.format == Haven && (n.Postgres != nil || n.HasStore()) && !onlyLocal(r.Listen) && r.VerifyClient == "none" {
		l.report.warnf(l.doc.Nearest("restapi.authentication"), "`restapi.authentication` is missing: whoever reaches %s can switch over, restart and change the configuration of the cluster", r.Listen)
	}
	if r.VerifyClient != "none" && r.CAFile == "" {
		l.report.errorf(l.doc.Nearest("restapi.verify_client"), "`restapi.verify_client` needs `restapi.cafile`, the authority that signed the clients' certificates")
	}
	l.certificateWithKey("restapi.certfile", "restapi.keyfile")
	n.RESTAPI = r
}

func onlyLocal(address string) bool {
	host, _, err := notation.SplitAddress(address)
	return err == nil && (host == "localhost" || host == "::1" || strings.HasPrefix(host, "127."))
}

// connectAddresses fills in the addresses that others use, from what each section says and from the node's address.
func (l *loader) connectAddresses(n *Node) {
	r := n.RESTAPI
	restHost, restPort, restErr := notation.SplitAddress(r.Listen)
	for _, path := range []string{"restapi.connect_address", "postgresql.connect_address"} {
		if v := l.given(path); v != nil && everyAddress(hostOf(v.Text)) {
			l.report.errorf(v.At, "`%s` is `%s`, which other hosts cannot connect to: write this host's own name or address", path, v.Text)
		}
	}
	if n.Postgres != nil {
		p := n.Postgres
		if p.ConnectAddress == "" && p.Port != 0 {
			p.ConnectAddress = l.connect("postgresql.connect_address", firstReal(p.ListenAddresses), p.Port, r.ConnectAddress)
		}
	}
	if r.ConnectAddress == "" && restErr == nil {
		other := ""
		if n.Postgres != nil && l.given("postgresql.connect_address").TextOr("") != "" {
			other = n.Postgres.ConnectAddress
		}
		r.ConnectAddress = l.connect("restapi.connect_address", firstReal(restHost), restPort, other)
	}
}

// firstReal is the first of listen's addresses that another host could use, or else loopback where that is all.
func firstReal(addresses string) string {
	loopback := ""
	for host := range strings.SplitSeq(addresses, ",") {
		switch {
		case host == "*" || host == "" || host == "0.0.0.0" || host == "::":
			return ""
		case onlyLocal(net.JoinHostPort(host, "1")):
			loopback = cmp.Or(loopback, host)
		default:
			return host
		}
	}
	return loopback
}

func (l *loader) connect(path, listenHost string, port int, sibling string) string {
	host, note := l.address, "haven.address"
	if l.format == Patroni || onlyLocal(net.JoinHostPort(listenHost, "1")) {
		siblingHost, _, err := notation.SplitAddress(sibling)
		if err != nil {
			siblingHost = ""
		}
		host, note = cmp.Or(listenHost, siblingHost, l.address), "derived"
	}
	if host == "" {
		l.needAddress(path)
		return ""
	}
	address := net.JoinHostPort(host, strconv.Itoa(port))
	if l.format == Patroni && l.given(path) == nil && listenHost == "" {
		section, _, _ := tree.CutLast(path)
		l.report.warnf(l.doc.Nearest(section), "`%s` is missing: %s is announced to the others", path, address)
	}
	return l.derive(path, address, note).Text
}

func (l *loader) ctl(n *Node) {
	l.inheritTLS(n, "ctl.cacert", "ctl.certfile", "ctl.keyfile")
	const auth = "ctl.authentication."
	n.CTL = CTL{
		Username: l.text(auth + "username"), Password: l.secret(auth + "password"), Insecure: l.bool("ctl.insecure"),
		CACert: l.existing("ctl.cacert"), CertFile: l.existing("ctl.certfile"), KeyFile: l.existing("ctl.keyfile"), KeyPassword: l.secret("ctl.keyfile_password"),
	}
	if n.CTL.Username == "" && n.CTL.Password == "" {
		n.CTL.Username, n.CTL.Password = n.RESTAPI.Username, n.RESTAPI.Password
	}
	if n.CTL.KeyPassword == "" && n.CTL.CertFile == n.Haven.TLS.CertFile {
		n.CTL.KeyPassword = n.Haven.TLS.KeyPassword
	}
}

func (l *loader) logSection(n *Node) {
	n.Log = Log{
		Type: l.text("log.type"), Level: strings.ToUpper(l.text("log.level")), TracebackLevel: strings.ToUpper(l.text("log.traceback_level")),
		DateFormat: l.text("log.dateformat"), StaticFields: l.settings("log.static_fields"), Loggers: l.loggers(),
		Dir: l.abs("log.dir"), Mode: l.text("log.mode"), FileSize: l.size("log.file_size"), FileNum: l.number("log.file_num"),
		DeduplicateHeartbeatLogs: l.bool("log.deduplicate_heartbeat_logs"),
	}
	n.Log.File = "haven.log"
	if l.format == Patroni {
		n.Log.File = "patroni.log"
	}
	l.logFormat(&n.Log)
	if _, err := strconv.ParseUint(n.Log.Mode, 8, 12); n.Log.Mode != "" && err != nil {
		l.report.errorf(l.doc.Nearest("log.mode"), "`log.mode` is `%s`: write an octal mode such as 0640", n.Log.Mode)
	}
}

// logFormat reads the format of lines: a text, or for JSON also a list of fields, each with or without a key of its own.
func (l *loader) logFormat(c *Log) {
	const path = "log.format"
	v := l.given(path)
	if v == nil && l.format == Haven {
		return
	}
	if v == nil || v.Shape == tree.Scalar {
		c.Format = v.TextOr(l.schema.At(path).Key.Def)
		return
	}
	if c.Type != "json" || v.Shape != tree.List {
		l.report.errorf(v.At, "`%s` is %s: write a text such as '%%(asctime)s %%(message)s', or with `type: json` a list of fields", path, schema.Described(v))
		return
	}
	for _, item := range v.Items {
		if item.Shape == tree.Scalar {
			c.Fields = append(c.Fields, LogField{Name: item.Text, As: item.Text})
		}
		for _, f := range item.Fields {
			c.Fields = append(c.Fields, LogField{Name: f.Name, As: f.Value.TextOr(f.Name)})
		}
	}
}

func (l *loader) watchdog(n *Node) {
	mode := map[string]string{"off": WatchdogOff, "disable": WatchdogOff, "disabled": WatchdogOff, "false": WatchdogOff,
		"automatic": WatchdogAutomatic, "auto": WatchdogAutomatic, "required": WatchdogRequired, "require": WatchdogRequired}
	n.Watchdog = Watchdog{Mode: mode[strings.ToLower(l.text("watchdog.mode"))], Device: l.abs("watchdog.device"), Driver: l.text("watchdog.driver"), SafetyMargin: l.duration("watchdog.safety_margin")}
	if n.Watchdog.Mode == WatchdogRequired && !n.Haven.Guard {
		l.report.errorf(l.doc.Nearest("watchdog.mode"), "`watchdog.mode` is `required`, but `haven.guard` is off, and it is the guard that feeds the watchdog: remove one of the two")
	}
}

// roles reports a node that does nothing, and sections that are empty by an oversight.
func (l *loader) roles(n *Node) {
	for _, section := range []string{"postgresql", "proxy"} {
		if f := l.doc.Entry(section); f != nil && f.Value.Empty {
			l.report.warnf(f.At, "`%s` is empty, so this node has no such role: write `%s: {}` for a role with defaults, or remove the line", section, section)
		}
	}
	if len(n.Roles()) == 0 {
		l.report.errorf(l.doc.At, "this node has no role: add the section `postgresql` (a database), `proxy`, or `etcd` with `embedded: true`")
	}
}

// origins tells for each key path where its value comes from.
func origins(doc *tree.Value) map[string]string {
	out := map[string]string{}
	doc.Leaves("", func(path string, v *tree.Value) { out[path] = v.At.String() })
	return out
}

// sortedKeys are the keys of a map in order, for output that does not change from run to run.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
