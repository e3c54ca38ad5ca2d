package ha

import (
	"errors"
	"fmt"
	"slices"

	"github.com/havenha/haven/internal/cluster"
)

// Answers to a leader that cannot reach the store and asks for this member's word.
var (
	// ErrFailsafeOff: failsafe mode is not on.
	ErrFailsafeOff = errors.New("failsafe mode is off")
	// ErrPledgeRefused: this member leads, or knows of another leader, or is about to take leadership.
	ErrPledgeRefused = errors.New("running as a leader, or following another")
)

// Pledge is this member's word to a leader that cannot reach the store, not to take leadership before Until (Patroni,
// failsafe mode: there a leader's POST /failsafe counts as a leader key for ttl).
type Pledge struct {
	To    string          `json:"to,omitempty"`
	Until cluster.Instant `json:"until,omitempty"`
}

// Binds tells whether it is in force.
func (p Pledge) Binds(now cluster.Instant) bool { return now.Before(p.Until) }

// MightWrite is MayWrite where what is not known counts as writable: the member gives no word then.
func (s Server) MightWrite() bool {
	return s.MayWrite() || s.Process == ProcessUnknown || s.Process == ProcessOrphans
}

// Follows tells whether that member is the last leader that one knows of who sees the store so, or saw it so last; last is
// the last leader that the store showed (Memory.LastLeader).
func Follows(s cluster.Snapshot, last, leader string) bool {
	switch {
	case s.Leader != nil:
		return s.Leader.Name == leader
	case last != "":
		return last == leader
	case s.Term != nil:
		return s.Term.Holder == leader
	}
	return false
}

// unlisted tells whether a leader without the store would not ask that member, so that it must not lead. Who leads without the store
// holds the newest term, and need not ask itself. The list counts while it stands, whatever the mode is by now: a leader that
// has not heard of a change goes on by it.
func unlisted(v View, name string) bool {
	if t := v.Store.Term; t != nil && t.Holder == name { // guard: failsafe-holder@2
		return false
	}
	return len(v.Store.Failsafe) > 0 && !slices.Contains(v.Store.Failsafe, name) // guard: failsafe-list@1,2
}

// pledged tells why this member must not take leadership for the sake of a leader that lives without the store: it has
// given its word, or it was not asked for it.
func pledged(v View) (Code, string) {
	switch {
	case v.Pledge.Binds(v.Now): // guard: pledge
		return ReasonPledged, fmt.Sprintf("not racing: %s leads without the store (failsafe mode), and has this member's word", v.Pledge.To)
	case unlisted(v, v.Me.Name) && !manualFailoverTo(v.Store.Failover, v.Me.Name): // guard: failsafe-unlisted@1,2
		return ReasonPledged, "not racing: the store names members that a leader without it would ask (failsafe mode), and this member is not among them"
	}
	return "", ""
}
