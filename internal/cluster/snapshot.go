package cluster

import (
	"encoding/json"
	"slices"
	"strings"
	"time"
)

// Snapshot is everything that the store holds about one cluster, read at one revision. A nil pointer or a zero
// revision means that the key is absent. A failed read is not a Snapshot: it is an error, and absence may not be
// concluded from it.
type Snapshot struct {
	// ClusterID is the id of the etcd cluster that answered, RaftTerm its raft term, Revision the revision read.
	ClusterID uint64
	RaftTerm  uint64
	Revision  int64

	Initialize *Initialize
	Config     *Config
	Leader     *Leader
	Members    []Member // sorted by name
	Status     *Status
	Failover   *Failover
	Sync       *Sync
	History    []HistoryLine
	Failsafe   map[string]string
	Term       *Term
	Hold       *Hold
	Events     []Event // haven/events, oldest first
}

// Member returns the member of that name.
func (s Snapshot) Member(name string) (Member, bool) {
	for _, m := range s.Members {
		if m.Name == name {
			return m, true
		}
	}
	return Member{}, false
}

// Initialize is the key initialize: the system identifier, or empty while a member bootstraps the cluster.
type Initialize struct {
	SystemID string `json:"system_id"`
	ModRev   int64  `json:"mod_rev"`
}

// Valid tells whether the key holds a system identifier (at least ten digits, as Patroni judges it).
func (i *Initialize) Valid() bool {
	if i == nil || len(i.SystemID) < 10 {
		return false
	}
	return strings.Trim(i.SystemID, "0123456789") == ""
}

// Config is the key config: the dynamic configuration as the operator wrote it.
type Config struct {
	Raw    json.RawMessage `json:"raw"`
	ModRev int64           `json:"mod_rev"`
}

// Leader is the key leader.
type Leader struct {
	Name      string `json:"name"`
	Lease     int64  `json:"lease"`
	CreateRev int64  `json:"create_rev"`
	ModRev    int64  `json:"mod_rev"`
}

// Status is the key status, written by the leader.
type Status struct {
	Optime      LSN            `json:"optime"`
	Slots       map[string]LSN `json:"slots,omitempty"`
	RetainSlots []string       `json:"retain_slots,omitempty"`
	ModRev      int64          `json:"-"`
}

// Failover is the key failover: a requested switchover (Leader set) or failover (only Candidate set).
type Failover struct {
	Leader      string     `json:"leader,omitempty"`
	Candidate   string     `json:"member,omitempty"`
	ScheduledAt *time.Time `json:"scheduled_at,omitempty"`
	ModRev      int64      `json:"-"`
}

// Empty tells whether nothing is requested: the key is absent or holds {}.
func (f *Failover) Empty() bool { return f == nil || (f.Leader == "" && f.Candidate == "") }

// SameAs tells whether another request asks for the same, at the same time.
func (f *Failover) SameAs(o *Failover) bool {
	if f.Empty() || o.Empty() {
		return f.Empty() && o.Empty()
	}
	at, other := f.ScheduledAt, o.ScheduledAt
	return f.Leader == o.Leader && f.Candidate == o.Candidate && (at == nil) == (other == nil) && (at == nil || at.Equal(*other))
}

// MetBy tells whether a handover to that member does at that time what is asked for.
func (f *Failover) MetBy(name string, now time.Time) bool {
	return !f.Empty() && (f.Candidate == "" || f.Candidate == name) && (f.ScheduledAt == nil || !f.ScheduledAt.After(now))
}

// Hold is the key haven/hold: a leader that is about to stop its server asks proxies to begin no transactions for the moment.
type Hold struct {
	Term uint64 `json:"term"` // the leader's
	// Seconds is how long, by the proxy's own clock, from when it has first seen the key; a newer term ends it before.
	Seconds float64 `json:"seconds"`
	ModRev  int64   `json:"-"`
}

// Sync is the key sync: who held every acknowledged commit when it was written.
type Sync struct {
	Leader string `json:"leader"`
	// Standbys are the confirmed synchronous standbys, or in quorum mode the voters, sorted.
	Standbys []string `json:"standbys"`
	// Quorum is 0 in priority mode; in quorum mode, the number of other voters whose vote a candidate needs.
	Quorum int   `json:"quorum"`
	ModRev int64 `json:"mod_rev"`
}

// Active tells whether synchronous mode is in force: the key exists and names a leader.
func (s *Sync) Active() bool { return s != nil && s.Leader != "" }

// Has tells whether name is one of the standbys, ignoring case as PostgreSQL does for application names.
func (s *Sync) Has(name string) bool {
	return s != nil && slices.ContainsFunc(s.Standbys, func(n string) bool { return strings.EqualFold(n, name) })
}

// HistoryLine is one change of timeline in the key history.
type HistoryLine struct {
	Timeline  Timeline `json:"timeline"`
	LSN       LSN      `json:"lsn"`
	Reason    string   `json:"reason"`
	Timestamp string   `json:"timestamp,omitempty"`
	NewLeader string   `json:"new_leader,omitempty"`
}

// LastTimeline is the cluster's timeline according to its history key; zero means unknown.
func LastTimeline(h []HistoryLine) Timeline {
	if h == nil {
		return 0
	}
	if len(h) == 0 {
		return 1
	}
	return h[len(h)-1].Timeline + 1
}

// HistoryAfter is the key history after a promotion of leader: the lines of its own history file, with what the key knew
// of the older ones. The last line is its own: an older one of the same timeline and position may be of a twin. It changes
// lines in place.
func HistoryAfter(lines, known []HistoryLine, leader string) []HistoryLine {
	for i := range lines {
		for _, old := range known {
			if old.Timeline == lines[i].Timeline && old.LSN == lines[i].LSN {
				lines[i] = old
			}
		}
	}
	if n := len(lines); n > 0 {
		lines[n-1].NewLeader = leader
	}
	return lines
}

// NewestLines are the last lines of a history, at most as many as that; 0 or less: all.
func NewestLines(lines []HistoryLine, most int) []HistoryLine {
	if most <= 0 {
		return lines
	}
	return lines[max(0, len(lines)-most):]
}

// BeganBy tells who began a timeline by the key history; empty: it does not say. A line tells who began the one that
// follows it.
func BeganBy(history []HistoryLine, tl Timeline) string {
	for i := 1; i < len(history); i++ {
		if history[i].Timeline == tl {
			return history[i-1].NewLeader
		}
	}
	return ""
}
