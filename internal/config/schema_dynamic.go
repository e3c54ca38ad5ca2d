package config

// dynamicKeys are the keys of the dynamic configuration, as they stand below bootstrap.dcs.
func dynamicKeys() []key {
	const d = "bootstrap.dcs."
	return []key{
		{path: d + "ttl", kind: aTime, def: "30", text: "Leader lease; at least 20s, or 5s while every member is Haven."},
		{path: d + "loop_wait", kind: aTime, def: "10", text: "Longest time between two rounds."},
		{path: d + "retry_timeout", kind: aTime, def: "10", text: "How long operations on etcd and PostgreSQL are tried."},
		{path: d + "maximum_lag_on_failover", kind: aSize, def: "1048576", text: "A standby further behind is not promoted."},
		{path: d + "maximum_lag_on_syncnode", kind: aSize, def: "-1", text: "A synchronous standby further behind is replaced; 0 or less: never."},
		{path: d + "max_timelines_history", kind: aNumber, def: "0", text: "How many changes of timeline are kept; 0: all."},
		{path: d + "primary_start_timeout", kind: aTime, def: "300", text: "How long a crashed primary may take to come back before another takes over; 0: at once."},
		{path: d + "primary_stop_timeout", kind: aTime, def: "0", text: "In synchronous mode, how long a stop may take before the server is killed; 0: no limit."},
		{path: d + "master_start_timeout", kind: aTime, text: "Older name of primary_start_timeout."},
		{path: d + "master_stop_timeout", kind: aTime, text: "Older name of primary_stop_timeout."},
		{path: d + "primary_race_backoff", kind: aTime, def: "0", text: "Delay of the race for leadership while the old primary still writes WAL."},
		{path: d + "synchronous_mode", kind: aText, def: "off", haven: "on", accept: []string{"on", "off", "true", "false", "yes", "no", "1", "0", "quorum"}, text: "off, on (named standbys) or quorum."},
		{path: d + "synchronous_mode_strict", kind: aBool, def: "false", text: "Without a synchronous standby, commits wait."},
		{path: d + "synchronous_node_count", kind: aNumber, def: "1", min: 1, max: 1000, text: "How many synchronous standbys."},
		{path: d + "failsafe_mode", kind: aBool, def: "false", text: "Stay primary without etcd while every member agrees."},
		{path: d + "check_timeline", kind: aBool, def: "false", text: "A member on an older timeline may not become leader."},
		{path: d + "pause", kind: aBool, def: "false", text: "Maintenance mode: nothing is done automatically."},
		{path: d + "member_slots_ttl", kind: aTime, def: "30min", text: "How long the slot of an absent member is kept."},
		{path: d + "slots", kind: free, text: "Permanent replication slots."},
		{path: d + "permanent_slots", kind: free, text: "Older name of slots."},
		{path: d + "permanent_replication_slots", kind: free, text: "Older name of slots."},
		{path: d + "ignore_slots", kind: free, text: "Slots that are left alone."},
		{path: d + "standby_cluster", kind: free, absent: "makes this cluster a standby of another, which this version cannot do: without it, a cluster of its own would be made"},
		{path: d + "postgresql.use_slots", kind: aBool, def: "true", text: "Replication slots for members."},
		{path: d + "haven.takeover", kind: aBool, def: "on", text: "Fail over without waiting for the lease, in synchronous modes."},
		{path: d + "haven.suspect_after", kind: aTime, def: "1s", text: "How long both signs of life must be missing; at least 200ms."},
		{path: d + "haven.heartbeat", kind: aTime, def: "250ms", text: "Between agents; at most a third of suspect_after."},
		{path: d + "haven.switchover_wait", kind: aTime, def: "5s", text: "How long a switchover waits for open transactions."},
		{path: d + "haven.clone_limit", kind: aText, def: "2 per 6h", text: "Automatic copies of one member before it waits for a person."},
		{path: d + "haven.crash_wait", kind: aTime, def: "2s", text: "How long crash recovery of a primary may take before leadership is handed over."},
	}
}
