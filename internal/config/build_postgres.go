package config

import (
	"cmp"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/havenha/haven/internal/config/notation"
	"github.com/havenha/haven/internal/config/schema"
	"github.com/havenha/haven/internal/config/tree"
)

func (l *loader) postgresSection(n *Node) {
	if l.given("postgresql") == nil {
		return
	}
	if l.given("postgresql").Shape != tree.Mapping {
		return // reported by the walker
	}
	l.listen()
	if l.given("postgresql.data_dir") == nil {
		l.report.errorf(l.doc.Nearest("postgresql"), "`postgresql.data_dir` is missing: write the folder of the database, or set PATRONI_POSTGRESQL_DATA_DIR")
	}
	l.runAs()
	l.authDefaults(n)
	n.Postgres = l.readPostgres(n)
	l.checkAuth(n.Postgres)
	l.checkSyncNames(n)
}

// listen settles postgresql.listen: in Haven format loopback and the node's own address.
func (l *loader) listen() {
	const path = "postgresql.listen"
	if l.given(path) != nil {
		return
	}
	if l.format == Patroni {
		l.report.warnf(l.doc.Nearest("postgresql"), "`%s` is missing: *:5432 is used", path)
		return
	}
	switch {
	case l.address == "":
		l.needAddress(path)
	case l.address == "127.0.0.1" || l.address == "localhost":
		l.derive(path, "localhost:5432", "haven.address")
	default:
		host := l.address
		if strings.Contains(host, ":") {
			host = "[" + host + "]"
		}
		l.derive(path, "localhost,"+host+":5432", "haven.address")
	}
}

func (l *loader) runAs() {
	v := l.given("postgresql.run_as")
	switch {
	case v == nil && l.src.Root:
		l.derive("postgresql.run_as", "postgres", "default")
	case v != nil && !l.src.Root:
		l.report.errorf(v.At, "`postgresql.run_as` is only for a node that is started by root: remove it, or start haven as root")
	case v != nil && v.Text == "root":
		l.report.errorf(v.At, "`postgresql.run_as` may not be root: PostgreSQL refuses to run as root, so name another user")
	}
}

// authDefaults lays haven.tls and the superuser under the roles that say nothing.
func (l *loader) authDefaults(n *Node) {
	const auth = "postgresql.authentication."
	if n.Haven.TLS.On() && !l.refused("postgresql.parameters.ssl") {
		for _, role := range []string{"superuser", "replication", "rewind"} {
			if role == "rewind" && l.given(auth+role) == nil {
				continue
			}
			if l.given(auth+role+".sslmode") == nil {
				l.derive(auth+role+".sslmode", "verify-ca", "haven.tls")
				if l.given(auth+role+".sslrootcert") == nil {
					l.derive(auth+role+".sslrootcert", n.Haven.TLS.CAFile, "haven.tls")
				}
			}
		}
		for _, p := range [][2]string{{"ssl", "on"}, {"ssl_ca_file", n.Haven.TLS.CAFile}, {"ssl_cert_file", n.Haven.TLS.CertFile}, {"ssl_key_file", n.Haven.TLS.KeyFile}} {
			if l.given("postgresql.parameters."+p[0]) == nil {
				l.derive("postgresql.parameters."+p[0], p[1], "haven.tls")
			}
		}
	}
}

func (l *loader) checkAuth(p *Postgres) {
	for _, role := range []struct {
		name string
		auth Auth
	}{{"superuser", p.Superuser}, {"replication", p.Replication}, {"rewind", p.Rewind}} {
		path := "postgresql.authentication." + role.name
		if role.name == "rewind" && l.given(path) == nil {
			continue
		}
		if role.auth.SSLCert == "" {
			l.required(path+".password", role.auth.Password, "PATRONI_"+strings.ToUpper(role.name)+"_PASSWORD")
		}
		if role.auth.Username == "" {
			l.report.errorf(l.doc.Nearest(path+".username"), "`%s.username` is missing: name the role", path)
		}
	}
}

// readPostgres reads the section postgresql of the document. It is also used with the dynamic configuration laid
// under that section, see PostgresWith.
func (l *loader) readPostgres(n *Node) *Postgres {
	const s = "postgresql."
	p := &Postgres{
		Listen: l.text(s + "listen"), ConnectAddress: l.text(s + "connect_address"), ProxyAddress: l.text(s + "proxy_address"),
		DataDir: l.abs(s + "data_dir"), ConfigBaseName: l.text(s + "config_base_name"), CustomConf: l.abs(s + "custom_conf"),
		BinDir: l.abs(s + "bin_dir"), BinNames: l.settings(s + "bin_name"), RunAs: l.text(s + "run_as"),
		Database: l.text(s + "database"), PgPass: l.abs(s + "pgpass"),
		Superuser: l.auth("superuser"), Replication: l.auth("replication"), Rewind: l.auth("rewind"),
		Parameters: l.settings(s + "parameters"), HBA: l.lines(s + "pg_hba"), Ident: l.lines(s + "pg_ident"), RecoveryConf: l.settings(s + "recovery_conf"),
		UseUnixSocket: l.bool(s + "use_unix_socket"), UseUnixSocketRepl: l.bool(s + "use_unix_socket_repl"), UsePgRewind: l.bool(s + "use_pg_rewind"),
		RemoveDataDirOnRewindFailure: l.bool(s + "remove_data_directory_on_rewind_failure"), RemoveDataDirOnDivergedTimelines: l.bool(s + "remove_data_directory_on_diverged_timelines"),
		PgCtlTimeout: l.duration(s + "pg_ctl_timeout"), PrePromote: l.text(s + "pre_promote"), BeforeStop: l.text(s + "before_stop"),
		Callbacks: l.settings(s + "callbacks"), ReplicaMethods: l.replicaMethods(), KrbSrvName: l.text(s + "krbsrvname"),
		BaseBackup: l.options(s+"basebackup", "pgdata", "format", "wal-method", "xlog-method", "gzip", "version", "dbname", "host", "port", "username", "password"),
		RewindOptions: l.options(s+"rewind", "target-pgdata", "source-pgdata", "source-server", "write-recovery-conf", "dry-run", "restore-target-wal",
			"config-file", "no-ensure-shutdown", "version", "help"),
	}
	if p.ConfigDir = l.abs(s + "config_dir"); p.ConfigDir == "" {
		p.ConfigDir = p.DataDir
	}
	if strings.Contains(p.ConfigBaseName, "/") {
		l.report.errorf(l.doc.Nearest(s+"config_base_name"), "`postgresql.config_base_name` is `%s`, which has a directory in it: write the bare name, without .conf, and the directory into `postgresql.config_dir`", p.ConfigBaseName)
	}
	if l.given(s+"authentication.rewind.username") == nil {
		p.Rewind = p.Superuser
	}
	if hosts, port, err := notation.SplitListen(p.Listen); err == nil && p.Listen != "" {
		p.ListenAddresses, p.Port = strings.Join(hosts, ","), port
	}
	l.byRole(p)
	return p
}

func (l *loader) auth(role string) Auth {
	p := "postgresql.authentication." + role + "."
	return Auth{
		Username: l.text(p + "username"), Password: l.secret(p + "password"),
		SSLMode: l.text(p + "sslmode"), SSLCert: l.abs(p + "sslcert"), SSLKey: l.abs(p + "sslkey"), SSLPassword: l.secret(p + "sslpassword"),
		SSLRootCert: l.abs(p + "sslrootcert"), SSLCRL: l.abs(p + "sslcrl"), SSLCRLDir: l.abs(p + "sslcrldir"),
		GSSEncMode: l.text(p + "gssencmode"), ChannelBinding: l.text(p + "channel_binding"), SSLNegotiation: l.text(p + "sslnegotiation"),
	}
}

func (l *loader) byRole(p *Postgres) {
	p.ParametersByRole, p.HBAByRole, p.IdentByRole = map[string]map[string]string{}, map[string][]string{}, map[string][]string{}
	for _, role := range []string{"primary", "replica", "standby_leader"} {
		if m := l.settings("postgresql.parameters_" + role); m != nil {
			p.ParametersByRole[role] = m
		}
		if lines := l.lines("postgresql.pg_hba_" + role); lines != nil {
			p.HBAByRole[role] = lines
		}
		if lines := l.lines("postgresql.pg_ident_" + role); lines != nil {
			p.IdentByRole[role] = lines
		}
	}
}

// checkSyncNames warns of synchronous replication behind the back of failover (the guides do so).
func (l *loader) checkSyncNames(n *Node) {
	mode := l.given("bootstrap.dcs.synchronous_mode").TextOr("")
	if mode == "" && l.format == Haven {
		return
	}
	if on, err := notation.ParseBool(cmp.Or(mode, "off")); err != nil || on {
		return
	}
	for _, path := range []string{"postgresql.parameters.synchronous_standby_names", "bootstrap.dcs.postgresql.parameters.synchronous_standby_names"} {
		if l.given(path) != nil {
			l.report.warnf(l.doc.Nearest(path), "`synchronous_standby_names` is set while `synchronous_mode` is off: a failover would not know which standby has every commit; set `synchronous_mode: on`")
		}
	}
}

func (l *loader) bootstrap(n *Node) {
	v := l.doc.Entry("bootstrap")
	if n.Postgres == nil {
		return
	}
	if v == nil || v.Value.Empty {
		switch {
		case l.format == Haven:
			l.doc.Put("bootstrap", &tree.Value{Shape: tree.Mapping, At: tree.Place{Note: "default"}})
		case l.src.Path == "" && v == nil:
			l.report.warnf(l.doc.At, "`bootstrap` cannot be given in variables: this node may make a new cluster, with defaults")
			l.doc.Put("bootstrap", &tree.Value{Shape: tree.Mapping, At: tree.Place{Note: "default"}})
		default:
			return
		}
	}
	if l.given("bootstrap") == nil {
		return
	}
	b := &Bootstrap{PostBootstrap: l.text("bootstrap.post_bootstrap"), HBA: l.lines("bootstrap.pg_hba"), Method: l.bootstrapMethod()}
	if b.PostBootstrap == "" {
		b.PostBootstrap = l.text("bootstrap.post_init")
	}
	b.InitDB = l.options("bootstrap.initdb", "pgdata", "nosync", "no-sync", "pwfile", "sync-only", "version")
	if l.format == Haven && l.given("bootstrap.initdb") == nil {
		b.InitDB = []string{"--encoding=UTF8", "--data-checksums"}
	}
	b.DCS = l.given("bootstrap.dcs").JSON()
	l.checkTiming(b)
	l.databases(b)
	l.bootstrapHBA(n, b)
	n.Bootstrap = b
}

// checkTiming tells what the dynamic configuration will be read as, where its values are valid and yet not kept.
func (l *loader) checkTiming(b *Bootstrap) {
	dcs := l.given("bootstrap.dcs")
	if dcs == nil {
		return
	}
	var faults Report
	w := schema.Walker{Errorf: faults.errorf, Warnf: faults.warnf, Schema: l.schema, Methods: schema.MethodNames(l.doc)}
	w.Walk("bootstrap.dcs", dcs, l.schema.At("bootstrap.dcs"))
	doc, err := tree.FromJSON(b.DCS, dcs.At)
	if err != nil || !faults.OK() { // reported by the walker
		return
	}
	r := &dynamicReader{doc: doc, schema: l.schema}
	r.read(l.format == Haven)
	for _, warning := range r.warnings {
		l.report.warnf(l.doc.Nearest("bootstrap.dcs"), "%s", warning)
	}
}

func (l *loader) databases(b *Bootstrap) {
	section := l.given("bootstrap.databases")
	if section == nil {
		return
	}
	var names []string
	for i := range section.Items {
		path := "bootstrap.databases[" + strconv.Itoa(i) + "]"
		d := Database{Name: l.text(path + ".name"), Owner: l.text(path + ".owner"), Password: l.secret(path + ".password")}
		if d.Name == "" {
			l.report.errorf(section.Items[i].At, "`%s.name` is missing: name the database", path)
		} else if slices.Contains(append(names, "postgres", "template0", "template1"), d.Name) {
			l.report.errorf(section.Items[i].At, "`%s.name` is `%s`, which is there already: choose another name", path, d.Name)
		}
		if d.Owner == "" {
			d.Owner = d.Name
		}
		l.required(path+".password", d.Password, "")
		names = append(names, d.Name)
		b.Databases = append(b.Databases, d)
	}
}

// bootstrapHBA lets standbys connect to a new cluster for which no pg_hba was written at all; in Haven format
// ServerSettings does so.
func (l *loader) bootstrapHBA(n *Node, b *Bootstrap) {
	p := n.Postgres
	written := len(b.HBA) > 0 || p.HBA != nil || len(p.HBAByRole) > 0 || p.Parameters["hba_file"] != "" ||
		l.given("bootstrap.dcs.postgresql.pg_hba") != nil || l.given("bootstrap.dcs.postgresql.parameters.hba_file") != nil
	if l.format == Haven || written {
		return
	}
	b.HBA = n.DefaultHBA()
	l.report.warnf(l.doc.Nearest("bootstrap"), "there is no `pg_hba`: a new cluster lets its members replicate and the hosts of its networks connect, with passwords (scram-sha-256)")
}

// host is an address without its port.
func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}
