package cluster

import (
	"slices"
	"testing"
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
