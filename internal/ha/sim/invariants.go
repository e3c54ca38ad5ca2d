package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
)

// Violation is an invariant that broke. Number is that of docs/invariants.md; 0: the model itself.
type Violation struct {
	Number int
	Seed   uint64
	At     time.Duration
	Text   string
}

func (v Violation) String() string {
	return fmt.Sprintf("seed %d, at %.3f s: invariant %d: %s", v.Seed, v.At.Seconds(), v.Number, v.Text)
}

func (w *World) broken(number int, format string, args ...any) {
	if w.failure == nil {
		w.failure = &Violation{Number: number, Seed: w.opt.Seed, At: w.now, Text: fmt.Sprintf(format, args...)}
		w.note("!", "invariant %d: %s", number, w.failure.Text)
		for _, m := range w.members {
			w.note(m.name, "%s", m.describe())
		}
	}
}

// describe tells a member's state in a line.
func (m *member) describe() string {
	text := fmt.Sprintf("%s, timeline %d, WAL to %s", m.data.kind, m.data.tl, m.data.end())
	if s := m.server; s.alive() {
		text += fmt.Sprintf(", server up, primary %v, names %q", s.primary, s.names)
		if s.receiver != nil {
			text += ", streams from " + s.receiver.up.m.name
		}
	}
	if a := m.agent; a != nil {
		text += fmt.Sprintf(", agent says %s, knows WAL to %s", a.last.Reason.Code, a.reach.wal)
	}
	return text
}

// history is what the invariants remember.
type history struct {
	commits  []*commit
	promised []*commit // those that must never be lost
	newest   *commit   // the promised one with the highest position in the present history
	// office is who was last recorded as promoted, in which term.
	office *member
	term   uint64
	since  time.Duration
	seen   *cluster.Term
	// waived: an operator has asked for a failover to whomever it may be; what is lost by it is counted.
	waived  bool
	crashes time.Duration // of the last handover for a crash; 0: none
	knew    []*agent      // who has read of it
	deleted time.Duration // when somebody last deleted the leader key; 0: never
	turns   int           // promotions since the last fault was undone
}

// schedulingDelay is how long a server may stay writable past its deadline: to decide, to kill, and to be scheduled after
// a freeze.
const schedulingDelay = 200 * time.Millisecond

// acknowledged is told of every acknowledgement. A commit that waited for standbys is promised while /sync names one; one
// that did not wait, or whose leader stands in /sync alone, is counted and not promised.
func (w *World) acknowledged(c *commit) {
	c.acked = w.now
	w.counts.Acked++
	s := w.store.snap.Sync
	if !c.waited || !s.Active() || s.Leader == c.m.name && len(s.Standbys) == 0 {
		return
	}
	h := &w.history
	if c.m.paused() && c.m.now() >= c.m.until { // pause is the named exception: it went on without a lease
		return
	}
	if l := w.store.snap.Leader; h.deleted > 0 && w.now-h.deleted < w.opt.Policy.TTL && (l == nil || l.Name != c.m.name) {
		w.counts.Waived++ // somebody has deleted the leader key under it, which the others take for the end of its lease
		return
	}
	if w.policy().Sync == ha.SyncQuorum && w.now-c.m.thawed < schedulingDelay && c.m.now() >= c.m.until {
		w.counts.Thawed++
		return
	}
	c.promised = true
	w.counts.Promised++
	if o := h.office; o != nil && o != c.m && !o.data.holds(c.at, c.record) && o.data.kind == ha.DiskData && !h.waived {
		w.broken(1, "%s acknowledged commit %d at %s, which waited for its standbys; %s leads since term %d and does not have it", c.m.name, c.record, c.at, o.name, h.term)
	}
	h.promised = append(h.promised, c)
	if h.newest == nil || c.at > h.newest.at || !c.m.data.holds(h.newest.at, h.newest.record) {
		h.newest = c
	}
	w.checkRecord()
}

// promoted is told of the end of a recovery.
func (w *World) promoted(m *member) {
	w.counts.Promotions++
	w.note(m.name, "promoted, timeline %d from %s", m.data.tl, m.data.end()-1)
}

// opened is told when a term is recorded as promoted. Invariant 2: no acknowledged commit is lost. Whoever opens a term in
// a synchronous mode has every promised commit, whatever has failed before and however often. Excepted are commits of
// before synchronous mode was switched off, and a failover that an operator asked for by naming only a candidate.
func (w *World) opened(t *cluster.Term) {
	h := &w.history
	var m *member
	for _, o := range w.members {
		if o.name == t.Holder {
			m = o
		}
	}
	h.office, h.term, h.since = m, t.Number, w.now
	if w.settling > 0 {
		h.turns++
	}
	for _, c := range h.promised {
		if m.data.holds(c.at, c.record) {
			continue
		}
		if !h.waived {
			w.broken(2, "%s opens term %d without commit %d at %s, which %s acknowledged %s ago", m.name, t.Number, c.record, c.at, c.m.name, (w.now - c.acked).Round(time.Millisecond))
			return
		}
		w.counts.Waived++
	}
	if h.waived {
		h.forget()
	}
}

// newestOn tells whether a data directory has the newest promised commit.
func (h *history) newestOn(d *data) bool {
	return d.kind == ha.DiskData && !d.torn && (h.newest == nil || d.holds(h.newest.at, h.newest.record))
}

func (h *history) forget() { h.promised, h.newest, h.waived = nil, nil, false }

// checkRecord: invariant 4. Any set that can acknowledge meets any set that can promote: of the standbys in /sync, and
// able to run, at most `quorum` lack the newest promised commit.
func (w *World) checkRecord() {
	s, c := w.store.snap.Sync, w.history.newest
	if c == nil || !s.Active() || w.history.waived {
		return
	}
	lack := 0
	for _, m := range w.members {
		if s.Has(m.name) && m.foreign == nil && !m.wiped && m.data.kind == ha.DiskData && !m.data.torn && !w.history.newestOn(m.data) {
			lack++
		}
	}
	if lack > s.Quorum {
		w.broken(4, "%d of the standbys in /sync (%s) lack commit %d at %s, which %s has acknowledged", lack, describeSync(s), c.record, c.at, c.m.name)
	}
}

// writesSync: a write of /sync comes from whoever holds the leader key (engine.md, "Writes of a term").
func (w *World) writesSync(name string) {
	if l := w.store.snap.Leader; l == nil || l.Name != name {
		w.broken(4, "%s writes /sync while it does not hold the leader key", name)
	}
	w.counts.SyncWrites++
}

// check looks at what must hold after every event.
func (w *World) check() {
	for _, m := range w.members {
		if s := m.server; s != nil && s.phase <= orphaned && s.primary {
			w.checkDeadline(m)
		}
	}
	w.checkTerm()
}

// checkDeadline: invariant 3. A member without a live lease is not writable past its deadline, up to schedulingDelay, and so
// never while another member's term is promoted.
// Excepted is pause; and, where there is no guard, a server whose agent is dead or frozen, until an agent has had time to
// look after it: the five seconds in which it may look for proof, and a renewal's.
func (w *World) checkDeadline(m *member) {
	now, h := m.now(), &w.history
	l, t := w.store.snap.Leader, w.store.snap.Term
	other := h.office != nil && h.office != m && l != nil && l.Name == h.office.name && t.State == cluster.TermPromoted &&
		w.now-h.since > schedulingDelay && h.deleted == 0
	if m.until == 0 || now < m.until.Add(schedulingDelay) && !other || !m.server.writable() || m.paused() || m.server.frozen > 0 || m.server.phase == orphaned && m.frozen > 0 {
		return
	}
	if w.now-m.thawed < schedulingDelay || m.frozen > 0 {
		return
	}
	if !w.opt.Guard {
		a := m.agent
		if a == nil || a.frozen > 0 || now.Sub(a.started) < 6*time.Second+a.retryTimeout() {
			return
		}
	}
	if other {
		w.broken(3, "%s is writable, and %s leads since %s", m.name, h.office.name, (w.now - h.since).Round(time.Millisecond))
		return
	}
	w.broken(3, "%s is writable %s after its deadline", m.name, now.Sub(m.until).Round(time.Millisecond))
}

// checkTerm follows haven/term and /sync in the store.
func (w *World) checkTerm() {
	t := w.store.snap.Term
	h := &w.history
	if t == nil || h.seen == t {
		return
	}
	h.seen = t
	if t.State == cluster.TermPromoted && t.Number != h.term {
		w.opened(t)
	}
	if t.State == cluster.TermClaimed && t.Cause != nil && ha.FaultCause(t.Cause.Code) {
		by := w.member(t.OldLeader)
		if h.crashes != 0 && w.now-h.crashes < w.opt.Policy.CrashHandovers-w.opt.Policy.CrashHandovers/50 && slices.Contains(h.knew, by.agent) {
			w.broken(7, "two handovers for a crash within %s", (w.now - h.crashes).Round(time.Second))
		}
		h.crashes, h.knew = w.now, nil
	}
}

// destroys: invariant 5. What is about to be removed from a member's disk is no only copy of a promised commit, and a
// rewind takes away nothing that its source has.
func (w *World) destroys(t *task, source *data) {
	d := t.a.m.data
	for _, c := range w.history.promised {
		if !d.holds(c.at, c.record) || source != nil && source.holds(c.at, c.record) {
			continue
		}
		kept := false
		for _, m := range w.members {
			kept = kept || m != t.a.m && (m.data.holds(c.at, c.record) || m.foreign != nil && m.foreign.holds(c.at, c.record))
		}
		if !kept && !w.history.waived {
			w.broken(5, "%s of %s removes the only copy of commit %d", t.kind, t.a.m.name, c.record)
			return
		}
	}
}

// toldApart counts a comparison that found that both members were promoted to the same timeline.
func (w *World) toldApart(m, lead *member) {
	w.counts.Twins++
	if m.data.sameSoFar(lead.data) {
		w.counts.Needless++
		w.note(m.name, "is taken for a twin of %s, and is none", lead.name)
	}
}

// Healthy tells what is still missing to health; empty: one leader that is open, and all other members stream from it.
// A member that waits for a person does not count.
func (w *World) Healthy() string {
	l, t := w.store.snap.Leader, w.store.snap.Term
	if w.policy().Remote != "" {
		return w.healthyStandby(l)
	}
	if l == nil || t == nil || t.State != cluster.TermPromoted || t.Holder != l.Name {
		return "no leader is open"
	}
	var lead *member
	for _, m := range w.members {
		if m.name == l.Name {
			lead = m
		}
	}
	if s := lead.server; !s.writable() || s.phase != running || s.names == ha.Placeholder && !w.garbled {
		return lead.name + " leads, and its server does not take commits"
	}
	person := false
	for _, m := range w.members {
		if m == lead {
			continue
		}
		if m.waitsForPerson() {
			person = true
			continue
		}
		if s := m.server; !s.alive() || s.receiver == nil || s.receiver.garbled || s.receiver.up != lead.server && !m.cascades(s.receiver.up.m) || len(m.data.wal)+40 < len(lead.data.wal) {
			return m.name + " does not stream"
		}
	}
	if w.history.lastAcked(lead) < w.settling && (!person || !w.policy().Strict) {
		return lead.name + " acknowledges nothing"
	}
	return ""
}

// healthyStandby is the same of a cluster that is a standby of another, which is not modelled: nobody writes, the leader runs as a
// standby, and all others stream.
func (w *World) healthyStandby(l *cluster.Leader) string {
	for _, m := range w.members {
		s := m.server
		switch {
		case s.writable():
			return m.name + " is writable in a standby cluster"
		case l == nil:
			return "no leader"
		case m.waitsForPerson():
		case !s.alive() || !s.ready || s.phase != running:
			return m.name + " does not run"
		case m.name == l.Name && m.agent != nil && m.agent.public.Role != cluster.RoleStandbyLeader:
			return m.name + " is no standby leader"
		case m.name != l.Name && (s.receiver == nil || s.receiver.garbled):
			return m.name + " does not stream"
		}
	}
	return ""
}

// cascades tells whether that is the member to replicate from in place of the leader.
func (m *member) cascades(from *member) bool { return ha.ReplicateFrom(m.tags) == from.name }

func (h *history) lastAcked(m *member) time.Duration {
	for i := len(h.commits) - 1; i >= 0 && i > len(h.commits)-50; i-- {
		if c := h.commits[i]; c.m == m && c.acked > 0 {
			return c.acked
		}
	}
	return 0
}

// waitsForPerson tells whether a member does nothing more by itself: its data was replaced too often.
func (m *member) waitsForPerson() bool {
	return m.agent != nil && m.agent.last.Reason.Code == ha.ReasonCloneLimit
}
