package ha

import (
	"strings"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// RemotePrefix begins the name of an upstream that is no member: the server, or the archive, of another cluster that this one is a
// standby of (standby_cluster). Names of members contain no slash.
const RemotePrefix = "/"

// Remote tells whether an upstream is one of another cluster.
func Remote(upstream string) bool { return strings.HasPrefix(upstream, RemotePrefix) }

// standby tells that the whole cluster is a standby of another: its leader is a standby too, and nobody is promoted. Its term stays
// claimed; it is promoted when the cluster becomes one of its own.
func (p Policy) standby() bool { return p.Remote != "" }

// leadsStandbys tells that the leader is known to run as a standby leader, so that others may follow it.
func leadsStandbys(v View) bool {
	c, ok := v.Store.Member(v.Store.Leader.Name)
	return ok && v.Policy.standby() && c.Role == cluster.RoleStandbyLeader && c.State == cluster.StateRunning // guard: leads-standbys@2,3,4
}

// standbyLeader tells whether this member leads a standby cluster.
func (v View) standbyLeader() bool {
	l := v.Store.Leader
	return v.Policy.standby() && v.Server.InRecovery && l != nil && l.Name == v.Me.Name
}

// keepRemote looks after the leader of a standby cluster.
func keepRemote(v View, m *Memory) Decision {
	switch {
	case v.Server.Upstream != v.Policy.Remote: // guard: keep-remote
		return act(Action{Kind: Follow, Member: v.Policy.Remote}, ReasonFollow, "following the remote cluster %s", v.Policy.Remote)
	case v.Store.Sync != nil: // guard: keep-remote-sync
		return dropSync() // of a leader that was lost on its way there
	case !v.Store.Initialize.Valid() || !v.Store.HasConfig:
		return act(Action{Kind: Repair}, ReasonRepair, "the store lacks the cluster's identifier or configuration: writing it again")
	}
	if d, ok := switchRequest(v, m); ok {
		return d
	}
	return again(wait(v, ReasonStandbyLeading, "no action. I am (%s), the standby leader with the lock", v.Me.Name), time.Second)
}

// demoteCluster makes the primary of a cluster that has become a standby of another stop in an orderly way. What follows: /sync is
// deleted, the server is started as a standby of the remote cluster, and the leader key is given up for a term of that kind.
func demoteCluster(v View, m *Memory) (Decision, bool) {
	if !v.Policy.standby() || v.Policy.Pause { // guard: demote-cluster@1,2
		return Decision{}, false
	}
	return act(Action{Kind: StopFast}, ReasonDemoteCluster, "stopping the primary: standby_cluster makes this cluster a standby of %s", v.Policy.Remote), true
}

func dropSync() Decision {
	const text = "Disabled synchronous replication"
	return act(Action{Kind: SetSync, Sync: &SyncStep{Delete: true, Text: text}}, ReasonSync, text)
}

// startRemote starts the stopped server of a standby cluster's leader.
func startRemote(v View) Decision {
	if v.Store.Sync != nil { // guard: remote-sync-first
		return dropSync()
	}
	return act(Action{Kind: Start, Member: v.Policy.Remote}, ReasonStartInPlace, "starting as a standby leader because i had the session lock")
}
