package schema

import "slices"

func postgresKeys() []Key {
	return slices.Concat([]Key{
		{Path: "postgresql", Kind: Section, Text: "The database of this node."},
		{Path: "postgresql.listen", Kind: Listen, Def: "*:5432", Shown: "localhost,<address>:5432", Reload: ReloadRestart, Text: "Addresses and port of the server: a,b:port."},
		{Path: "postgresql.connect_address", Kind: Address, Shown: "<address> and the port of listen", Reload: ReloadRestart, Text: "Where other members and clients reach the server."},
		{Path: "postgresql.proxy_address", Kind: Address, Text: "Published as proxy_url: where a pooler in front of the server listens."},
		{Path: "postgresql.data_dir", Kind: Path, Shown: "required", Reload: ReloadFixed, Text: "The data directory."},
		{Path: "postgresql.config_dir", Kind: Path, Shown: "data_dir", Reload: ReloadFixed, Text: "Where postgresql.conf, pg_hba.conf and pg_ident.conf are. Made if it is not there; what it lacks is copied from the data directory."},
		{Path: "postgresql.config_base_name", Kind: Text, Def: "postgresql", Reload: ReloadFixed, Text: "Name of the configuration file without .conf; the operator's own is kept as the same with .base.conf."},
		{Path: "postgresql.custom_conf", Kind: Path, Reload: ReloadNow, Text: "File that is included in place of the base configuration, postgresql.base.conf. It must be there on every member; a change of its contents needs a reload."},
		{Path: "postgresql.bin_dir", Kind: Path, Shown: "of the data directory's major version, else the newest found", Reload: ReloadRestart, Text: "Where the server programs are."},
		{Path: "postgresql.bin_name", Kind: Settings, Reload: ReloadRestart, Text: "Other names of single programs in bin_dir, or their paths: pg_ctl, initdb, pg_controldata, pg_basebackup, postgres, pg_isready, pg_rewind."},
		{Path: "postgresql.run_as", Kind: Text, Shown: "postgres when started by root", Reload: ReloadRestart, Text: "Operating system user of the server."},
		{Path: "postgresql.database", Kind: Text, Def: "postgres", Reload: ReloadRestart, Text: "Maintenance database."},
		{Path: "postgresql.pgpass", Kind: Path, Reload: ReloadRestart, Text: "Password file that is written for PostgreSQL's tools."},
		{Path: "postgresql.parameters", Kind: Settings, Text: "Server settings of this node; those that must be equal on all members come from the dynamic configuration only."},
		{Path: "postgresql.pg_hba", Kind: Lines, Shown: "see \"Who may connect\" in the guide for three servers", Text: "All lines of pg_hba.conf."},
		{Path: "postgresql.pg_ident", Kind: Lines, Text: "All lines of pg_ident.conf."},
		{Path: "postgresql.use_unix_socket", Kind: Bool, Def: "false", Reload: ReloadRestart, Text: "Connect to the local server through its socket."},
		{Path: "postgresql.use_unix_socket_repl", Kind: Bool, Def: "false", Inert: Inert{Instead: "there are no replication connections to the local server", Fits: []string{"true"}}, Text: "The same for replication connections."},
		{Path: "postgresql.recovery_conf", Kind: Settings, Text: "Recovery settings of standbys."},
		{Path: "postgresql.create_replica_methods", Kind: Texts, Def: "basebackup", Text: "How a copy is made, in the order of trying: basebackup, and names of sections of `postgresql` with a command (see the operations guide)."},
		{Path: "postgresql.create_replica_method", Kind: Texts, Text: "Older name of create_replica_methods."},
		{Path: "postgresql.basebackup", Kind: Options, Text: "Options of pg_basebackup."},
		{Path: "postgresql.rewind", Kind: Options, Reload: ReloadRestart, Text: "Options of pg_rewind."},
		{Path: "postgresql.callbacks", Kind: Section, Text: "Programs that are run after a change; nothing waits for them. One runs at a time: a newer one ends it (on_reload runs beside the others)."},
		{Path: "postgresql.pre_promote", Kind: Text, Text: "Command that must succeed before a promotion; else the leader key is released, and this member does not race for `ttl`. It has `primary_start_timeout`, at least `ttl`."},
		{Path: "postgresql.before_stop", Kind: Text, Text: "Command that is run before the server is stopped in order, whatever comes of it. It has half of `pg_ctl_timeout`."},
		{Path: "postgresql.pg_ctl_timeout", Kind: Duration, Def: "60", Reload: ReloadRestart, Text: "How long starting and stopping may take before it is reported."},
		{Path: "postgresql.use_pg_rewind", Kind: Bool, Def: "false", Haven: "true", Text: "Bring a former primary back with pg_rewind."},
		{Path: "postgresql.use_slots", Kind: Bool, Unused: true},
		{Path: "postgresql.remove_data_directory_on_rewind_failure", Kind: Bool, Def: "false", Inert: Inert{Instead: "data that cannot be rewound is moved aside, never removed, and a new copy is made", Fits: []string{"true"}}, Text: "Copy anew when pg_rewind fails."},
		{Path: "postgresql.remove_data_directory_on_diverged_timelines", Kind: Bool, Def: "false", Inert: Inert{Instead: "data that cannot be rewound is moved aside, never removed, and a new copy is made", Fits: []string{"true"}}, Text: "Copy anew when the timelines have diverged."},
		{Path: "postgresql.krbsrvname", Kind: Text, Reload: ReloadRestart, Text: "Kerberos service name of the other members' servers."},
	}, roleVariants(), callbackKeys(), authKeys())
}

func roleVariants() []Key {
	var keys []Key
	for _, role := range []string{"primary", "replica", "standby_leader"} {
		keys = append(keys,
			Key{Path: "postgresql.parameters_" + role, Kind: Settings, Text: "Laid over parameters while the member is a " + role + "."},
			Key{Path: "postgresql.pg_hba_" + role, Kind: Lines, Text: "Replaces pg_hba while the member is a " + role + "."},
			Key{Path: "postgresql.pg_ident_" + role, Kind: Lines, Text: "Replaces pg_ident while the member is a " + role + "."})
	}
	return keys
}

func callbackKeys() []Key {
	var keys []Key
	for _, on := range []string{"on_reload", "on_restart", "on_role_change", "on_start", "on_stop"} {
		keys = append(keys, Key{Path: "postgresql.callbacks." + on, Kind: Text, Text: "Command; it gets the action, the role and the scope."})
	}
	return keys
}

func authKeys() []Key {
	var keys []Key
	users := map[string]string{"superuser": "postgres", "replication": "replicator"}
	for _, role := range []string{"superuser", "replication", "rewind"} {
		p := "postgresql.authentication." + role + "."
		keys = append(keys,
			Key{Path: p + "username", Kind: Text, Def: users[role], Text: "Name of the role."},
			Key{Path: p + "password", Kind: Secret, Shown: "required", Text: "Its password."},
			Key{Path: p + "sslpassword", Kind: Secret, Text: "Password of sslkey."})
		for _, name := range []string{"sslcert", "sslkey", "sslrootcert", "sslcrl", "sslcrldir"} {
			keys = append(keys, Key{Path: p + name, Kind: Path, Text: "libpq's parameter of the same name."})
		}
		for _, name := range []string{"sslmode", "gssencmode", "channel_binding", "sslnegotiation"} {
			keys = append(keys, Key{Path: p + name, Kind: Text, Accept: libpqWords(name), Text: "libpq's parameter of the same name."})
		}
	}
	return keys
}

// libpqWords are the words that libpq accepts (PostgreSQL manual, 34.1.2).
func libpqWords(parameter string) []string {
	switch parameter {
	case "sslmode":
		return []string{"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}
	case "sslnegotiation":
		return []string{"postgres", "direct"}
	}
	return []string{"disable", "prefer", "require"}
}

func bootstrapKeys() []Key {
	return []Key{
		{Path: "bootstrap", Kind: Section, Shown: "{}", Text: "How a new cluster is made; what is changed here afterwards has no effect. A Patroni file without it never makes one."},
		{Path: "bootstrap.dcs", Kind: Section, Text: "First content of the dynamic configuration; afterwards haven edit-config changes it. Below postgresql stand keys of the section postgresql."},
		{Path: "bootstrap.method", Kind: Text, Def: "initdb", Text: "initdb, or the name of a section of `bootstrap` with a command (see the operations guide)."},
		{Path: "bootstrap.initdb", Kind: Options, Shown: "[{encoding: UTF8}, data-checksums]", Text: "Options of initdb."},
		{Path: "bootstrap.pg_hba", Kind: Lines, Text: "Lines appended to pg_hba.conf after initdb where postgresql.pg_hba is not given."},
		{Path: "bootstrap.post_bootstrap", Kind: Text, Text: "Command that is run once on the new cluster with its connection string."},
		{Path: "bootstrap.post_init", Kind: Text, Text: "Older name of post_bootstrap."},
		{Path: "bootstrap.users", Kind: Free, Unused: true},
		{Path: "bootstrap.databases", Kind: Sections, Shown: "[]", Text: "Roles and databases that are made once, before post_bootstrap."},
		{Path: "bootstrap.databases[].name", Kind: Text, Shown: "required", Text: "Name of the database."},
		{Path: "bootstrap.databases[].owner", Kind: Text, Shown: "name", Text: "Role that owns it."},
		{Path: "bootstrap.databases[].password", Kind: Secret, Shown: "required", Text: "Password of that role."},
	}
}

func restKeys() []Key {
	return []Key{
		{Path: "restapi", Kind: Section, Text: "Health checks and operations over HTTP."},
		{Path: "restapi.listen", Kind: Address, Def: "*:8008", Reload: ReloadNow, Text: "Where it listens."},
		{Path: "restapi.connect_address", Kind: Address, Shown: "<address> and the port of listen", Text: "Where others reach it."},
		{Path: "restapi.authentication.username", Kind: Text, Text: "Name that changes ask for."},
		{Path: "restapi.authentication.password", Kind: Secret, Text: "Password that changes ask for."},
		{Path: "restapi.certfile", Kind: Path, Shown: "haven.tls.certfile", Text: "Certificate; with it the API speaks HTTPS."},
		{Path: "restapi.keyfile", Kind: Path, Shown: "haven.tls.keyfile", Text: "Its key."},
		{Path: "restapi.keyfile_password", Kind: Secret, Text: "Password of the key."},
		{Path: "restapi.cafile", Kind: Path, Shown: "haven.tls.cafile", Text: "Authority of client certificates."},
		{Path: "restapi.ciphers", Kind: Text, Text: "Permitted cipher suites, in OpenSSL's notation."},
		{Path: "restapi.verify_client", Kind: Text, Def: "none", Accept: []string{"none", "optional", "required"}, Text: "Client certificates: none, optional (for changes) or required."},
		{Path: "restapi.allowlist", Kind: Texts, Text: "Networks and hosts that may make changes."},
		{Path: "restapi.allowlist_include_members", Kind: Bool, Def: "false", Text: "Members may too."},
		{Path: "restapi.http_extra_headers", Kind: Settings, Text: "Headers added to each answer."},
		{Path: "restapi.https_extra_headers", Kind: Settings, Text: "Headers added to each answer over TLS."},
		{Path: "restapi.request_queue_size", Kind: Number, Def: "5", Min: 0, Max: 4096, Inert: Inert{Instead: "the system's own limit of waiting connections holds"}, Text: "Connections that wait to be accepted."},
		{Path: "restapi.server_tokens", Kind: Text, Def: "original", Accept: []string{"original", "productonly", "minimal"}, Text: "How much the header Server tells."},
		{Path: "restapi.thread_pool_size", Kind: Number, Unused: true},
	}
}
