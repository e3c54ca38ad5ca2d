package ha

import (
	"fmt"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// noteDown follows since when a leader's server takes no writes and is known not to: its processes are gone, or it recovers from a
// crash. One that merely does not answer is not down.
func (m *Memory) noteDown(v View) {
	s := v.Server
	switch {
	case s.Probed || !v.Lease.Held || !s.WasPrimary: // guard: down-primary@1,2,3
		m.Down = 0
	case m.Down == 0 && (s.Process == ProcessDown || s.Process == ProcessUp && s.Recovery != ""): // guard: down-known@2,3,4
		m.Down = v.Now
	}
}

// recoversSlowly tells that a leader's server is still recovering from the crash of a backend, though a synchronous standby
// that has every acknowledged commit could have taken over.
func recoversSlowly(v View, m *Memory) bool {
	s := v.Server
	if s.Process != ProcessUp || s.Probed || !s.WasPrimary || s.Recovery == "" { // guard: recovers@2,4
		return false
	}
	if m.LastHung != 0 && v.Now.Sub(m.LastHung) < v.Policy.CrashHandovers { // guard: recovers-again@2
		return false // ended once for that already: each end makes the recovery begin anew
	}
	limit := v.Policy.CrashWait
	return limit != 0 && m.Down != 0 && v.Now.Sub(m.Down) >= limit && mayHandOver(v, m) // guard: recovers-slowly@1,2,3,4
}

// endRecovery ends such a server. What follows is as after a crash of all of it.
func endRecovery(v View, m *Memory) Decision {
	what := fmt.Sprintf("PostgreSQL on %s has been recovering from a crash for %s (%s)", v.Me.Name, v.Now.Sub(m.Down).Round(time.Second), v.Server.Recovery)
	m.LastHung, m.Ended = v.Now, Ended{Code: CauseCrash, Text: what}
	return kill(ReasonSlowRecovery, "%s: ending it, for a synchronous standby to take over", what)
}

// overdue tells that a leader's server has been down for longer than primary_start_timeout, and that another member is likely to
// lead if this one gives the key up. A member does that once in the time in which faults may move leadership once.
func overdue(v View, m *Memory) bool {
	if v.Policy.StartLimit == 0 || m.Down == 0 || m.Stopped || v.Now.Sub(m.Down) < v.Policy.StartLimit-1 { // guard: overdue@1,3,4
		return false
	}
	return !movedLately(v, m) && mayFailOver(v) // guard: overdue-moves@1,2
}

// mayFailOver tells whether, by what the store shows, another member would be let lead by the rules of the race.
func mayFailOver(v View) bool {
	for _, c := range v.Store.Members {
		switch {
		case c.Name == v.Me.Name || c.Lease == 0 || !c.MayLead || c.State != cluster.StateRunning || !fits(v, c): // guard: fail-over-fit@2,3,4,5
		case v.Store.Sync.Active() && !v.Store.Sync.Has(c.Name): // guard: fail-over-recorded@2
		case c.Timeline < v.Store.Timeline: // guard: fail-over-timeline
		case c.Position.Behind(v.Store.Optime) <= v.Policy.MaxLag: // guard: fail-over-lag
			return true
		}
	}
	return false
}

// giveUpStart gives the leader key up because of primary_start_timeout; the server is verified down.
func giveUpStart(v View, m *Memory) (Decision, bool) {
	if !overdue(v, m) {
		return Decision{}, false
	}
	m.LastCrashHandover, m.GaveUp = v.Now, v.Now
	cause := startFailure(v)
	cause.Text = fmt.Sprintf("PostgreSQL on %s was down for as long as primary_start_timeout says", v.Me.Name)
	return act(Action{Kind: Release, Cause: cause}, ReasonStartTimeout, "stopped PostgreSQL to fail over after a crash"), true
}

// backoff waits, at the beginning of a race, for an old primary whose agent alone is gone: as long as WAL still comes from it,
// and at most for primary_race_backoff.
func backoff(v View, m *Memory) (Decision, bool) {
	p, gone := v.Policy, v.Now.Sub(m.LeaderGone)
	if p.RaceBackoff == 0 || p.standby() || v.Store.Failover != nil || gone >= p.RaceBackoff { // guard: backoff@1,3,4
		return Decision{}, false
	}
	if m.RaceWAL != v.Server.WAL {
		m.RaceWAL, m.RaceMoved = v.Server.WAL, v.Now
	}
	if gone >= p.LoopWait && (!v.Server.Streaming || v.Now.Sub(m.RaceMoved) >= p.LoopWait) { // guard: backoff-over@1,2,3
		return Decision{}, false
	}
	left := int((p.RaceBackoff - gone).Round(time.Second) / time.Second)
	return again(wait(v, ReasonBackoff, "My (%s) wal position moved since last heart beat loop, %d seconds until leader race", v.Me.Name, left), time.Second), true
}
