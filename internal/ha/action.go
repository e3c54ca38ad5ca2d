package ha

import (
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// Kind is the kind of an action.
type Kind string

// The closed set of actions.
const (
	None      Kind = "none"
	Exit      Kind = "exit"      // end the agent; the server is left as it is
	Bootstrap Kind = "bootstrap" // make the cluster's first database
	Unclaim   Kind = "unclaim"   // delete an empty initialize whose bootstrap nobody goes on with
	Clone     Kind = "clone"     // copy Member's database into an empty data directory
	MoveAside Kind = "moveaside" // put a data directory that cannot be used out of the way
	Start     Kind = "start"     // start the server: AsPrimary, or as a standby of Member (none: of nobody)
	Kill      Kind = "kill"      // end every process of the server, verified
	StopFast  Kind = "stop"      // orderly shutdown
	Follow    Kind = "follow"    // point a running standby at Member
	CompareTo Kind = "compare"   // hold the local history against Member's
	Rewind    Kind = "rewind"    // stop the server and rewind it to Member's history
	Ask       Kind = "survey"    // ask the other members directly
	Acquire   Kind = "acquire"   // take the leader key and begin a term
	Resume    Kind = "resume"    // prove a leadership that the store says is ours
	Promote   Kind = "promote"   // make the standby a primary; in synchronous modes it stays closed
	Open      Kind = "open"      // record the promotion, and let commits be acknowledged
	SetSync   Kind = "sync"      // one step of the synchronous set
	Switch    Kind = "switchover"
	HandOver  Kind = "handover" // give the leader key to Member; the server is verified stopped
	Release   Kind = "release"  // delete the leader key; the server is verified not writable
	DropAsk   Kind = "droprequest"
	Repair    Kind = "repair" // write initialize or config where they are missing
	// RestartServer stops the server and starts it in the role it has: AsPrimary, or as a standby of Member.
	RestartServer Kind = "restart"
)

// Destructive tells whether the action stops, rewinds, deletes or promotes, so that its basis is read again first.
func (k Kind) Destructive() bool {
	switch k {
	case MoveAside, Kill, StopFast, Rewind, Promote, Open, Switch, HandOver, Release, RestartServer:
		return true
	}
	return false
}

// EndsServer tells that the action may end the server, so that its end is no crash.
func (k Kind) EndsServer() bool {
	switch k {
	case Kill, StopFast, Rewind, Switch, MoveAside, Bootstrap, Start, RestartServer:
		return true
	}
	return false
}

// ChangesData tells that a comparison from before the action says nothing any more.
func (k Kind) ChangesData() bool {
	switch k {
	case Bootstrap, Clone, MoveAside, Rewind, Promote:
		return true
	}
	return false
}

// Action is what is to be done.
type Action struct {
	Kind      Kind           `json:"kind"`
	Member    string         `json:"member,omitempty"`
	AsPrimary bool           `json:"as_primary,omitempty"`
	Fence     cluster.Fence  `json:"fence,omitempty"`
	Sync      *SyncStep      `json:"sync,omitempty"`
	Cause     *cluster.Cause `json:"cause,omitempty"`
	Close     bool           `json:"close,omitempty"` // of a comparison: of the WAL itself, too
	// Request is the revision of the request in the key failover that a switchover carries out; 0: nobody asked for it.
	Request int64 `json:"request,omitempty"`
	Basis   Basis `json:"basis"`
}

// Basis is the evidence that an action was decided on.
type Basis struct {
	LeaderRev   int64            `json:"leader_rev"` // 0: no leader key
	Leader      string           `json:"leader,omitempty"`
	Term        uint64           `json:"term"`
	SyncRev     int64            `json:"sync_rev"`
	FailoverRev int64            `json:"failover_rev"`
	Timeline    cluster.Timeline `json:"timeline"`
	WAL         cluster.LSN      `json:"wal"`
}

// Reason says why.
type Reason struct {
	Code Code   `json:"code"`
	Text string `json:"text"`
}

// Decision is what Decide returns.
type Decision struct {
	Action Action `json:"action"`
	Reason Reason `json:"reason"`
	// Cancel ends the task that is running.
	Cancel bool `json:"cancel,omitempty"`
	// Again is when to look again if nothing happens.
	Again time.Duration `json:"again"`
}

// Memory is what decisions leave behind for later ones. It is a value: Decide returns the next one.
type Memory struct {
	// LeaderGone is when the leader key was first seen absent; 0 while there is one.
	LeaderGone cluster.Instant `json:"leader_gone,omitempty"`
	// Unclaimed is since when initialize is empty while no member says that it bootstraps.
	Unclaimed cluster.Instant `json:"unclaimed,omitempty"`
	// LastLeader is the last leader seen, with the lease of its key.
	LastLeader string `json:"last_leader,omitempty"`
	// LastCrashHandover is when leadership was last handed over for a crash, by any member.
	LastCrashHandover cluster.Instant `json:"last_crash_handover,omitempty"`
	// LastHung is when this member last ended its server because it hung; Ended is such an end of a leader's server.
	LastHung cluster.Instant `json:"last_hung,omitempty"`
	Ended    Ended           `json:"ended,omitzero"`
	// Full is since when the disk is full; LastFlight when leadership was last moved, or tried to be, for that.
	Full       cluster.Instant `json:"full,omitempty"`
	LastFlight cluster.Instant `json:"last_flight,omitempty"`
	// BootstrapFailed is why this member could not make the cluster's first database.
	BootstrapFailed string `json:"bootstrap_failed,omitempty"`
	// StartFailures counts failed starts in a row, ReadFailures those at which the server had come to its data.
	StartFailures int `json:"start_failures,omitempty"`
	ReadFailures  int `json:"read_failures,omitempty"`
	// PromoteFailed is when a promotion last failed; the member does not race for a TTL after it.
	PromoteFailed cluster.Instant `json:"promote_failed,omitempty"`
	// RewindFailed is the leader key revision against which a rewind failed.
	RewindFailed int64 `json:"rewind_failed,omitempty"`
	// NotStreaming is since when a standby that should stream does not, and has stood at StuckAt; Streamed is the probe that
	// showed it streaming first; Nudged when it was started again for that.
	NotStreaming cluster.Instant `json:"not_streaming,omitempty"`
	StuckAt      Replay          `json:"stuck_at,omitzero"`
	Busy         cluster.Instant `json:"busy,omitempty"` // when its replay was seen at work last, for the disk or the archive
	Streamed     cluster.Instant `json:"streamed,omitempty"`
	Nudged       cluster.Instant `json:"nudged,omitempty"`
	// ParentLost is since when the member to replicate from (tag replicatefrom) does not stream; ParentFailed when it was left
	// because no WAL came from it.
	ParentLost   cluster.Instant `json:"parent_lost,omitempty"`
	ParentFailed cluster.Instant `json:"parent_failed,omitempty"`
	// Replacing is the leader key's revision for which a standby is being stopped, to be copied anew, and why.
	Replacing   int64  `json:"replacing,omitempty"`
	ReplacesFor string `json:"replaces_for,omitempty"`
	// Starting is since when a server that does not answer yet replays no further than StartingAt; StuckStarts counts
	// how often it was ended for that.
	Starting    cluster.Instant `json:"starting,omitempty"`
	StartingAt  string          `json:"starting_at,omitempty"`
	StuckStarts int             `json:"stuck_starts,omitempty"`
	// Down is since when a leader's server is known to take no writes.
	Down cluster.Instant `json:"down,omitempty"`
	// GaveUp is when this member gave the leader key up because of primary_start_timeout.
	GaveUp cluster.Instant `json:"gave_up,omitempty"`
	// RaceWAL is how far this standby's WAL was when it last moved while there was no leader, RaceMoved when that was.
	RaceWAL   cluster.LSN     `json:"race_wal,omitempty"`
	RaceMoved cluster.Instant `json:"race_moved,omitempty"`
	// CrashTerm is the newest term seen that began with a handover for a crash or a like fault, whoever made it.
	CrashTerm uint64 `json:"crash_term,omitempty"`
	// Stopped: a switchover has stopped this server, and it has not run since.
	Stopped bool `json:"stopped,omitempty"`
	// SwitchFailed is the revision of the request that failed.
	SwitchFailed int64 `json:"switch_failed,omitempty"`
	// Replaced is when data was moved aside to be copied anew, newest last.
	Replaced []cluster.Instant `json:"replaced,omitempty"`
	// Retry is before when no clone or start is tried again.
	Retry cluster.Instant `json:"retry,omitempty"`
	// Sync is what the synchronous set needs remembered.
	Sync SyncMemory `json:"sync"`
}
