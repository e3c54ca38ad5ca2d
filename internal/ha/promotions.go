package ha

import (
	"slices"

	"github.com/havenha/haven/internal/cluster"
)

// Promotions is what a member notes in its data directory of the timelines that it began itself. Two members that were
// promoted one after the other, without each other's WAL, begin timelines of the same number, at the same position
// perhaps: their histories look the same, pg_rewind finds nothing to do, and the one could never follow the other
// (PostgreSQL takes the next number that it knows to be free).
type Promotions struct {
	Member string             `json:"member"` // a copy of the data directory does not make it its own
	Begun  []cluster.Timeline `json:"begun,omitempty"`
	// Pending is the timeline that a promotion was to leave of which it is not known yet whether it happened; 0: none.
	Pending cluster.Timeline `json:"pending,omitempty"`
}

// Any tells whether the member was promoted on its data, or may have been.
func (p Promotions) Any() bool { return len(p.Begun) > 0 || p.Pending != 0 }

// Begin notes that the member began that timeline.
func (p *Promotions) Begin(tl cluster.Timeline) {
	p.Pending = 0
	if !slices.Contains(p.Begun, tl) {
		p.Begun = append(slices.Clone(p.Begun), tl)
	}
}

// Settle notes what became of the pending promotion, by the timeline on which the local WAL ends: a newer one than before
// means that it happened.
func (p *Promotions) Settle(local cluster.Timeline) {
	if local > p.Pending {
		p.Begin(local)
	}
	p.Pending = 0
}

// Twin returns a timeline that both this member and another one have begun, the other's being part of the history of the
// leader, whose timeline is remote; 0: there is none. The key history tells who began a timeline; of the newest one, which
// the leader itself has begun, that is known without it.
func (p Promotions) Twin(history []cluster.HistoryLine, local, remote cluster.Timeline) cluster.Timeline {
	if p.Pending != 0 {
		p.Settle(local)
	}
	for _, tl := range p.Begun {
		if tl == remote {
			return tl
		}
		if by := cluster.BeganBy(history, tl); tl < remote && by != "" && by != p.Member {
			return tl
		}
	}
	return 0
}
