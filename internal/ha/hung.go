package ha

import (
	"fmt"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// hungTries is how many tries in a row must have failed before a server counts as hung, however long they took.
const hungTries = 3

// late is how much later than planned a try may begin or end. One that is later says more about the machine, or about an
// agent that was stopped, than about the server, and proves nothing.
const late = time.Second

// Knock is one try to open a new connection to the server.
type Knock struct {
	Due, Began, Ended cluster.Instant
	Answered          bool // with whatever: a refusal for too many connections is a sign of life
	Connected         bool // it answered, but brought no WAL to the disk
	Text              string
}

// Knocks are the newest tries that had no answer.
type Knocks struct {
	Failed  int             `json:"failed,omitempty"`  // in a row
	Failing cluster.Instant `json:"failing,omitempty"` // when the first of them began
	Last    cluster.Instant `json:"last,omitempty"`    // when the last of them ended
	// Stalled: these were answered, and what did not come back is a write. Fewer things mend that than a new start.
	Stalled bool   `json:"stalled,omitempty"`
	Text    string `json:"text,omitempty"`
}

// Note takes in a try that was given limit to be answered. One that was late is no evidence, and what was before it is
// none any more either: nobody looked in between.
func (k *Knocks) Note(t Knock, limit time.Duration) {
	if t.Answered || t.Began.Sub(t.Due) > late || t.Ended.Sub(t.Began) > limit+late { // guard: knock-late@2,3
		*k = Knocks{}
		return
	}
	if k.Failed == 0 || k.Stalled != t.Connected { // guard: knock-kind@2
		k.Failed, k.Failing, k.Stalled = 0, t.Began, t.Connected
	}
	k.Failed++
	k.Last, k.Text = t.Ended, t.Text
}

// KnockTimes are how long a try waits for its answer, and the pause after one that had none, and after one that had.
func KnockTimes(hungAfter time.Duration) (limit, failing, answered time.Duration) {
	return min(2*time.Second, hungAfter/4), hungAfter / 5, hungAfter / 2
}

// HungAfter is how long a server that answers no new connection is waited for, where the configuration does not say.
func HungAfter(ttl time.Duration) time.Duration { return max(ttl/3, 5*time.Second) }

// hung tells that the server has accepted no new connection for too long, whatever the sessions say that it has.
func hung(v View) bool {
	k := v.Server.Knocks
	if v.Server.Process != ProcessUp || v.Policy.HungAfter == 0 { // guard: hung@1,2
		return false
	}
	return k.Failed >= hungTries && k.Last.Sub(k.Failing) >= v.Policy.HungAfter // guard: hung-for@1,2
}

// stalled tells that the server of a leader hangs for its disk only, and nobody can take over: ended, it would be started on
// the same disk, and a short outage of that (a storage that fails over) would be made one of the server.
func stalled(v View, m *Memory) bool {
	return hung(v) && v.Server.Knocks.Stalled && !mayHandOver(v, m) // guard: stalled@2,3
}

// mayHandOver tells whether a leader's server that was ended would be likely to be followed by another's: what crashHandover
// asks for, as far as it is known before.
func mayHandOver(v View, m *Memory) bool {
	s := v.Store.Sync
	if !s.Active() || movedLately(v, m) { // guard: may-hand-over@2
		return false
	}
	fit, alive := 0, 0
	for _, name := range s.Standbys {
		c, ok := v.Store.Member(name)
		if !ok || c.Lease == 0 || name == v.Me.Name { // guard: hand-over-alive@2
			continue
		}
		alive++
		if c.MayLead && fits(v, c) { // guard: hand-over-fit@1,2
			fit++
		}
	}
	return fit > 0 && alive > s.Quorum // guard: hand-over-votes@1,2
}

// Ended is an end of a leader's server that this member itself has ordered, because of a fault of the server. It counts as
// a crash.
type Ended struct {
	Code string          `json:"code,omitempty"` // of the cause
	Text string          `json:"text,omitempty"`
	At   cluster.Instant `json:"at,omitempty"` // verified; 0: not yet
}

// hangs says in what way the server hangs.
func hangs(v View) string {
	k := v.Server.Knocks
	long := k.Last.Sub(k.Failing).Round(time.Second)
	if k.Stalled {
		return fmt.Sprintf("PostgreSQL on %s has brought no WAL to its disk for %s (%s)", v.Me.Name, long, k.Text)
	}
	return fmt.Sprintf("PostgreSQL on %s has answered no new connection for %s (%s)", v.Me.Name, long, k.Text)
}

// endHung ends a server that hangs: once within the time in which crashes may move leadership once. What hung again so
// soon would hang a third time.
func endHung(v View, m *Memory) Decision {
	what := hangs(v)
	if m.LastHung != 0 && v.Now.Sub(m.LastHung) < v.Policy.CrashHandovers { // guard: hung-again@2
		return again(wait(v, ReasonHungStays, "%s; it was ended for that %s ago already, and is left for a person to look at", what, v.Now.Sub(m.LastHung).Round(time.Second)), time.Second)
	}
	m.LastHung = v.Now
	if v.Lease.Held {
		m.Ended = Ended{Code: CauseHung, Text: what}
	}
	return kill(ReasonHung, "%s: ending it", what)
}

// noteEnded follows an end that was ordered for a fault: from when it is verified, until the server runs again, whoever started it and
// however that went, or somebody else leads.
func (m *Memory) noteEnded(v View) {
	o := v.Outcome
	switch {
	case m.Ended.Code == "":
	case !v.Lease.Held: // guard: ended-not-led
		m.Ended = Ended{}
	case m.Ended.At != 0 && m.Ended.At.Before(v.Server.ProbedAt): // guard: ended-runs-again@1,2
		m.Ended = Ended{}
	case o == nil:
	case o.Kind == Kill && o.Error == "" && m.Ended.At == 0: // guard: ended-verified@2
		m.Ended.At = v.Now
	case o.Kind == Start && o.Error == "":
		m.Ended = Ended{}
	}
}

// fault is why a leader's server that is down went down: it ended by itself, or was ended at its deadline or for a fault.
func fault(v View, m *Memory) (code string, c *Crash) {
	switch {
	case m.Ended.At != 0:
		return m.Ended.Code, &Crash{Text: m.Ended.Text, At: m.Ended.At, Wall: v.Wall}
	case v.Server.Crash != nil && v.Server.Crash.Overdue: // guard: crash-overdue
		return CauseDeadline, v.Server.Crash
	case v.Server.Crash != nil:
		return CauseCrash, v.Server.Crash
	}
	return "", nil
}

// FaultCause tells that a cause is a fault of the leader's server, for which leadership moves once within a time.
func FaultCause(code string) bool {
	return code == CauseCrash || code == CauseHung || code == CauseDiskFull
}
