package config

func proxyKeys() []key {
	const pooled = "belongs to the pooled modes, which this version does not have: remove it; connections are passed through as they are (mode tcp)"
	keys := []key{
		{path: "proxy", kind: aSection, text: "Ports that lead to the primary and to the replicas."},
		{path: "proxy.address", kind: aHost, def: "*", reload: ReloadRestart, text: "Host part of the default listeners."},
		{path: "proxy.listeners", kind: objects, shown: "5000 to the primary, 5001 to replicas", text: "The ports; given, it replaces the default."},
		{path: "proxy.listeners[].listen", kind: anAddress, shown: "required", text: "Address and port."},
		{path: "proxy.listeners[].target", kind: aText, shown: "required", accept: []string{"primary", "replica", "split"}, text: "primary or replica."},
		{path: "proxy.stats", kind: aSection, text: "Statistics: page, JSON, metrics; null: none."},
		{path: "proxy.stats.listen", kind: anAddress, shown: "<proxy.address>:7000", reload: ReloadNow, text: "Address and port."},
		{path: "proxy.stats.allow", kind: networks, def: "private", text: "Networks that may read it; private: loopback, RFC 1918 and fc00::/7."},
		{path: "proxy.stats.authentication.username", kind: aText, text: "Name that it asks for."},
		{path: "proxy.stats.authentication.password", kind: aSecret, text: "Password that it asks for."},
		{path: "proxy.discover", kind: aText, def: "etcd", reload: ReloadRestart, accept: []string{"etcd", "rest"}, text: "Where the members are learnt: etcd, or rest (poll `members`)."},
		{path: "proxy.members", kind: texts, reload: ReloadRestart, text: "REST addresses of the members, with discover: rest."},
	}
	for _, p := range []string{"proxy.", "proxy.listeners[]."} {
		keys = append(keys,
			key{path: p + "mode", kind: aText, def: "tcp", accept: []string{"tcp", "session", "transaction", "statement", "split"}, text: "tcp."},
			key{path: p + "hold_timeout", kind: aTime, def: "30s", text: "How long a connection waits for a writable primary."},
			key{path: p + "max_lag", kind: aSize, def: "16MB", text: "Replicas further behind get no new sessions."},
			key{path: p + "fallback", kind: aText, def: "primary", accept: []string{"primary", "none"}, text: "Of target replica, when there is no replica."},
			key{path: p + "admit", kind: aRate, def: "200", text: "New connections a second to one server after a change of leader."},
			key{path: p + "connect_timeout", kind: aTime, def: "5s", text: "For connecting to a server."},
			key{path: p + "idle_timeout", kind: aTime, def: "off", text: "A session without traffic for so long is closed."},
			key{path: p + "pool", kind: free, absent: pooled})
	}
	for _, s := range []string{"auth_query", "auth_file", "auth_type", "databases", "users", "tls"} {
		keys = append(keys, key{path: "proxy." + s, kind: free, absent: pooled})
	}
	return keys
}
