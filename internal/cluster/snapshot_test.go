package cluster

import (
	"slices"
	"testing"
	"time"
)

func TestNewestLines(t *testing.T) {
	lines := []HistoryLine{{Timeline: 1, NewLeader: "a"}, {Timeline: 2, NewLeader: "b"}, {Timeline: 3, NewLeader: "c"}}
	for most, want := range map[int]int{-1: 3, 0: 3, 1: 1, 2: 2, 3: 3, 9: 3} {
		if got := NewestLines(lines, most); !slices.Equal(got, lines[3-want:]) {
			t.Errorf("the newest %d are %+v", most, got)
		}
	}
	if got := NewestLines(nil, 2); len(got) != 0 {
		t.Errorf("of none: %+v", got)
	}
	// Who began a timeline is known by the line before.
	if kept := NewestLines(lines, 2); BeganBy(kept, 3) != "b" || BeganBy(kept, 2) != "" || LastTimeline(kept) != 4 {
		t.Errorf("began by %q and %q, last %d", BeganBy(kept, 3), BeganBy(kept, 2), LastTimeline(kept))
	}
}

// TestRequestsForTheSame: a request is the same if it asks for the same at the same time, and a handover meets the one that it carries out.
func TestRequestsForTheSame(t *testing.T) {
	now := time.Unix(1000, 0)
	soon, again := now.Add(time.Hour), now.Add(time.Hour).UTC()
	plain := &Failover{Leader: "a", Candidate: "b"}
	tonight := &Failover{Leader: "a", Candidate: "b", ScheduledAt: &soon}
	for _, c := range []struct {
		one, other *Failover
		same       bool
	}{
		{plain, &Failover{Leader: "a", Candidate: "b", ModRev: 7}, true},
		{plain, &Failover{Leader: "a", Candidate: "c"}, false},
		{plain, &Failover{Leader: "c", Candidate: "b"}, false},
		{plain, tonight, false},
		{tonight, &Failover{Leader: "a", Candidate: "b", ScheduledAt: &again}, true},
		{tonight, &Failover{Leader: "a", Candidate: "b", ScheduledAt: &now}, false},
		{plain, nil, false},
		{nil, &Failover{}, true},
	} {
		if c.one.SameAs(c.other) != c.same || c.other.SameAs(c.one) != c.same {
			t.Errorf("%+v and %+v: want %v", c.one, c.other, c.same)
		}
	}
	for _, c := range []struct {
		asked *Failover
		at    time.Time
		met   bool
	}{
		{plain, now, true},
		{&Failover{Leader: "a"}, now, true},
		{&Failover{Leader: "a", Candidate: "c"}, now, false},
		{tonight, now, false},
		{tonight, soon, true},
		{nil, now, false},
	} {
		if c.asked.MetBy("b", c.at) != c.met {
			t.Errorf("%+v at %s: want %v", c.asked, c.at, c.met)
		}
	}
}
