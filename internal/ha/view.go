package ha

import (
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// View is all that a decision may rest on.
type View struct {
	Now  cluster.Instant `json:"now"`
	Wall time.Time       `json:"wall"` // for texts only

	Me      Self     `json:"me"`
	Policy  Policy   `json:"policy"`
	Store   Store    `json:"store"`
	Lease   Lease    `json:"lease"`
	Server  Server   `json:"server"`
	Pledge  Pledge   `json:"pledge,omitzero"`
	Survey  *Survey  `json:"survey,omitempty"`
	Compare *Compare `json:"compare,omitempty"`
	Task    *Task    `json:"task,omitempty"`
	Outcome *Outcome `json:"outcome,omitempty"`
	// Restart and Reinit are what an operator has ordered and is not done yet.
	Restart *Restart `json:"restart,omitempty"`
	Reinit  *Reinit  `json:"reinit,omitempty"`
}

// Self is what the member knows of itself from its own configuration.
type Self struct {
	Name         string          `json:"name"`
	MayBootstrap bool            `json:"may_bootstrap"`
	MayLead      bool            `json:"may_lead"`
	Started      cluster.Instant `json:"started"` // when this agent began
	// ReplicateFrom is the member to replicate from in place of the leader; NoStream: from nobody, but from the archive.
	ReplicateFrom string `json:"replicate_from,omitempty"`
	NoStream      bool   `json:"no_stream,omitempty"`
}

// SyncMode is how commits wait for standbys.
type SyncMode string

// Off: they do not. Priority: for the named standbys (synchronous_mode: on). Quorum: for any k of the named.
const (
	SyncOff      SyncMode = "off"
	SyncPriority SyncMode = "on"
	SyncQuorum   SyncMode = "quorum"
)

// Policy is the part of the dynamic configuration that decisions need.
type Policy struct {
	TTL            time.Duration `json:"ttl"`
	LoopWait       time.Duration `json:"loop_wait"`
	MaxLag         uint64        `json:"max_lag"`      // bytes, maximum_lag_on_failover
	MaxSyncLag     int64         `json:"max_sync_lag"` // bytes, maximum_lag_on_syncnode; 0 or less: off
	Sync           SyncMode      `json:"sync"`
	Strict         bool          `json:"strict"`
	OwnNames       string        `json:"own_names,omitempty"` // the operator's synchronous_standby_names, in force where Sync is off
	SyncCount      int           `json:"sync_count"`
	Pause          bool          `json:"pause"`
	Failsafe       bool          `json:"failsafe,omitempty"` // what follows from it reaches decisions by Lease and Pledge
	CheckTimeline  bool          `json:"check_timeline"`
	UseRewind      bool          `json:"use_rewind"`
	CrashHandovers time.Duration `json:"crash_handovers"`  // shortest time between two handovers for a crash
	HungAfter      time.Duration `json:"hung_after"`       // how long no new connection may be answered; 0: any time
	NotStreaming   time.Duration `json:"not_streaming"`    // how long a standby may fail to stream before it is examined
	StandbyGoneFor time.Duration `json:"standby_gone_for"` // how long a synchronous standby may be gone before it is dropped
	// Remote is the upstream of another cluster that this one is a standby of, beginning with RemotePrefix; empty: of none.
	Remote      string        `json:"remote,omitempty"`
	StartLimit  time.Duration `json:"start_limit,omitempty"`  // primary_start_timeout, where 0 is the shortest time; 0: none
	CrashWait   time.Duration `json:"crash_wait,omitempty"`   // how long a crash recovery may take; 0: any time
	RaceBackoff time.Duration `json:"race_backoff,omitempty"` // primary_race_backoff
	CloneLimit  int           `json:"clone_limit"`            // how often data is replaced by a new copy …
	CloneWindow time.Duration `json:"clone_window"`           // … within this time, before a person is waited for
	CopiesAlone bool          `json:"copies_alone,omitempty"` // a copy can be made from a backup, without a member to copy from
}

// Store is the consensus store as last read.
type Store struct {
	// Known is false while the store cannot be read; then nothing else here may be believed.
	Known      bool                `json:"known"`
	Revision   int64               `json:"revision,omitempty"`
	Initialize *cluster.Initialize `json:"initialize,omitempty"`
	HasConfig  bool                `json:"has_config"`
	Leader     *cluster.Leader     `json:"leader,omitempty"`
	Term       *Term               `json:"term,omitempty"`
	Sync       *cluster.Sync       `json:"sync,omitempty"`
	Failover   *Request            `json:"failover,omitempty"`
	Members    []Member            `json:"members,omitempty"`
	Failsafe   []string            `json:"failsafe,omitempty"` // the members that a leader without the store has to ask
	Optime     cluster.LSN         `json:"optime,omitempty"`
	Timeline   cluster.Timeline    `json:"timeline,omitempty"` // from the history key; 0: unknown
}

// Member returns the member of that name.
func (s Store) Member(name string) (Member, bool) {
	for _, m := range s.Members {
		if m.Name == name {
			return m, true
		}
	}
	return Member{}, false
}

// Term is what decisions need of the store's term.
type Term struct {
	Number uint64            `json:"number"`
	Holder string            `json:"holder"`
	State  cluster.TermState `json:"state"`
	Fence  cluster.Fence     `json:"fence"`
	ModRev int64             `json:"mod_rev"`
	Binds  bool              `json:"binds"` // it belongs to the present leader key
	Cause  *cluster.Cause    `json:"cause,omitempty"`
}

// Request is a switchover (Leader given) or failover (only Candidate) that somebody asked for.
type Request struct {
	Leader    string `json:"leader,omitempty"`
	Candidate string `json:"candidate,omitempty"`
	Due       bool   `json:"due"` // not scheduled, or its time has come
	Scheduled bool   `json:"scheduled,omitempty"`
	Stale     bool   `json:"stale,omitempty"` // its time is long over
	ModRev    int64  `json:"mod_rev"`
}

// Member is what decisions need of a member key.
type Member struct {
	Name         string           `json:"name"`
	Role         cluster.Role     `json:"role"`
	State        cluster.State    `json:"state"`
	Haven        bool             `json:"haven"`
	Lease        int64            `json:"lease"`
	MayLead      bool             `json:"may_lead"`
	Priority     int              `json:"priority"`
	MaySync      bool             `json:"may_sync"`
	SyncPriority int              `json:"sync_priority"`
	CloneFrom    bool             `json:"clone_from,omitempty"`
	Position     cluster.LSN      `json:"position,omitempty"`
	Timeline     cluster.Timeline `json:"timeline,omitempty"`
	Health       Health           `json:"health,omitempty"`
	Checkpoint   bool             `json:"checkpoint"` // false: it has not finished its checkpoint after promotion
	Streaming    bool             `json:"streaming,omitempty"`
	// ReplicateFrom and NoStream are its tags, as those of Self.
	ReplicateFrom string `json:"replicate_from,omitempty"`
	NoStream      bool   `json:"no_stream,omitempty"`
}

// Lease is the member's own proof of leadership.
type Lease struct {
	ID int64 `json:"id"`
	// Held: this agent holds the leader key as far as it knows. Lost: the store answered that it does not any more.
	Held bool `json:"held"`
	Lost bool `json:"lost"`
	// Deadline is the instant past which PostgreSQL must not be writable.
	Deadline cluster.Instant `json:"deadline,omitempty"`
	// Failsafe: it rests on the word of all members, since the store could not be reached.
	Failsafe  bool  `json:"failsafe,omitempty"`
	LeaderRev int64 `json:"leader_rev,omitempty"`
	TermRev   int64 `json:"term_rev,omitempty"`
}

// Proven tells whether leadership is proven at that instant.
func (l Lease) Proven(now cluster.Instant) bool {
	return l.Held && !l.Lost && now.Before(l.Deadline) // guard: proven@1,2,3
}

// Disk is what stands in the data directory.
type Disk string

// What may stand there. DiskUnfinished is a copy or initdb of ours that was interrupted (it bears our marker).
const (
	DiskUnknown    Disk = "unknown"
	DiskEmpty      Disk = "empty"
	DiskUnfinished Disk = "unfinished"
	DiskData       Disk = "data"
	DiskForeign    Disk = "foreign"
)

// Process is the state of the server's processes.
type Process string

// Down: verified that none is left. Orphans: the postmaster is gone, others are left. Up: the postmaster runs.
const (
	ProcessUnknown Process = "unknown"
	ProcessDown    Process = "down"
	ProcessOrphans Process = "orphans"
	ProcessUp      Process = "up"
)

// Server is the local server as last observed.
type Server struct {
	Disk         Disk             `json:"disk"`
	SystemID     string           `json:"system_id,omitempty"`
	DiskTimeline cluster.Timeline `json:"disk_timeline,omitempty"`
	// WasPrimary: the data directory is that of a primary (no signal file; in production, shut down, …).
	WasPrimary bool `json:"was_primary"`
	// Promoted: this member itself was promoted on this data, so that its timeline may be another than one of the same
	// number elsewhere.
	Promoted bool `json:"promoted,omitempty"`
	// CleanStop: the control file says shut down, or shut down in recovery.
	CleanStop bool `json:"clean_stop"`
	// Torn: a rewind, or the moving aside of tablespaces, was interrupted; the data must not be started, only replaced.
	Torn bool `json:"torn,omitempty"`

	Process Process `json:"process"`
	// Crash says how the postmaster ended, when nobody had ordered it; nil after the next start.
	Crash *Crash `json:"crash,omitempty"`

	// Recovery is what the replay of a server does that does not answer yet, in words that change when it comes on; empty: unknown.
	Recovery string `json:"recovery,omitempty"`
	// Busy: the replay of a standby waits for the disk, or for a command that has fetched WAL for some seconds. That nothing
	// comes on says nothing then.
	Busy bool `json:"busy,omitempty"`
	// Room is what is left on the disk.
	Room Room `json:"room,omitzero"`
	// Knocks are tries to open a new connection; Probed below speaks of a session that is kept.
	Knocks Knocks `json:"knocks,omitzero"`
	// Probed: the server answered at ProbedAt, and what follows is its answer.
	Probed     bool             `json:"probed"`
	ProbedAt   cluster.Instant  `json:"probed_at,omitempty"`
	InRecovery bool             `json:"in_recovery"`
	Timeline   cluster.Timeline `json:"timeline,omitempty"`
	WAL        cluster.LSN      `json:"wal,omitempty"`     // primary: flushed; standby: the greater of received and replayed
	Streaming  bool             `json:"streaming"`         // a standby that receives
	Version    int              `json:"version,omitempty"` // of the programs, for instance 150018; 0: unknown
	// PendingRestart: parameters wait for a restart.
	PendingRestart bool        `json:"pending_restart,omitempty"`
	Replayed       cluster.LSN `json:"replayed,omitempty"`
	Waiting        bool        `json:"waiting,omitempty"` // a standby whose replay has come to the end of what there is
	SyncNames      string      `json:"sync_names"`        // effective synchronous_standby_names
	Standbys       []Standby   `json:"standbys,omitempty"`

	// Upstream is the member that the configuration files follow; empty: none.
	Upstream string `json:"upstream,omitempty"`
}

// MayWrite tells whether the server may be running as a primary: it is not certain that it is down or in recovery.
func (s Server) MayWrite() bool {
	if s.Process == ProcessDown { // guard: may-write-down
		return false
	}
	return !s.Probed && s.WasPrimary || s.Probed && !s.InRecovery // guard: may-write@2,4
}

// Primary tells whether the server certainly runs as a primary.
func (s Server) Primary() bool { return s.Process == ProcessUp && s.Probed && !s.InRecovery }

// RunningStandby tells whether the server certainly runs as a standby.
func (s Server) RunningStandby() bool { return s.Process == ProcessUp && s.Probed && s.InRecovery }

// Crash is an end of the postmaster that nobody ordered.
type Crash struct {
	Text string          `json:"text"`
	At   cluster.Instant `json:"at"`
	Wall time.Time       `json:"wall"`
	// Overdue: the deadline of the leadership had passed. So it was the guard that ended it, as it is to.
	Overdue bool `json:"overdue,omitempty"`
}

// Standby is one walsender that bears a member's name.
type Standby struct {
	Name      string      `json:"name"`
	State     string      `json:"state"`      // streaming, catchup, …
	SyncState string      `json:"sync_state"` // async, potential, sync, quorum
	Flush     cluster.LSN `json:"flush"`
}

// Survey is what the other members answered when asked directly.
type Survey struct {
	At      cluster.Instant `json:"at"` // when the asking began
	Answers []Answer        `json:"answers"`
}

// Answer is one member's.
type Answer struct {
	Name      string           `json:"name"`
	Reachable bool             `json:"reachable"`
	Error     string           `json:"error,omitempty"`
	Refused   bool             `json:"refused,omitempty"` // the host answered that nobody listens
	Primary   bool             `json:"primary"`
	Position  cluster.LSN      `json:"position,omitempty"`
	Timeline  cluster.Timeline `json:"timeline,omitempty"`
	MayLead   bool             `json:"may_lead"`
	Priority  int              `json:"priority"`
}

// Answer returns that member's answer, if the survey has one.
func (s *Survey) Answer(name string) (Answer, bool) {
	if s != nil {
		for _, a := range s.Answers {
			if a.Name == name {
				return a, true
			}
		}
	}
	return Answer{}, false
}

// Compare is the result of holding the local history against a leader's.
type Compare struct {
	With      string          `json:"with"`
	LeaderRev int64           `json:"leader_rev"` // of the leader key at that time
	At        cluster.Instant `json:"at"`
	Diverged  bool            `json:"diverged"`
	// Close: the WAL itself was compared. Gone: the leader has no longer the WAL that follows the local one.
	Close bool `json:"close,omitempty"`
	Gone  bool `json:"gone,omitempty"`
	// Twin: both were promoted to the same timeline, so that pg_rewind finds nothing to do.
	Twin bool   `json:"twin,omitempty"`
	Text string `json:"text"`
}

// Task is a long action that is running.
type Task struct {
	Kind  Kind            `json:"kind"`
	With  string          `json:"with,omitempty"`
	Since cluster.Instant `json:"since"`
}

// Outcome is how the last action ended.
type Outcome struct {
	Kind  Kind   `json:"kind"`
	With  string `json:"with,omitempty"`
	Error string `json:"error,omitempty"`
	// Request is that of the action.
	Request int64 `json:"request,omitempty"`
	// Unbegun: it failed before it had changed, or a server had read, any data that are kept, because another member was faster, or the store
	// or the upstream could not be asked, or a port is taken: so it says nothing against these data, nor against trying again.
	Unbegun bool `json:"unbegun,omitempty"`
}
