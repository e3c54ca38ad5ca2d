// Package doctor examines a cluster as a person does who looks for what is wrong: the node itself, what nodes say of
// themselves held against each other, replication, and etcd.
//
// Examine is a pure function of what was gathered. Local and Gather look at the own host and change nothing. Secrets are
// never told: only slow, salted hashes of them are compared. Asking other nodes is left to the caller.
package doctor

import (
	"cmp"
	"slices"
)

// Severity of a finding.
type Severity string

// Warning: it works, and something will hurt one day. Critical: it hurts now, or data is at stake.
const (
	Warning  Severity = "warning"
	Critical Severity = "critical"
)

// Finding is one thing that is not as it should be.
type Finding struct {
	Code     string   `json:"code"`
	Severity Severity `json:"severity"`
	Member   string   `json:"member,omitempty"` // empty: the cluster as a whole
	Text     string   `json:"text"`
	Mend     string   `json:"mend"` // the command that mends it, or what to do
}

// Check describes what a code stands for.
type Check struct{ Code, Text string }

// Checks are all codes, in the order of the report.
func Checks() []Check {
	return []Check{
		{"two_writable", "Two members accept writes. Compared by the position of their WAL and their timeline."},
		{"no_leader", "No member answers the check of a load balancer for the primary, or in a standby cluster for its leader."},
		{"not_routed", "A running member answers neither the check for a primary nor that for a replica, or a proxy does not know it: nobody is sent there."},
		{"proxy_unreachable", "A proxy's statistics page does not answer, so that its members are not known."},
		{"api_unreachable", "A member's REST API does not answer from here."},
		{"not_examined", "A member answers, but did not let itself be examined: another program, another version, or a wrong password."},
		{"secrets_differ", "Nodes have different passwords for the same role: a change of leader would end in refused logins."},
		{"secrets_unknown", "Secrets cannot be compared, since the REST API asks for no password."},
		{"versions_differ", "Members run different versions of PostgreSQL or Haven."},
		{"clock_skew", "Clocks of members differ. Leadership does not depend on it; logs, certificates and scheduled switchovers do."},
		{"not_replicating", "A standby does not stream."},
		{"lag_network", "A standby lags because WAL reaches it slowly: sent, but not written there."},
		{"lag_sending", "A standby lags because the leader has not sent WAL: its network or its sender is the bottleneck."},
		{"lag_fsync", "A standby lags because its disk syncs slowly: written, but not flushed."},
		{"lag_replay", "A standby lags because it replays slowly: flushed, but not replayed. Replay is paused, queries are in its way, or its disk is slow."},
		{"etcd_unreachable", "A member of etcd does not answer."},
		{"etcd_quorum", "etcd has no leader, or the loss of one more member would end its quorum."},
		{"etcd_even", "etcd has an even number of members: it survives no more failures than with one less."},
		{"etcd_room", "etcd's database is close to its quota; at the quota it takes no more writes."},
		{"etcd_alarm", "etcd has raised an alarm."},
		{"etcd_slow", "etcd answers slowly, or its disk syncs slowly."},
		{"etcd_timing", "An election in etcd may take so long that the leader's lease ends meanwhile."},
		{"permissions", "A directory or a file with secrets can be read by others, or belongs to somebody else."},
		{"port_conflict", "Another program listens on an address of this node."},
		{"foreign_server", "A server of the distribution's runs beside Haven, or would start Haven's database at boot."},
		{"kill_mode", "The unit's KillMode makes systemd end PostgreSQL together with the agent."},
		{"unsafe_setting", "fsync, full_page_writes or synchronous_commit is off."},
		{"no_rewind", "pg_rewind cannot work: neither wal_log_hints nor data checksums are on."},
		{"idle_slot", "A replication slot is not used and holds back WAL."},
		{"problem", "What a node itself finds wrong, as haven status shows it."},
	}
}

// Sort orders findings: what is critical first, then in the order of Checks, then by member.
func Sort(list []Finding) {
	checks := Checks()
	place := func(code string) int { return slices.IndexFunc(checks, func(c Check) bool { return c.Code == code }) }
	slices.SortStableFunc(list, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Severity, b.Severity), cmp.Compare(place(a.Code), place(b.Code)), cmp.Compare(a.Member, b.Member))
	})
}
