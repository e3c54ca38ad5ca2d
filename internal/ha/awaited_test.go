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
