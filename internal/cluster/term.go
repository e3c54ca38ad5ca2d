package cluster

import "time"

// TermState is how far a term has come.
type TermState string

// A term begins claimed, and ends its beginning promoted (its holder is a primary that accepts writes) or void (it
// never will be).
const (
	TermClaimed  TermState = "claimed"
	TermPromoted TermState = "promoted"
	TermVoid     TermState = "void"
)

// Fence names what made it certain, when a term was claimed, that no older leader accepts writes.
type Fence string

// FenceBootstrap: there was none before. FenceLease: the older leader's lease had ended. FenceStopped: the older
// leader verified that every process of its server was gone, and handed over itself. FenceVoters (reserved for
// takeover): a majority of the synchronous voters was cut off from it.
const (
	FenceBootstrap Fence = "bootstrap"
	FenceLease     Fence = "lease"
	FenceStopped   Fence = "stopped"
	FenceVoters    Fence = "voters"
)

// Term is the value of haven/term: one leadership. Its number only grows. It binds only while the leader key is not
// newer than it: a leader key written later, by a member that writes no terms, is a foreign leadership.
type Term struct {
	Number    uint64    `json:"number"`
	Holder    string    `json:"holder"`
	State     TermState `json:"state"`
	Fence     Fence     `json:"fence"`
	Nonce     string    `json:"nonce"`
	SystemID  string    `json:"system_id"`
	Timeline  Timeline  `json:"timeline,omitempty"` // of the holder, once promoted
	OldLeader string    `json:"old_leader,omitempty"`
	OldLease  int64     `json:"old_lease,omitempty"`
	OldTTL    int       `json:"old_ttl,omitempty"` // seconds
	Voters    []string  `json:"voters,omitempty"`
	Quorum    int       `json:"quorum,omitempty"`
	SyncRev   int64     `json:"sync_rev,omitempty"`
	Reserved  Timeline  `json:"reserved_timeline,omitempty"` // highest timeline number ever given to a promotion
	Cause     *Cause    `json:"cause,omitempty"`
	Since     time.Time `json:"since"` // wall clock of the claimant, for display only

	ModRev int64 `json:"-"`
}

// Binds tells whether the leader key belongs to this term: the same holder, and the key was not written later than
// the term. The key and the claim are written in one transaction; later writes of the term only raise its revision.
func (t *Term) Binds(l *Leader) bool {
	return t != nil && l != nil && t.Holder == l.Name && l.ModRev <= t.ModRev
}

// Settled tells whether that leadership has come as far as writes: its term is promoted, or no term binds it, since a member
// leads that writes none.
func (t *Term) Settled(l *Leader) bool { return !t.Binds(l) || t.State == TermPromoted }

// Cause says why leadership changed, with the evidence that was seen. Certainty is OBSERVED, INFERRED or UNKNOWN.
type Cause struct {
	Code      string     `json:"code"` // see docs/reference/causes.md
	Text      string     `json:"text"`
	Certainty string     `json:"certainty"`
	At        time.Time  `json:"at"` // when it was seen
	Evidence  []Evidence `json:"evidence,omitempty"`
}

// Certainties of a cause.
const (
	Observed = "OBSERVED"
	Inferred = "INFERRED"
	Unknown  = "UNKNOWN"
)

// Evidence is one thing that was seen, by whom and when.
type Evidence struct {
	At     time.Time `json:"at"`
	Member string    `json:"member"`
	Text   string    `json:"text"`
}

// Event is one change of leadership as its new leader tells it (keys haven/events/<number>).
type Event struct {
	Term      uint64   `json:"term"`
	Kind      string   `json:"kind"` // bootstrap, failover, switchover, recovery
	OldLeader string   `json:"old_leader,omitempty"`
	NewLeader string   `json:"new_leader"`
	Cause     Cause    `json:"cause"`
	Fence     Fence    `json:"fence"`
	Chosen    string   `json:"chosen,omitempty"` // why this member
	Rejected  []string `json:"rejected,omitempty"`
	Loss      string   `json:"loss"`
	Timeline  Timeline `json:"timeline"`
	LSN       LSN      `json:"lsn"`
	Phases    []Phase  `json:"phases"`
	// Log is what happened, in order of time.
	Log []Evidence `json:"log,omitempty"`
}

// Phase is one part of the time that a change of leadership took.
type Phase struct {
	Name string        `json:"name"` // detection, election, promotion, opening
	From time.Time     `json:"from"`
	Took time.Duration `json:"took"` // nanoseconds, measured on the monotonic clock of the member that reports
}
