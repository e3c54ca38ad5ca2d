package schema

// dynamicKeys are the keys of the dynamic configuration, as they stand below bootstrap.dcs.
func dynamicKeys() []Key {
	const d = "bootstrap.dcs."
	return []Key{
		{Path: d + "ttl", Kind: Duration, Def: "30", Text: "Leader lease; at least 20s, or 5s while every member is Haven."},
		{Path: d + "loop_wait", Kind: Duration, Def: "10", Text: "Longest time between two rounds."},
		{Path: d + "retry_timeout", Kind: Duration, Def: "10", Text: "How long operations on etcd and PostgreSQL are tried."},
		{Path: d + "maximum_lag_on_failover", Kind: Size, Def: "1048576", Text: "A standby further behind is not promoted."},
		{Path: d + "maximum_lag_on_syncnode", Kind: Size, Def: "-1", Text: "A synchronous standby further behind is replaced; 0 or less: never."},
		{Path: d + "max_timelines_history", Kind: Number, Def: "0", Text: "How many changes of timeline the key history keeps; 0: all. They also tell who began a timeline, by which a member that comes back after more changes than are kept is told from another that was promoted at the same position."},
		{Path: d + "primary_start_timeout", Kind: Duration, Def: "300", Text: "How long a crashed primary may take to come back before another takes over; 0: at once. It bounds the start of a primary that an operator restarts."},
		{Path: d + "primary_stop_timeout", Kind: Duration, Def: "0", Text: "In synchronous modes, how long the stop of a primary in a switchover may take before its processes are ended; 0: as long as pg_ctl_timeout."},
		{Path: d + "master_start_timeout", Kind: Duration, Text: "Older name of primary_start_timeout."},
		{Path: d + "master_stop_timeout", Kind: Duration, Text: "Older name of primary_stop_timeout."},
		{Path: d + "primary_race_backoff", Kind: Duration, Def: "0", Text: "How long a member waits with the race for leadership while WAL still comes from the old primary; 0: not at all."},
		{Path: d + "synchronous_mode", Kind: Text, Def: "off", Haven: "on", Accept: []string{"on", "off", "true", "false", "yes", "no", "1", "0", "quorum"}, Text: "off, on (named standbys) or quorum. A Haven file writes on into a new cluster; in the dynamic configuration of a running one an absent key means off."},
		{Path: d + "synchronous_mode_strict", Kind: Bool, Def: "false", Text: "Without a synchronous standby, commits wait."},
		{Path: d + "synchronous_node_count", Kind: Number, Def: "1", Min: 1, Max: 1000, Text: "How many synchronous standbys."},
		{Path: d + "failsafe_mode", Kind: Bool, Def: "false", Text: "Stay primary without etcd while every other member gives its word, again and again, not to take leadership for a `ttl`."},
		{Path: d + "check_timeline", Kind: Bool, Def: "false", Text: "A member on an older timeline may not become leader."},
		{Path: d + "pause", Kind: Bool, Def: "false", Text: "Maintenance mode: nothing is done automatically."},
		{Path: d + "member_slots_ttl", Kind: Duration, Def: "30min", Text: "How long the slot of an absent member is kept."},
		{Path: d + "slots", Kind: Free, Text: "Permanent replication slots, by name: {type: physical}, or {type: logical, database, plugin}; with cluster_type primary or standby only while the cluster is of that type."},
		{Path: d + "permanent_slots", Kind: Free, Text: "Older name of slots."},
		{Path: d + "permanent_replication_slots", Kind: Free, Text: "Older name of slots."},
		{Path: d + "ignore_slots", Kind: Free, Text: "Slots that are left alone: a list of {name, type, database, plugin}; all that is given must be equal."},
		{Path: d + "standby_cluster", Kind: Free, Text: "Makes this cluster a standby of another: {host, port, primary_slot_name} of the server to replicate from, and {restore_command, archive_cleanup_command, recovery_min_apply_delay} of its archive; create_replica_methods makes the first copy, else a base backup does. The replication user and its password must be the same there. Nobody is promoted while it stands; without it the leader is."},
		{Path: d + "postgresql.use_slots", Kind: Bool, Def: "true", Text: "Replication slots for members."},
		{Path: d + "haven.takeover", Kind: Bool, Def: "on", Inert: Inert{Instead: "a failover waits until the leader's lease has ended, or its server's exit is seen", Fits: []string{"off"}}, Text: "Fail over without waiting for the lease, in synchronous modes."},
		{Path: d + "haven.suspect_after", Kind: Duration, Def: "1s", Inert: Inert{Instead: "a failover waits until the leader's lease has ended, or its server's exit is seen"}, Text: "How long both signs of life must be missing; at least 200ms."},
		{Path: d + "haven.heartbeat", Kind: Duration, Def: "250ms", Inert: Inert{Instead: "a failover waits until the leader's lease has ended, or its server's exit is seen"}, Text: "Between agents; at most a third of suspect_after."},
		{Path: d + "haven.switchover_wait", Kind: Duration, Def: "5s", Text: "How long a switchover waits for transactions that are open when it begins; proxies that pool hold new ones meanwhile. 0: not at all."},
		{Path: d + "haven.clone_limit", Kind: Text, Def: "2 per 6h", Text: "Automatic copies of one member before it waits for a person."},
		{Path: d + "haven.hung_after", Kind: Duration, Text: "How long PostgreSQL may answer no new connection before it counts as hung and is ended; at least 3s, 0 is never. Without it: a third of ttl, at least 5s."},
		{Path: d + "haven.crash_wait", Kind: Duration, Def: "2s", Text: "How long crash recovery of a primary may take before leadership is handed over."},
	}
}
