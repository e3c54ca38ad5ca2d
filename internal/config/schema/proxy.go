package schema

import "github.com/havenha/haven/internal/config/tree"

func proxyKeys() []Key {
	keys := []Key{
		{Path: "proxy", Kind: Section, Text: "Ports that lead to the primary and to the replicas."},
		{Path: "proxy.address", Kind: Host, Def: "*", Reload: ReloadRestart, Text: "Host part of the default listeners."},
		{Path: "proxy.listeners", Kind: Sections, Shown: "5000 to the primary, 5001 to replicas", Text: "The ports; given, it replaces the default."},
		{Path: "proxy.listeners[].listen", Kind: Sockets, Shown: "required", Text: "Addresses and port: host:port or a,b:port. An absolute path is the directory of a Unix socket: /run/haven:6432 is /run/haven/.s.PGSQL.6432."},
		{Path: "proxy.listeners[].target", Kind: Text, Shown: "required", Accept: []string{"primary", "replica"}, Text: "primary or replica."},
		{Path: "proxy.stats", Kind: Section, Text: "Statistics: page, JSON, metrics; null: none."},
		{Path: "proxy.stats.listen", Kind: Address, Shown: "<proxy.address>:7000", Reload: ReloadNow, Text: "Address and port."},
		{Path: "proxy.stats.allow", Kind: Networks, Def: "private", Text: "Networks that may read it; private: loopback, RFC 1918 and fc00::/7."},
		{Path: "proxy.stats.authentication.username", Kind: Text, Text: "Name that it asks for."},
		{Path: "proxy.stats.authentication.password", Kind: Secret, Text: "Password that it asks for."},
		{Path: "proxy.threads", Kind: Number, Def: "0", Min: 0, Max: 1024, Reload: ReloadRestart, Text: "On how many processors the program runs at once. 0: on half of those that it may use, at least one, or two where a database or etcd runs in the same program; waking up threads costs more than they do. GOMAXPROCS in the environment takes precedence then."},
		{Path: "proxy.discover", Kind: Text, Def: "etcd", Reload: ReloadRestart, Accept: []string{"etcd", "rest"}, Text: "Where the members are learnt: etcd, or rest (poll `members`). With rest, a node without a database needs no etcd."},
		{Path: "proxy.members", Kind: Texts, Reload: ReloadRestart, Text: "REST addresses of the members, with discover: rest."},
	}
	for _, p := range []string{"proxy.", "proxy.listeners[]."} {
		keys = append(keys,
			Key{Path: p + "mode", Kind: Text, Def: "tcp", Accept: []string{"tcp", "session", "transaction", "statement"}, Text: "How long a client keeps a server connection. tcp: as long as its own, whose bytes are passed through as they are; session: the same, with the protocol understood; transaction or statement: as long as that."},
			Key{Path: p + "hold_timeout", Kind: Duration, Def: "30s", Text: "How long a connection waits for a writable primary."},
			Key{Path: p + "max_lag", Kind: Size, Def: "16MB", Text: "Replicas further behind get no new sessions; pooled connections to them are given up."},
			Key{Path: p + "fallback", Kind: Text, Def: "primary", Accept: []string{"primary", "none"}, Text: "Of target replica, when there is no replica."},
			Key{Path: p + "admit", Kind: Rate, Def: "200", Text: "New connections a second to one server after a change of leader."},
			Key{Path: p + "connect_timeout", Kind: Duration, Def: "5s", Text: "For connecting to a server."},
			Key{Path: p + "idle_timeout", Kind: Duration, Def: "off", Text: "A session without traffic for so long is closed (mode tcp)."})
		keys = append(keys, socketKeys(p)...)
		keys = append(keys, poolKeys(p+"pool")...)
	}
	keys = append(keys, loginKeys()...)
	return append(keys, overrideKeys()...)
}

// overrideKeys are the settings of pools for single databases and users: those of a pool but for what belongs to a whole
// listener, or to the other of the two.
func overrideKeys() []Key {
	const whole = "holds for a listener, before it is known who comes: write it in `pool`"
	var keys []Key
	for _, of := range []struct{ section, what, foreign, instead string }{
		{"databases", "database", "max_user_connections", "is about a user's connections to all databases: write it in `proxy.users` or `pool`"},
		{"users", "user", "max_db_connections", "is about the connections of all users to a database: write it in `proxy.databases` or `pool`"},
	} {
		path := "proxy." + of.section
		keys = append(keys,
			Key{Path: path, Kind: Section, Text: "Name of a " + of.what + " → its own settings of pools, in the pooled modes. A user's go before a database's, and both before `pool`."},
			Key{Path: path + ".*", Kind: Section, Text: "The settings of that " + of.what + "."})
		for _, k := range poolKeys(path + ".*")[1:] {
			switch _, name, _ := tree.CutLast(k.Path); name {
			case "max_client_conn", "client_login_timeout", "ignore_startup_parameters", "track_extra_parameters":
				k.Absent = whole
			case of.foreign:
				k.Absent = of.instead
			}
			k.Def, k.Shown = "", "that of `pool`"
			keys = append(keys, k)
		}
		keys = append(keys,
			Key{Path: path + ".*.pool_size", Kind: Number, Absent: "is written `default_pool_size` here, as in `pool`"},
			Key{Path: path + ".*.pool_mode", Kind: Text, Absent: "belongs to a listener here: open one more with that `mode`, and have those clients use its port"})
	}
	return keys
}

// socketKeys are those of Unix sockets, under PgBouncer's names.
func socketKeys(p string) []Key {
	return []Key{
		{Path: p + "unix_socket_mode", Kind: FileMode, Def: "0777", Text: "Permissions of Unix sockets, in octal digits. Who may write to one may connect."},
		{Path: p + "unix_socket_group", Kind: Text, Text: "Group of Unix sockets, by name or number; empty: that of the process."},
	}
}

// poolKeys are PgBouncer's settings of pools under their names there.
func poolKeys(p string) []Key {
	number := func(name, def, text string) Key {
		return Key{Path: p + "." + name, Kind: Number, Def: def, Min: 0, Max: 1000000, Text: text}
	}
	duration := func(name, def, text string) Key {
		return Key{Path: p + "." + name, Kind: Duration, Def: def, Text: text}
	}
	return []Key{
		{Path: p, Kind: Section, Text: "Pools of the modes session, transaction and statement, in PgBouncer's words. A reload changes them under the clients; a change of track_extra_parameters closes the listener's."},
		number("max_client_conn", "1000", "Clients of a listener; 0: any number."),
		{Path: p + ".default_pool_size", Kind: Number, Def: "50", Min: 1, Max: 1000000, Text: "Server connections of one database and user."},
		number("min_pool_size", "0", "Server connections that are kept open once there was a client."),
		number("reserve_pool_size", "0", "Server connections more, for clients that have waited for reserve_pool_timeout."),
		duration("reserve_pool_timeout", "5s", "See reserve_pool_size; 0: there is no reserve."),
		number("max_db_connections", "0", "Server connections of one database, whoever uses them; 0: any number."),
		number("max_user_connections", "0", "Server connections of one user; 0: any number."),
		{Path: p + ".server_reset_query", Kind: Text, Def: "DISCARD ALL", Text: "Undoes what a client has left in a session: after each client in mode session, and in the other modes after a command that outlives its transaction, as far as the server's replies show that; there a query without DISCARD ALL is not trusted to undo that, and the connection is closed."},
		{Path: p + ".server_reset_query_always", Kind: Bool, Def: "false", Text: "In the modes transaction and statement: after each transaction. Needed where clients use what no reply shows, such as pg_advisory_lock() or set_config()."},
		{Path: p + ".server_check_query", Kind: Text, Text: "Run before a connection is lent that was idle for server_check_delay; `<empty>`: a statement without a command; empty: its state is looked at, which costs nothing."},
		duration("server_check_delay", "30s", "See server_check_query; 0: always."),
		duration("server_lifetime", "3600s", "Older server connections are closed when they are not in use, one by one; 0: each is used once."),
		duration("server_idle_timeout", "600s", "Server connections that nobody has used for so long are closed."),
		duration("server_login_retry", "15s", "Pause after a server connection that could not be opened; here between 0.1 s and a second."),
		duration("query_timeout", "0", "A statement that takes longer ends its client's connection."),
		duration("query_wait_timeout", "120s", "How long a statement waits for a free server connection; then the client's connection is closed."),
		duration("client_idle_timeout", "0", "A client that sends nothing for so long is closed."),
		duration("idle_transaction_timeout", "0", "A client that sends nothing for so long within a transaction, a message or COPY data, or does not read the end of what it asked for, is closed."),
		duration("client_login_timeout", "60s", "How long a client's login may take."),
		number("max_prepared_statements", "200", "Named prepared statements that a server connection keeps; 0: they are passed on as they are, and the connection is reset afterwards."),
		{Path: p + ".ignore_startup_parameters", Kind: Texts, Def: "extra_float_digits", Text: "Startup parameters that are accepted and ignored; others that are not tracked are refused."},
		{Path: p + ".track_extra_parameters", Kind: Texts, Text: "Parameters that follow a client from server to server, beside client_encoding, DateStyle, TimeZone, IntervalStyle, standard_conforming_strings and application_name. Only those that the server reports (GUC_REPORT) can be."},
	}
}

// loginKeys say how clients of pooled listeners log in, and how their servers are logged in to.
func loginKeys() []Key {
	modes := []string{"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}
	return []Key{
		{Path: "proxy.auth_type", Kind: Text, Def: "scram-sha-256", Accept: []string{"trust", "any", "plain", "md5", "scram-sha-256", "cert", "hba"}, Text: "How clients of pooled listeners prove who they are (PgBouncer's auth_type)."},
		{Path: "proxy.auth_file", Kind: Path, Text: "Users and their secrets (PgBouncer's userlist.txt)."},
		{Path: "proxy.auth_hba_file", Kind: Path, Text: "Rules in the format of pg_hba.conf, with auth_type hba."},
		{Path: "proxy.auth_query", Kind: Text, Def: "SELECT rolname, CASE WHEN rolvaliduntil < pg_catalog.now() THEN NULL ELSE rolpassword END FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin", Text: "Looks up secrets at the server, for users that auth_file does not name, if auth_user is set."},
		{Path: "proxy.auth_user", Kind: Text, Text: "Whom auth_query is run as; its secret stands in auth_file."},
		{Path: "proxy.auth_dbname", Kind: Text, Def: "postgres", Text: "Database in which auth_query is run."},
		{Path: "proxy.client_tls_sslmode", Kind: Text, Shown: "prefer with a certificate, else disable", Accept: modes, Text: "TLS towards clients of pooled listeners."},
		{Path: "proxy.server_tls_sslmode", Kind: Text, Def: "prefer", Accept: modes, Text: "TLS towards servers."},
		{Path: "proxy.server_tls_ca_file", Kind: Path, Shown: "proxy.tls.cafile", Text: "Authority of the servers' certificates."},
		{Path: "proxy.server_tls_cert_file", Kind: Path, Text: "Certificate that servers are shown if they ask for one (`clientcert`, `cert` in their pg_hba.conf)."},
		{Path: "proxy.server_tls_key_file", Kind: Path, Text: "Its key."},
		{Path: "proxy.tls.certfile", Kind: Path, Shown: "haven.tls.certfile", Text: "Certificate that clients are shown."},
		{Path: "proxy.tls.keyfile", Kind: Path, Shown: "haven.tls.keyfile", Text: "Its key."},
		{Path: "proxy.tls.cafile", Kind: Path, Shown: "haven.tls.cafile", Text: "Authority of client certificates."},
	}
}
