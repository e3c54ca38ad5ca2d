package config

import "slices"

func postgresKeys() []key {
	return slices.Concat([]key{
		{path: "postgresql", kind: aSection, text: "The database of this node."},
		{path: "postgresql.listen", kind: aListen, def: "*:5432", shown: "localhost,<address>:5432", reload: ReloadRestart, text: "Addresses and port of the server: a,b:port."},
		{path: "postgresql.connect_address", kind: anAddress, shown: "<address> and the port of listen", reload: ReloadRestart, text: "Where other members and clients reach the server."},
		{path: "postgresql.proxy_address", kind: anAddress, text: "Published as proxy_url: where a pooler in front of the server listens."},
		{path: "postgresql.data_dir", kind: aPath, shown: "required", reload: ReloadFixed, text: "The data directory."},
		{path: "postgresql.config_dir", kind: aPath, shown: "data_dir", reload: ReloadRestart, text: "Where the server's configuration files are."},
		{path: "postgresql.config_base_name", kind: aText, def: "postgresql", reload: ReloadRestart, text: "Name of the configuration file without .conf."},
		{path: "postgresql.custom_conf", kind: aPath, reload: ReloadNow, text: "File that is included in place of the base configuration."},
		{path: "postgresql.bin_dir", kind: aPath, shown: "of the data directory's major version, else the newest found", reload: ReloadRestart, text: "Where the server programs are."},
		{path: "postgresql.bin_name", kind: settings, reload: ReloadRestart, text: "Other names of single programs: pg_ctl, initdb, pg_controldata, pg_basebackup, postgres, pg_isready, pg_rewind."},
		{path: "postgresql.run_as", kind: aText, shown: "postgres when started by root", reload: ReloadRestart, text: "Operating system user of the server."},
		{path: "postgresql.database", kind: aText, def: "postgres", text: "Maintenance database."},
		{path: "postgresql.pgpass", kind: aPath, text: "Password file that is written for PostgreSQL's tools."},
		{path: "postgresql.parameters", kind: settings, text: "Server settings of this node; those that must be equal on all members come from the dynamic configuration only."},
		{path: "postgresql.pg_hba", kind: lines, shown: "see the manual", text: "All lines of pg_hba.conf."},
		{path: "postgresql.pg_ident", kind: lines, text: "All lines of pg_ident.conf."},
		{path: "postgresql.use_unix_socket", kind: aBool, def: "false", text: "Connect to the local server through its socket."},
		{path: "postgresql.use_unix_socket_repl", kind: aBool, def: "false", text: "The same for replication connections."},
		{path: "postgresql.recovery_conf", kind: settings, text: "Recovery settings of standbys."},
		{path: "postgresql.create_replica_methods", kind: texts, def: "basebackup", text: "How a copy is made, in the order of trying."},
		{path: "postgresql.create_replica_method", kind: texts, text: "Older name of create_replica_methods."},
		{path: "postgresql.basebackup", kind: options, text: "Options of pg_basebackup."},
		{path: "postgresql.rewind", kind: options, text: "Options of pg_rewind."},
		{path: "postgresql.callbacks", kind: aSection, text: "Programs that are run after a change."},
		{path: "postgresql.pre_promote", kind: aText, text: "Command that must succeed before a promotion."},
		{path: "postgresql.before_stop", kind: aText, text: "Command that is run before the server stops."},
		{path: "postgresql.pg_ctl_timeout", kind: aTime, def: "60", text: "How long starting and stopping may take before it is reported."},
		{path: "postgresql.use_pg_rewind", kind: aBool, def: "false", haven: "true", text: "Bring a former primary back with pg_rewind."},
		{path: "postgresql.use_slots", kind: aBool, unused: true},
		{path: "postgresql.remove_data_directory_on_rewind_failure", kind: aBool, def: "false", text: "Copy anew when pg_rewind fails."},
		{path: "postgresql.remove_data_directory_on_diverged_timelines", kind: aBool, def: "false", text: "Copy anew when the timelines have diverged."},
		{path: "postgresql.krbsrvname", kind: aText, text: "Kerberos service name."},
	}, roleVariants(), callbackKeys(), authKeys())
}

func roleVariants() []key {
	var keys []key
	for _, role := range []string{"primary", "replica", "standby_leader"} {
		keys = append(keys,
			key{path: "postgresql.parameters_" + role, kind: settings, text: "Laid over parameters while the member is a " + role + "."},
			key{path: "postgresql.pg_hba_" + role, kind: lines, text: "Replaces pg_hba while the member is a " + role + "."},
			key{path: "postgresql.pg_ident_" + role, kind: lines, text: "Replaces pg_ident while the member is a " + role + "."})
	}
	return keys
}

func callbackKeys() []key {
	var keys []key
	for _, on := range []string{"on_reload", "on_restart", "on_role_change", "on_start", "on_stop"} {
		keys = append(keys, key{path: "postgresql.callbacks." + on, kind: aText, text: "Command; it gets the action, the role and the scope."})
	}
	return keys
}

func authKeys() []key {
	var keys []key
	users := map[string]string{"superuser": "postgres", "replication": "replicator"}
	for _, role := range []string{"superuser", "replication", "rewind"} {
		p := "postgresql.authentication." + role + "."
		keys = append(keys,
			key{path: p + "username", kind: aText, def: users[role], text: "Name of the role."},
			key{path: p + "password", kind: aSecret, shown: "required", text: "Its password."},
			key{path: p + "sslpassword", kind: aSecret, text: "Password of sslkey."})
		for _, name := range []string{"sslcert", "sslkey", "sslrootcert", "sslcrl", "sslcrldir"} {
			keys = append(keys, key{path: p + name, kind: aPath, text: "libpq's parameter of the same name."})
		}
		for _, name := range []string{"sslmode", "gssencmode", "channel_binding", "sslnegotiation"} {
			keys = append(keys, key{path: p + name, kind: aText, accept: libpqWords(name), text: "libpq's parameter of the same name."})
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

func bootstrapKeys() []key {
	return []key{
		{path: "bootstrap", kind: aSection, shown: "{}", text: "How a new cluster is made. A Patroni file without it never makes one."},
		{path: "bootstrap.dcs", kind: aSection, text: "First content of the dynamic configuration."},
		{path: "bootstrap.method", kind: aText, def: "initdb", text: "initdb, or the name of a section with a command."},
		{path: "bootstrap.initdb", kind: options, shown: "[{encoding: UTF8}, data-checksums]", text: "Options of initdb."},
		{path: "bootstrap.pg_hba", kind: lines, text: "Lines appended to pg_hba.conf after initdb where postgresql.pg_hba is not given."},
		{path: "bootstrap.post_bootstrap", kind: aText, text: "Command that is run once on the new cluster with its connection string."},
		{path: "bootstrap.post_init", kind: aText, text: "Older name of post_bootstrap."},
		{path: "bootstrap.users", kind: free, unused: true},
		{path: "bootstrap.databases", kind: objects, shown: "[]", text: "Roles and databases that are made once, before post_bootstrap."},
		{path: "bootstrap.databases[].name", kind: aText, shown: "required", text: "Name of the database."},
		{path: "bootstrap.databases[].owner", kind: aText, shown: "name", text: "Role that owns it."},
		{path: "bootstrap.databases[].password", kind: aSecret, shown: "required", text: "Password of that role."},
	}
}

func restKeys() []key {
	return []key{
		{path: "restapi", kind: aSection, text: "Health checks and operations over HTTP."},
		{path: "restapi.listen", kind: anAddress, def: "*:8008", reload: ReloadNow, text: "Where it listens."},
		{path: "restapi.connect_address", kind: anAddress, shown: "<address> and the port of listen", text: "Where others reach it."},
		{path: "restapi.authentication.username", kind: aText, text: "Name that changes ask for."},
		{path: "restapi.authentication.password", kind: aSecret, text: "Password that changes ask for."},
		{path: "restapi.certfile", kind: aPath, shown: "haven.tls.certfile", text: "Certificate; with it the API speaks HTTPS."},
		{path: "restapi.keyfile", kind: aPath, shown: "haven.tls.keyfile", text: "Its key."},
		{path: "restapi.keyfile_password", kind: aSecret, text: "Password of the key."},
		{path: "restapi.cafile", kind: aPath, shown: "haven.tls.cafile", text: "Authority of client certificates."},
		{path: "restapi.ciphers", kind: aText, text: "Permitted cipher suites, in OpenSSL's notation."},
		{path: "restapi.verify_client", kind: aText, def: "none", accept: []string{"none", "optional", "required"}, text: "Client certificates: none, optional (for changes) or required."},
		{path: "restapi.allowlist", kind: texts, text: "Networks and hosts that may make changes."},
		{path: "restapi.allowlist_include_members", kind: aBool, def: "false", text: "Members may too."},
		{path: "restapi.http_extra_headers", kind: settings, text: "Headers added to each answer."},
		{path: "restapi.https_extra_headers", kind: settings, text: "Headers added to each answer over TLS."},
		{path: "restapi.request_queue_size", kind: aNumber, def: "5", min: 0, max: 4096, text: "Connections that wait to be accepted."},
		{path: "restapi.server_tokens", kind: aText, def: "original", accept: []string{"original", "productonly", "minimal"}, text: "How much the header Server tells."},
		{path: "restapi.thread_pool_size", kind: aNumber, unused: true},
	}
}
