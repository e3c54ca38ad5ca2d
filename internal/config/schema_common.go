package config

import "slices"

func commonKeys() []key {
	return slices.Concat(topKeys(), havenKeys(), []key{
		{path: "tags", kind: free, text: "Tags published with the member: nofailover, failover_priority, nosync, sync_priority, noloadbalance, clonefrom, replicatefrom, nostream, and any of your own."},
		{path: "ctl", kind: aSection, text: "How commands talk to REST APIs."},
		{path: "ctl.authentication.username", kind: aText, shown: "restapi's", text: "Name for REST APIs that ask for one."},
		{path: "ctl.authentication.password", kind: aSecret, shown: "restapi's", text: "Password for it."},
		{path: "ctl.insecure", kind: aBool, def: "false", text: "Do not verify certificates of REST APIs."},
		{path: "ctl.cacert", kind: aPath, shown: "haven.tls.cafile", text: "Authority that signed the REST APIs' certificates."},
		{path: "ctl.certfile", kind: aPath, shown: "haven.tls.certfile", text: "Client certificate."},
		{path: "ctl.keyfile", kind: aPath, shown: "haven.tls.keyfile", text: "Its key."},
		{path: "ctl.keyfile_password", kind: aSecret, text: "Password of the key."},
		{path: "watchdog", kind: aSection, text: "The Linux watchdog device."},
		{path: "watchdog.mode", kind: aText, def: "automatic", reload: ReloadRestart, accept: []string{"off", "automatic", "required", "disable", "disabled", "auto", "require", "false"}, text: "off, automatic (used when it can be opened) or required (no leadership without it)."},
		{path: "watchdog.device", kind: aPath, def: "/dev/watchdog", reload: ReloadRestart, text: "The device."},
		{path: "watchdog.driver", kind: aText, def: "default", reload: ReloadRestart, accept: []string{"default", "testing"}, text: "default, or testing for a FIFO in place of the device."},
		{path: "watchdog.safety_margin", kind: aTime, def: "5", text: "How long before the end of the lease the device resets the host; -1: half of ttl."},
		{path: "nodes", kind: aSection, reload: ReloadRestart, text: "Name to any of the other sections: one file for several nodes."},
		{path: "nodes.*", kind: aSection, text: "What differs on the node of that name; null removes a section."},
	}, logKeys(), foreignKeys())
}

func topKeys() []key {
	return []key{
		{path: "scope", kind: aText, def: "main", reload: ReloadFixed, text: "Name of the cluster."},
		{path: "name", kind: aText, shown: "short host name", reload: ReloadFixed, text: "Name of this node, unique in the cluster."},
		{path: "namespace", kind: aText, def: "service", reload: ReloadFixed, text: "First part of every key in etcd."},
		{path: "thread_pool_size", kind: aNumber, unused: true},
		{path: "thread_stack_size", kind: aSize, unused: true},
	}
}

func havenKeys() []key {
	return []key{
		{path: "haven", kind: aSection, text: "Marks the file as one in Haven format."},
		{path: "haven.format", kind: aNumber, shown: "required", reload: ReloadRestart, text: "Version of the format: 1."},
		{path: "haven.address", kind: aHost, shown: "this node's host in etcd.members, else the host's only global address", reload: ReloadRestart, text: "Host part of every connect_address that is not given."},
		{path: "haven.state_dir", kind: aPath, shown: "/var/lib/haven as root, else $XDG_STATE_HOME/haven", reload: ReloadRestart, text: "Holds <scope>/<name>/ with the data of embedded etcd and the journal."},
		{path: "haven.tls.cafile", kind: aPath, text: "Authority of the cluster's certificates."},
		{path: "haven.tls.certfile", kind: aPath, text: "Certificate: the default for etcd, restapi, ctl and PostgreSQL. A section's own `certfile: null` keeps it plain."},
		{path: "haven.tls.keyfile", kind: aPath, text: "Its key."},
		{path: "haven.tls.keyfile_password", kind: aSecret, text: "Password of the key."},
		{path: "haven.guard", kind: aBool, def: "off", reload: ReloadRestart, text: "A process of its own that ends the server when the lease ends; only `off` in this version."},
		{path: "haven.guard_margin", kind: aTime, shown: "ttl/10, at least 1s", text: "How long before the end of the lease the server is stopped."},
		{path: "haven.journal_size", kind: aSize, def: "256MB", text: "Oldest decisions are dropped beyond it."},
	}
}

func logKeys() []key {
	return []key{
		{path: "log", kind: aSection, text: "What is logged, and how."},
		{path: "log.type", kind: aText, def: "plain", accept: []string{"plain", "json"}, text: "plain or json."},
		{path: "log.level", kind: aText, def: "INFO", accept: []string{"debug", "info", "warn", "warning", "error", "fatal", "critical"}, text: "Least severity that is logged."},
		{path: "log.traceback_level", kind: aText, def: "ERROR", accept: []string{"debug", "info", "warn", "warning", "error", "fatal", "critical"}, text: "Severity from which causes are logged in full."},
		{path: "log.format", kind: free, def: "%(asctime)s %(levelname)s: %(message)s", text: "Line format in Python's notation."},
		{path: "log.dateformat", kind: aText, text: "Time format in strftime's notation."},
		{path: "log.static_fields", kind: settings, text: "Fields added to each JSON record."},
		{path: "log.max_queue_size", kind: aNumber, unused: true},
		{path: "log.dir", kind: aPath, shown: "standard error", text: "Folder of the log file."},
		{path: "log.mode", kind: aText, text: "Mode of the log file, octal."},
		{path: "log.file_size", kind: aSize, def: "25000000", text: "Size at which the log file is rotated."},
		{path: "log.file_num", kind: aNumber, def: "4", min: 0, max: 100000, text: "How many rotated files are kept."},
		{path: "log.loggers", kind: settings, text: "Severity by part of the program."},
		{path: "log.deduplicate_heartbeat_logs", kind: aBool, def: "false", text: "Leave out repeated lines of an unchanged state."},
	}
}

// foreignKeys are sections that are understood and not served.
func foreignKeys() []key {
	const onlyEtcd = "is not supported: Haven keeps its state in etcd only; use `etcd3` with `hosts` of an existing cluster, or `etcd: {embedded: true, members: …}`"
	const role = "is a role that this version does not have yet: remove the section"
	var keys []key
	for _, s := range []string{"consul", "zookeeper", "exhibitor", "kubernetes", "raft"} {
		keys = append(keys, key{path: s, kind: free, absent: onlyEtcd})
	}
	for _, s := range []string{"vip", "ingress", "app", "redis", "backup", "citus"} {
		keys = append(keys, key{path: s, kind: free, absent: role})
	}
	return keys
}

func etcdKeys() []key {
	var keys []key
	for _, s := range []string{"etcd", "etcd3"} {
		if s == "etcd" {
			keys = append(keys, embeddedKeys()...)
		} else {
			keys = append(keys, renamed(embeddedKeys(), "etcd.", "etcd3.")...)
		}
	}
	return keys
}

func renamed(keys []key, from, to string) []key {
	for i := range keys {
		if k := &keys[i]; k.path+"." == from {
			k.path = to[:len(to)-1]
		} else {
			k.path = to + k.path[len(from):]
		}
	}
	return keys
}

func embeddedKeys() []key {
	return []key{
		{path: "etcd", kind: aSection, text: "The consensus store: embedded, or an existing etcd cluster. `etcd3` means the same."},
		{path: "etcd.embedded", kind: aBool, def: "false", reload: ReloadFixed, text: "Run an etcd member in this process."},
		{path: "etcd.members", kind: aSection, reload: ReloadRestart, text: "Name to host, or to {client, peer}; the same on every node. One, three or five."},
		{path: "etcd.members.*", kind: free, reload: ReloadRestart, text: "Host of the member (ports 2379 and 2380), or {client, peer}."},
		{path: "etcd.hosts", kind: endpoints, text: "Endpoints of an existing cluster."},
		{path: "etcd.host", kind: endpoints, text: "One endpoint."},
		{path: "etcd.port", kind: aNumber, min: 1, max: 65535, text: "Port of `host` where that has none."},
		{path: "etcd.url", kind: endpoints, text: "One endpoint as a URL."},
		{path: "etcd.proxy", kind: endpoints, text: "URL of a proxy in front of etcd; nothing else is connected to."},
		{path: "etcd.srv", kind: aText, text: "Domain whose SRV records name the members."},
		{path: "etcd.srv_suffix", kind: aText, text: "Suffix of the SRV record's service name."},
		{path: "etcd.protocol", kind: aText, def: "http", accept: []string{"http", "https"}, text: "For endpoints that are not URLs."},
		{path: "etcd.username", kind: aText, text: "User of etcd."},
		{path: "etcd.password", kind: aSecret, text: "Password of that user."},
		{path: "etcd.cacert", kind: aPath, shown: "haven.tls.cafile", text: "Authority of etcd's certificates."},
		{path: "etcd.cert", kind: aPath, shown: "haven.tls.certfile", text: "Certificate (of the client, and of an embedded member)."},
		{path: "etcd.key", kind: aPath, shown: "haven.tls.keyfile", text: "Its key."},
		{path: "etcd.use_proxies", kind: aBool, def: "false", text: "Connect only to the endpoints given, not to those that members announce."},
		{path: "etcd.token", kind: aText, shown: "scope", reload: ReloadFixed, text: "Members of a cluster with another token are refused."},
		{path: "etcd.election_timeout", kind: aTime, def: "1000ms", reload: ReloadRestart, text: "etcd's election timeout; its heartbeat is a tenth of it."},
	}
}
