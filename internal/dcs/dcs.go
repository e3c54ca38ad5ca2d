// Package dcs says what Haven needs of a consensus store, and in which transactions it writes.
//
// Guarantees that every implementation gives (dcstest holds them to it):
//   - An error means unknown: nothing may be concluded about absence from it. Only ErrConflict says that a compare failed.
//   - leader and sync are created only where absent and never written without a compare.
//   - Every write of a leader compares the leader key's modification revision, so a deposed leader's write in flight fails.
//   - A write whose outcome is unknown is read back before it is reported, where its value can be recognised. ErrUnknown: nobody could
//     read it. A claim, a handover, a release, a term or a /sync may be written again with the same values until its outcome is known.
//   - Watch tells of a lost connection at once, and afterwards delivers a whole new snapshot.
//
// It leaves to the caller what to write, and when.
package dcs

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// ErrConflict is returned when the store answered and a compare failed: somebody else wrote. Nothing was written.
var ErrConflict = errors.New("the store changed meanwhile")

// ErrUnknown is returned when a write was sent and no answer came: it may have been made, or be made yet, for a message may wait in the
// network for longer than anybody tries.
var ErrUnknown = errors.New("it is not known whether this was written")

// ErrLeaseGone is returned when the store answered that the lease does not exist any more.
var ErrLeaseGone = errors.New("the lease has ended")

// Lease is an etcd lease as it was granted.
type Lease struct {
	ID int64
	// TTL is what the store granted, which may be more than was asked for.
	TTL time.Duration
	// Began is the instant on the boot clock just before the grant was requested.
	Began cluster.Instant
}

// Update is one message of a watch: a snapshot, or the error that makes the state unknown from now on.
type Update struct {
	Snapshot cluster.Snapshot
	Err      error
}

// Renewal is a proof of leadership.
type Renewal struct {
	// Began is the instant on the boot clock before the keepalive was sent: the lease lasts at least Began + TTL.
	Began cluster.Instant
	TTL   time.Duration
}

// Holder is what a leader knows of its own leadership; each of its writes compares it.
type Holder struct {
	Name      string
	Lease     int64
	LeaderRev int64 // modification revision of the leader key
	TermRev   int64 // modification revision of haven/term; 0: absent
}

// Claim is the acquisition of the leader key, with the term that begins by it.
type Claim struct {
	Name    string
	Lease   int64
	Term    cluster.Term
	TermRev int64 // revision of the term that was seen; 0: absent
}

// Founding is the end of a bootstrap: everything that makes the cluster known, in one transaction.
type Founding struct {
	Claim
	SystemID string
	Config   json.RawMessage
	Sync     *cluster.Sync
}

// Changes are the writes that only a leader makes. Nil fields are left alone.
type Changes struct {
	Status     *cluster.Status
	History    []cluster.HistoryLine
	Failsafe   map[string]string
	Initialize *string
	Config     json.RawMessage // written only where the key is absent
	Event      *cluster.Event  // written as haven/events/<term>; the oldest beyond a hundred are removed
	Term       *cluster.Term   // same number as before: its state moves on
	Sync       *SyncChange
	// Hold is put on the leader's lease; with 0 seconds it is deleted. It ends with the leadership, too.
	Hold *cluster.Hold
}

// SyncChange is a write of /sync against the revision that was read (0: absent). Delete removes the key.
type SyncChange struct {
	Sync    cluster.Sync
	SeenRev int64
	Delete  bool
}

// Handover gives leadership to another member in one transaction: leader key on the candidate's lease, next term,
// request cleared.
type Handover struct {
	Candidate string
	Lease     int64 // the candidate's, as its member key shows it
	Term      cluster.Term
	Status    *cluster.Status
	// FailoverRev is the revision of the failover key that is cleared by it; 0: leave it.
	FailoverRev int64
}

// Store is a consensus store, bound to one cluster's prefix.
type Store interface {
	// Snapshot reads the whole prefix linearizably.
	Snapshot(ctx context.Context) (cluster.Snapshot, error)
	// Watch delivers a snapshot, then one after each change (changes may be merged), and an Update with Err whenever the
	// connection is lost. The channel is closed when ctx ends. Slow receivers get the newest state, never a backlog.
	Watch(ctx context.Context) <-chan Update

	// Grant asks for a lease. KeepAlive refreshes one without proving anything else; ErrLeaseGone if it has ended.
	Grant(ctx context.Context, ttl time.Duration) (Lease, error)
	KeepAlive(ctx context.Context, lease int64) error
	Revoke(ctx context.Context, lease int64) error
	// Renew proves leadership: a keepalive, then a linearizable transaction on the same endpoint that compares the
	// leader key's revision and lease and the term's revision. ErrConflict: the leadership is lost. Any other error:
	// unknown.
	Renew(ctx context.Context, h Holder) (Renewal, error)

	// PutMember writes the own member key. ErrLeaseGone if the lease has ended.
	PutMember(ctx context.Context, lease int64, m cluster.Member) error
	DeleteMember(ctx context.Context, name string) error

	// BeginInitialize creates the key initialize, empty; ErrConflict if it exists. CancelInitialize deletes it while it
	// is empty.
	BeginInitialize(ctx context.Context) error
	CancelInitialize(ctx context.Context) error
	// Found ends a bootstrap; initialize must still be empty.
	Found(ctx context.Context, f Founding) (Holder, error)

	// Acquire takes the leader key where it is absent, together with the next term.
	Acquire(ctx context.Context, c Claim) (Holder, error)
	// Write makes a leader's changes. The Holder returned is the old one with the term's new revision, if that was
	// written; syncRev is the new revision of /sync if that was written.
	Write(ctx context.Context, h Holder, c Changes) (next Holder, syncRev int64, err error)
	// Release deletes the leader key, after writing status if given.
	Release(ctx context.Context, h Holder, s *cluster.Status) error
	// HandOver gives the leader key to another member.
	HandOver(ctx context.Context, h Holder, o Handover) error

	// PutFailover writes a request; seenRev is the revision of the key that was read (0: absent, -1: whatever it is).
	// An empty request clears it.
	PutFailover(ctx context.Context, f cluster.Failover, seenRev int64) error
	// PutConfig replaces the dynamic configuration; seenRev as in PutFailover.
	PutConfig(ctx context.Context, raw json.RawMessage, seenRev int64) error

	Close() error
}
