package ha

import (
	"testing"

	"github.com/havenha/haven/internal/cluster"
)

// TestAwaited goes through whom a survey waits for.
func TestAwaited(t *testing.T) {
	haven := &cluster.HavenField{}
	replica := cluster.Member{Name: "b", State: cluster.StateRunning, Role: cluster.RoleReplica, Haven: haven}
	with := func(m cluster.Member, change func(*cluster.Member)) cluster.Member {
		change(&m)
		return m
	}
	barred := with(replica, func(m *cluster.Member) { m.Tags = map[string]any{"nofailover": true} })
	primary := with(replica, func(m *cluster.Member) { m.Role = cluster.RolePrimary })
	voters := &cluster.Sync{Leader: "a", Standbys: []string{"b"}}
	for _, c := range []struct {
		name              string
		m                 cluster.Member
		alive, led        bool
		sync              *cluster.Sync
		leads, pause, out bool
	}{
		{"a standby that is alive", replica, true, false, nil, false, false, true},
		{"one whose key is gone", replica, false, false, nil, false, false, false},
		{"one that may not lead", barred, true, false, nil, false, false, false},
		{"one that may not lead, and has every commit", barred, true, false, voters, false, false, true},
		{"one that has stopped", with(replica, func(m *cluster.Member) { m.State = cluster.StateStopped }), true, false, nil, false, false, false},
		{"one that is being started", with(replica, func(m *cluster.Member) { m.State = cluster.StateStarting }), true, false, nil, false, false, true},
		{"a leader asks a synchronous standby", replica, true, false, voters, true, false, true},
		{"a leader asks one that is lost", replica, false, false, voters, true, false, false},
		{"a leader asks another standby", replica, true, false, nil, true, false, false},
		{"the last leader, whose lease has ended", primary, false, true, nil, false, false, false},
		{"the last leader, whose lease lasts", primary, true, true, nil, false, false, true},
		{"the last leader, which has stopped", with(primary, func(m *cluster.Member) { m.State = cluster.StateStopped }), true, true, nil, false, false, false},
		{"the last leader, which is a standby by now", replica, true, true, nil, false, false, true},
		{"the same, and may not lead", barred, true, true, nil, false, false, false},
		{"the last leader in pause", primary, false, true, nil, false, true, true},
		{"the last leader, which knows of a pause that is over", with(primary, func(m *cluster.Member) { m.Pause = true }), false, true, nil, false, false, true},
		{"Patroni's", with(primary, func(m *cluster.Member) { m.Haven = nil }), false, true, nil, false, false, true},
	} {
		s := cluster.Snapshot{Sync: c.sync}
		if c.alive {
			s.Members = []cluster.Member{c.m}
		}
		last := "a"
		if c.led {
			last = "b"
		}
		if got := Awaited(c.m, s, last, c.leads, c.pause); got != c.out {
			t.Errorf("%s: awaited %v, want %v", c.name, got, c.out)
		}
	}
}

// TestSufficient goes through what a leader needs to know before it hands over.
func TestSufficient(t *testing.T) {
	answer := func(name string, mayLead bool) Answer { return Answer{Name: name, Reachable: true, MayLead: mayLead} }
	two, quorum := &cluster.Sync{Leader: "a", Standbys: []string{"b", "c"}}, &cluster.Sync{Leader: "a", Standbys: []string{"b", "c", "d"}, Quorum: 1}
	member := func(name, health string) cluster.Member {
		return cluster.Member{Name: name, Haven: &cluster.HavenField{Health: health}}
	}
	members := []cluster.Member{member("b", HealthOK), {Name: "c"}, member("d", ""), member("sick", HealthFull)}
	sick := &cluster.Sync{Leader: "a", Standbys: []string{"b", "sick"}}
	for _, c := range []struct {
		name    string
		sync    *cluster.Sync
		answers []Answer
		want    bool
	}{
		{"nobody", two, nil, false},
		{"one of two, each of whom has every commit", two, []Answer{answer("b", true)}, true},
		{"one of Patroni's", two, []Answer{answer("c", true)}, true},
		{"one that may not lead", two, []Answer{answer("b", false)}, false},
		{"one that may not lead, and one that may", two, []Answer{answer("b", false), answer("c", true)}, true},
		{"one that does not answer", two, []Answer{{Name: "b", MayLead: true}}, false},
		{"one that is not synchronous", two, []Answer{answer("d", true)}, false},
		{"one that is sick", sick, []Answer{answer("sick", true)}, false},
		{"one that is sick, and one that is well", sick, []Answer{answer("sick", true), answer("b", true)}, true},
		{"one that is gone", &cluster.Sync{Leader: "a", Standbys: []string{"gone"}}, []Answer{answer("gone", true)}, false},
		{"one of a quorum", quorum, []Answer{answer("b", true)}, false},
		{"enough of a quorum", quorum, []Answer{answer("b", true), answer("d", false)}, true},
		{"without a record", nil, []Answer{answer("b", true)}, false},
	} {
		if got := Sufficient(cluster.Snapshot{Sync: c.sync, Members: members}, c.answers); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
