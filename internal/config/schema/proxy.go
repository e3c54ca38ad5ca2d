package schema

func proxyKeys() []Key {
	const pooled = "belongs to the pooled modes, which this version does not have: remove it; connections are passed through as they are (mode tcp)"
	keys := []Key{
		{Path: "proxy", Kind: Section, Text: "Ports that lead to the primary and to the replicas."},
		{Path: "proxy.address", Kind: Host, Def: "*", Reload: ReloadRestart, Text: "Host part of the default listeners."},
		{Path: "proxy.listeners", Kind: Sections, Shown: "5000 to the primary, 5001 to replicas", Text: "The ports; given, it replaces the default."},
		{Path: "proxy.listeners[].listen", Kind: Address, Shown: "required", Text: "Address and port."},
		{Path: "proxy.listeners[].target", Kind: Text, Shown: "required", Accept: []string{"primary", "replica", "split"}, Text: "primary or replica."},
		{Path: "proxy.stats", Kind: Section, Text: "Statistics: page, JSON, metrics; null: none."},
		{Path: "proxy.stats.listen", Kind: Address, Shown: "<proxy.address>:7000", Reload: ReloadNow, Text: "Address and port."},
		{Path: "proxy.stats.allow", Kind: Networks, Def: "private", Text: "Networks that may read it; private: loopback, RFC 1918 and fc00::/7."},
		{Path: "proxy.stats.authentication.username", Kind: Text, Text: "Name that it asks for."},
		{Path: "proxy.stats.authentication.password", Kind: Secret, Text: "Password that it asks for."},
		{Path: "proxy.discover", Kind: Text, Def: "etcd", Reload: ReloadRestart, Accept: []string{"etcd", "rest"}, Text: "Where the members are learnt: etcd, or rest (poll `members`)."},
		{Path: "proxy.members", Kind: Texts, Reload: ReloadRestart, Text: "REST addresses of the members, with discover: rest."},
	}
	for _, p := range []string{"proxy.", "proxy.listeners[]."} {
		keys = append(keys,
			Key{Path: p + "mode", Kind: Text, Def: "tcp", Accept: []string{"tcp", "session", "transaction", "statement", "split"}, Text: "tcp."},
			Key{Path: p + "hold_timeout", Kind: Duration, Def: "30s", Text: "How long a connection waits for a writable primary."},
			Key{Path: p + "max_lag", Kind: Size, Def: "16MB", Text: "Replicas further behind get no new sessions."},
			Key{Path: p + "fallback", Kind: Text, Def: "primary", Accept: []string{"primary", "none"}, Text: "Of target replica, when there is no replica."},
			Key{Path: p + "admit", Kind: Rate, Def: "200", Text: "New connections a second to one server after a change of leader."},
			Key{Path: p + "connect_timeout", Kind: Duration, Def: "5s", Text: "For connecting to a server."},
			Key{Path: p + "idle_timeout", Kind: Duration, Def: "off", Text: "A session without traffic for so long is closed."},
			Key{Path: p + "pool", Kind: Free, Absent: pooled})
	}
	for _, s := range []string{"auth_query", "auth_file", "auth_type", "databases", "users", "tls"} {
		keys = append(keys, Key{Path: "proxy." + s, Kind: Free, Absent: pooled})
	}
	return keys
}
