package schema

import "slices"

func commonKeys() []Key {
	return slices.Concat(topKeys(), havenKeys(), []Key{
		{Path: "tags", Kind: Free, Text: "Tags published with the member: nofailover, failover_priority, nosync, sync_priority, noloadbalance, clonefrom, and any of your own."},
		{Path: "tags.replicatefrom", Kind: Text, Shown: "the leader", Text: "Member to replicate from while it streams itself; otherwise the leader is followed."},
		{Path: "tags.nostream", Kind: Bool, Def: "false", Text: "Do not stream: WAL comes from the archive only (`restore_command`). The other members keep no slot for it."},
		{Path: "ctl", Kind: Section, Text: "How commands talk to REST APIs."},
		{Path: "ctl.authentication.username", Kind: Text, Shown: "restapi's", Text: "Name for REST APIs that ask for one."},
		{Path: "ctl.authentication.password", Kind: Secret, Shown: "restapi's", Text: "Password for it."},
		{Path: "ctl.insecure", Kind: Bool, Def: "false", Text: "Do not verify certificates of REST APIs."},
		{Path: "ctl.cacert", Kind: Path, Shown: "haven.tls.cafile", Text: "Authority that signed the REST APIs' certificates."},
		{Path: "ctl.certfile", Kind: Path, Shown: "haven.tls.certfile", Text: "Client certificate."},
		{Path: "ctl.keyfile", Kind: Path, Shown: "haven.tls.keyfile", Text: "Its key."},
		{Path: "ctl.keyfile_password", Kind: Secret, Text: "Password of the key."},
		{Path: "watchdog", Kind: Section, Text: "The Linux watchdog device, which resets a host on which even the guard does not run any more."},
		{Path: "watchdog.mode", Kind: Text, Def: "automatic", Reload: ReloadRestart, Accept: []string{"off", "automatic", "required", "disable", "disabled", "auto", "require", "false"}, Text: "off, automatic (used when it can be opened) or required (no leadership without it). The guard feeds it, so it is not used where `haven.guard` is off."},
		{Path: "watchdog.device", Kind: Path, Def: "/dev/watchdog", Reload: ReloadRestart, Text: "The device."},
		{Path: "watchdog.driver", Kind: Text, Def: "default", Reload: ReloadRestart, Accept: []string{"default", "testing"}, Text: "default, or testing for a FIFO in place of the device."},
		{Path: "watchdog.safety_margin", Kind: Duration, Def: "5", Text: "How long before the end of the lease the device resets the host; -1: half of ttl."},
		{Path: "nodes", Kind: Section, Reload: ReloadRestart, Text: "Name to any of the other sections: one file for several nodes."},
		{Path: "nodes.*", Kind: Section, Text: "What differs on the node of that name; null removes a section."},
	}, logKeys(), foreignKeys())
}

func topKeys() []Key {
	return []Key{
		{Path: "scope", Kind: Text, Def: "main", Reload: ReloadFixed, Text: "Name of the cluster."},
		{Path: "name", Kind: Text, Shown: "short host name", Reload: ReloadFixed, Text: "Name of this node, unique in the cluster."},
		{Path: "namespace", Kind: Text, Def: "service", Reload: ReloadFixed, Text: "First part of every key in etcd."},
		{Path: "thread_pool_size", Kind: Number, Unused: true},
		{Path: "thread_stack_size", Kind: Size, Unused: true},
	}
}

func havenKeys() []Key {
	return []Key{
		{Path: "haven", Kind: Section, Text: "Marks the file as one in Haven format."},
		{Path: "haven.format", Kind: Number, Shown: "required", Reload: ReloadRestart, Text: "Version of the format: 1."},
		{Path: "haven.address", Kind: Host, Shown: "this node's host in etcd.members, else the host's only global address", Reload: ReloadRestart, Text: "Host part of every connect_address that is not given."},
		{Path: "haven.state_dir", Kind: Path, Shown: "/var/lib/haven as root, else $XDG_STATE_HOME/haven", Reload: ReloadRestart, Text: "Holds nodes/<scope>/<name>/ with the data of embedded etcd and the journal."},
		{Path: "haven.tls.cafile", Kind: Path, Text: "Authority of the cluster's certificates."},
		{Path: "haven.tls.certfile", Kind: Path, Text: "Certificate: the default for etcd, restapi, ctl and PostgreSQL. A section's own `certfile: null` keeps it plain."},
		{Path: "haven.tls.keyfile", Kind: Path, Text: "Its key."},
		{Path: "haven.tls.keyfile_password", Kind: Secret, Text: "Password of the key."},
		{Path: "haven.guard", Kind: Bool, Def: "on", Reload: ReloadRestart, Text: "A process of its own that ends the server when the lease ends, whatever has become of the agent. Haven does not start without it. With `off`, a server whose agent dies runs past its lease, as under Patroni."},
		{Path: "haven.guard_margin", Kind: Duration, Shown: "ttl/10, at least 1s", Text: "How long before the end of the lease the server is stopped."},
		{Path: "haven.journal_size", Kind: Size, Def: "256MB", Reload: ReloadRestart, Text: "Oldest decisions are dropped beyond it."},
	}
}

func logKeys() []Key {
	return []Key{
		{Path: "log", Kind: Section, Text: "What is logged, and how."},
		{Path: "log.type", Kind: Text, Def: "plain", Accept: []string{"plain", "json"}, Text: "plain or json."},
		{Path: "log.level", Kind: Text, Def: "INFO", Accept: []string{"debug", "info", "warn", "warning", "error", "fatal", "critical"}, Text: "Least severity that is logged."},
		{Path: "log.traceback_level", Kind: Text, Def: "ERROR", Accept: []string{"debug", "info", "warn", "warning", "error", "fatal", "critical"}, Inert: Inert{Instead: "causes stand in every line, and no traces are written", Fits: []string{"debug", "info", "warn", "warning", "error", "fatal", "critical"}}, Text: "Severity from which causes are logged in full."},
		{Path: "log.format", Kind: Free, Def: "%(asctime)s %(levelname)s: %(message)s", Text: "Line format in Python's notation; what else is said follows the message as key=value. With type json, the fields of a record: a text, or a list of names and {name: key} pairs. Without it a Haven file has lines of key=value alone."},
		{Path: "log.dateformat", Kind: Text, Shown: "2031-01-02 03:04:05,678", Text: "Format of asctime in strftime's notation."},
		{Path: "log.static_fields", Kind: Settings, Text: "Fields added to each JSON record."},
		{Path: "log.max_queue_size", Kind: Number, Unused: true},
		{Path: "log.dir", Kind: Path, Shown: "standard error", Text: "Folder of the log file: patroni.log, with a Haven file haven.log."},
		{Path: "log.mode", Kind: Text, Shown: "0640", Text: "Mode of the log file, octal."},
		{Path: "log.file_size", Kind: Size, Def: "25000000", Text: "Size at which the log file is rotated."},
		{Path: "log.file_num", Kind: Number, Def: "4", Min: 0, Max: 100000, Text: "How many rotated files are kept; 0: the file is not rotated."},
		{Path: "log.loggers", Kind: Settings, Text: "Severity by part of the program: agent, etcd, guard, postgresql, proxy, restapi, or haven for all of them. Patroni's modules mean what does the same here: patroni, patroni.ha, patroni.dcs, patroni.watchdog, patroni.postgresql, patroni.api."},
		{Path: "log.deduplicate_heartbeat_logs", Kind: Bool, Def: "false", Inert: Inert{Instead: "a line is written when a decision changes, not in every round", Fits: []string{"true"}}, Text: "Leave out repeated lines of an unchanged state."},
	}
}

// foreignKeys are sections that are understood and not served.
func foreignKeys() []Key {
	const onlyEtcd = "is not supported: Haven keeps its state in etcd only; use `etcd3` with `hosts` of an existing cluster, or `etcd: {embedded: true, members: …}`"
	const role = "is a role that this version does not have yet: remove the section"
	var keys []Key
	for _, s := range []string{"consul", "zookeeper", "exhibitor", "kubernetes", "raft"} {
		keys = append(keys, Key{Path: s, Kind: Free, Absent: onlyEtcd})
	}
	for _, s := range []string{"vip", "ingress", "app", "redis", "backup", "citus"} {
		keys = append(keys, Key{Path: s, Kind: Free, Absent: role})
	}
	return keys
}

func etcdKeys() []Key {
	var keys []Key
	for _, s := range []string{"etcd", "etcd3"} {
		if s == "etcd" {
			keys = append(keys, embeddedKeys()...)
		} else {
			keys = append(keys, renamed(embeddedKeys(), "etcd.", "etcd3.")...)
		}
	}
	return keys
}

func renamed(keys []Key, from, to string) []Key {
	for i := range keys {
		if k := &keys[i]; k.Path+"." == from {
			k.Path = to[:len(to)-1]
		} else {
			k.Path = to + k.Path[len(from):]
		}
	}
	return keys
}

func embeddedKeys() []Key {
	return []Key{
		{Path: "etcd", Kind: Section, Text: "The consensus store: embedded, or an existing etcd cluster. `etcd3` means the same."},
		{Path: "etcd.embedded", Kind: Bool, Def: "false", Reload: ReloadFixed, Text: "Run an etcd member in this process."},
		{Path: "etcd.members", Kind: Section, Reload: ReloadRestart, Text: "Name to host, or to {client, peer}; the same on every node. One, three or five."},
		{Path: "etcd.members.*", Kind: Free, Reload: ReloadRestart, Text: "Host of the member (ports 2379 and 2380), or {client, peer}."},
		{Path: "etcd.hosts", Kind: Endpoints, Reload: ReloadRestart, Text: "Endpoints of an existing cluster."},
		{Path: "etcd.host", Kind: Endpoints, Reload: ReloadRestart, Text: "One endpoint."},
		{Path: "etcd.port", Kind: Number, Min: 1, Max: 65535, Reload: ReloadRestart, Text: "Port of `host` where that has none."},
		{Path: "etcd.url", Kind: Endpoints, Reload: ReloadRestart, Text: "One endpoint as a URL."},
		{Path: "etcd.proxy", Kind: Endpoints, Reload: ReloadRestart, Text: "URL of a proxy in front of etcd; nothing else is connected to."},
		{Path: "etcd.srv", Kind: Text, Reload: ReloadRestart, Text: "Domain whose SRV records name the members: the first that is there of _etcd-client-ssl._tcp, _etcd-client._tcp, _etcd-ssl._tcp, _etcd._tcp, and of the peers _etcd-server-ssl._tcp, _etcd-server._tcp. Those with -ssl mean https. Looked up again every minute."},
		{Path: "etcd.srv_suffix", Kind: Text, Reload: ReloadRestart, Text: "Suffix of the service in the records' names, after a hyphen: main makes _etcd-client-main._tcp."},
		{Path: "etcd.protocol", Kind: Text, Def: "http", Accept: []string{"http", "https"}, Reload: ReloadRestart, Text: "For endpoints that are not URLs."},
		{Path: "etcd.username", Kind: Text, Reload: ReloadRestart, Text: "User of etcd."},
		{Path: "etcd.password", Kind: Secret, Reload: ReloadRestart, Text: "Password of that user."},
		{Path: "etcd.cacert", Kind: Path, Shown: "haven.tls.cafile", Reload: ReloadRestart, Text: "Authority of etcd's certificates."},
		{Path: "etcd.cert", Kind: Path, Shown: "haven.tls.certfile", Reload: ReloadRestart, Text: "Certificate (of the client, and of an embedded member)."},
		{Path: "etcd.key", Kind: Path, Shown: "haven.tls.keyfile", Reload: ReloadRestart, Text: "Its key."},
		{Path: "etcd.use_proxies", Kind: Bool, Def: "false", Reload: ReloadRestart, Text: "Connect only to the endpoints given, not to those that members announce."},
		{Path: "etcd.token", Kind: Text, Shown: "scope", Reload: ReloadFixed, Text: "Members of a cluster with another token are refused."},
		{Path: "etcd.election_timeout", Kind: Duration, Def: "1000ms", Reload: ReloadRestart, Text: "etcd's election timeout; its heartbeat is a tenth of it."},
	}
}
