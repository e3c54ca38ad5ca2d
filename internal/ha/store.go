package ha

import (
	"maps"
	"slices"

	"github.com/havenha/haven/internal/cluster"
)

// StoreOf is what decisions need of a snapshot. A request counts as due: whether its time has come is for who has a clock.
func StoreOf(s cluster.Snapshot) Store {
	v := Store{
		Known: true, Revision: s.Revision, Initialize: s.Initialize, HasConfig: s.Config != nil && s.Config.Raw != nil,
		Leader: s.Leader, Sync: s.Sync, Timeline: cluster.LastTimeline(s.History),
	}
	if s.Status != nil {
		v.Optime = s.Status.Optime
	}
	if t := s.Term; t != nil {
		v.Term = &Term{Number: t.Number, Holder: t.Holder, State: t.State, Fence: t.Fence, ModRev: t.ModRev, Binds: t.Binds(s.Leader), Cause: t.Cause}
	}
	if f := s.Failover; !f.Empty() {
		v.Failover = &Request{Leader: f.Leader, Candidate: f.Candidate, Due: true, ModRev: f.ModRev}
	}
	v.Failsafe = slices.Sorted(maps.Keys(s.Failsafe))
	for _, m := range s.Members {
		v.Members = append(v.Members, memberOf(m))
	}
	return v
}

// ReplicateFrom is the tag replicatefrom; empty: the leader.
func ReplicateFrom(tags map[string]any) string {
	from, _ := tags["replicatefrom"].(string)
	return from
}

func memberOf(m cluster.Member) Member {
	out := Member{
		Name: m.Name, Role: m.Role, State: m.State, Haven: m.Haven != nil, Lease: m.Lease,
		MayLead: m.MayLead(), Priority: m.Priority(), MaySync: m.MaySync(), SyncPriority: m.SyncPriority(),
		CloneFrom: m.Tag("clonefrom"), Position: m.Position(), Timeline: m.Timeline,
		Checkpoint: m.CheckpointAfterPromote == nil, Streaming: m.ReplicationState == "streaming", NoStream: m.Tag("nostream"),
		ReplicateFrom: ReplicateFrom(m.Tags),
	}
	if m.Haven != nil {
		out.Health = m.Haven.Health
	}
	return out
}
