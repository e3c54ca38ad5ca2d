package wal_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/postgres/wal"
)

func TestDiverged(t *testing.T) {
	line := func(tl cluster.Timeline, lsn cluster.LSN) cluster.HistoryLine {
		return cluster.HistoryLine{Timeline: tl, LSN: lsn}
	}
	type h = []cluster.HistoryLine
	for _, c := range []struct {
		name       string
		local      h
		localTL    cluster.Timeline
		end        cluster.LSN
		wasPrimary bool
		remote     h
		remoteTL   cluster.Timeline
		want       bool
	}{
		{"same timeline, standby", nil, 1, 100, false, nil, 1, false},
		{"same timeline, both primaries", h{line(1, 50)}, 2, 100, true, h{line(1, 50)}, 2, true},
		{"same number from two promotions", h{line(1, 50)}, 2, 100, false, h{line(1, 60)}, 2, true},
		{"local promotion unknown to the primary", h{line(1, 50)}, 2, 100, true, h{line(1, 60), line(2, 70)}, 3, true},
		{"standby behind the switch", nil, 1, 40, false, h{line(1, 50)}, 2, false},
		{"standby at the switch", nil, 1, 50, false, h{line(1, 50)}, 2, false},
		{"standby past the switch", nil, 1, 51, false, h{line(1, 50)}, 2, true},
		{"primary stopped cleanly, all was sent", nil, 1, 50, true, h{line(1, 50)}, 2, false},
		{"primary past the switch", nil, 1, 51, true, h{line(1, 50)}, 2, true},
		{"primary before the switch", nil, 1, 49, true, h{line(1, 50)}, 2, true},
		{"end unknown", nil, 1, 0, false, h{line(1, 50)}, 2, true},
		{"two switches on, behind the first", nil, 1, 40, false, h{line(1, 50), line(2, 70)}, 3, false},
		{"middle timeline behind its switch", h{line(1, 50)}, 2, 60, false, h{line(1, 50), line(2, 70)}, 3, false},
		{"timeline that the primary skipped", h{line(1, 50)}, 2, 60, false, h{line(1, 50), line(3, 70)}, 4, true},
		{"local newer", h{line(1, 50)}, 2, 60, false, nil, 1, true},
		{"other number from the same point", h{line(1, 50)}, 2, 60, false, h{line(1, 50)}, 3, true},
		{"longer local history", h{line(1, 50), line(2, 60)}, 3, 70, false, h{line(1, 50)}, 4, true},
		{"timeline unknown", nil, 0, 10, false, nil, 1, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, why := wal.Diverged(c.local, c.localTL, c.end, c.wasPrimary, c.remote, c.remoteTL)
			if d := cmp.Diff(c.want, got); d != "" || why == "" {
				t.Errorf("diverged: %v (%s)", got, why)
			}
		})
	}
}
