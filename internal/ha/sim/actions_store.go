package sim

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
)

var (
	errNotReserved = errors.New("failed to acquire initialize lock")
	errNoLeader    = errors.New("no leadership is held")
	errWritable    = errors.New("the server may still be writable")
	errNotAsked    = errors.New("the request was taken back, or replaced")
)

// plan lists the steps of an action, in the order of internal/agent.
func (a *agent) plan(t *task) []step {
	switch t.kind {
	case ha.Bootstrap:
		return a.bootstrapSteps(t)
	case ha.Unclaim:
		return []step{func(t *task) {
			t.ask(operation{try: func(s *store) error { return s.cancelInitialize() }}, true, nil)
		}}
	case ha.Ask:
		return []step{survey}
	case ha.Acquire:
		return []step{acquire, proveNew}
	case ha.Resume:
		return []step{resumeLead}
	case ha.Open:
		return []step{openRecord, openNames, markOpened, afterwards}
	case ha.SetSync:
		return setSyncSteps(a.w.opt.Bugs)
	case ha.Release:
		return []step{releaseKey}
	case ha.HandOver:
		return []step{noProcesses, giveAway}
	case ha.DropAsk:
		return []step{dropRequest}
	case ha.Repair:
		return []step{repair}
	case ha.Promote:
		return []step{mustRenew, closeNames, markPromotion, endRecovery}
	case ha.Switch:
		return []step{mustRenew, askCandidate, checkpointFirst, stillStreams, stillAsked, shutDownFast, awaitReceived, giveAway}
	}
	return a.serverSteps(t)
}

// nextTerm is the term that follows what the store shows.
func (t *task) nextTerm(holderName string, fence cluster.Fence) cluster.Term {
	w := t.a.w
	w.nonces++
	n := cluster.Term{
		Number: 1, Holder: holderName, State: cluster.TermClaimed, Fence: fence, Nonce: fmt.Sprint(w.nonces), Cause: t.action.Cause,
	}
	if old := t.snap.Term; old != nil {
		n.Number, n.OldLeader = old.Number+1, old.Holder
	}
	if s := t.snap.Sync; s.Active() {
		n.Voters, n.Quorum, n.SyncRev = s.Standbys, s.Quorum, s.ModRev
	}
	return n
}

func acquire(t *task) {
	a := t.a
	if t.holder == nil {
		if err := a.claim(); err != nil {
			t.next(err)
			return
		}
	}
	name, term := a.m.name, t.nextTerm(a.m.name, t.action.Fence)
	var h holder
	t.ask(operation{
		try: func(s *store) (err error) {
			h, err = s.claim(name, t.leaseID, termRev(t.snap), term, nil)
			return err
		},
		ours: func(s *store) (ok bool) { h, ok = s.claimed(name, t.leaseID, term.Nonce); return ok },
	}, true, func(err error) {
		if err == nil {
			t.holder, t.e.led = &h, &h
		}
	})
}

// proveNew proves a leadership that has just been written, so that it has a deadline.
func proveNew(t *task) {
	resume := t.answer()
	t.a.renew(*t.holder, t.a.retryTimeout(), func(p proof, err error) {
		if err == nil {
			t.e.deadline = p.began.Add(p.ttl - margin(p.ttl))
		}
		resume(err)
	})
}

func resumeLead(t *task) {
	t.a.pledges.claims = !t.a.w.opt.Bugs.WordUnseen // no word is given any more
	l := t.snap.Leader
	h := holder{l.Lease, l.ModRev, termRev(t.snap)}
	resume := t.answer()
	t.a.renew(h, t.a.retryTimeout(), func(p proof, err error) {
		if err != nil {
			t.refresh(err)
			return
		}
		t.a.keeper.lease, t.a.keeper.asked = l.Lease, t.a.keeper.ttl
		t.e.led, t.e.deadline = &h, p.began.Add(p.ttl-margin(p.ttl))
		resume(nil)
	})
}

func mustRenew(t *task) {
	if t.holder == nil {
		t.next(errNoLeader)
		return
	}
	resume := t.answer()
	t.a.renew(*t.holder, t.a.retryTimeout(), func(_ proof, err error) {
		t.refused = err != nil && t.kind == ha.Promote
		resume(err)
	})
}

// openRecord records the promotion with the new synchronous state, in one transaction; openNames then opens.
func openRecord(t *task) {
	p := t.seen.probe
	if t.holder == nil || p == nil || t.snap.Term == nil {
		t.next(errNoLeader)
		return
	}
	term := *t.snap.Term
	term.State, term.Timeline = cluster.TermPromoted, p.timeline
	c := changes{term: &term, history: cluster.HistoryAfter(slices.Clone(t.a.m.data.history), t.snap.History, t.a.m.name)}
	t.openSync(&c)
	t.write(c, t.action.Kind == ha.Open)
}

// openSync is the first /sync of a new leader (agent.openSync).
func (t *task) openSync(c *changes) {
	c.seenSync = syncRev(t.snap)
	c.sync = ha.FirstSync(t.a.w.policies[t.dynamic], t.snap, t.a.m.name)
	c.deleteSync = c.sync == nil && t.snap.Sync != nil
}

// write makes a leader's changes, guarded by the compare of the leader key.
func (t *task) write(c changes, moves bool) {
	h := *t.holder
	c.by = t.a.m.name
	guarded := !(t.a.w.opt.Bugs.UnguardedSync && c.touchesSync())
	t.ask(operation{
		try: func(s *store) (err error) {
			h, err = s.change(*t.holder, c, guarded)
			return err
		},
		ours: func(s *store) (ok bool) { h, ok = s.changed(*t.holder, c); return ok },
	}, !moves, func(err error) {
		if err == nil && moves {
			t.holder, t.e.led = &h, &h
			t.a.hold(&h)
		}
	})
}

func openNames(t *task) {
	pol, me := t.a.w.policies[t.dynamic], t.a.m.name
	names := pol.OwnNames
	if pol.Sync != ha.SyncOff {
		var c changes
		t.openSync(&c)
		names = ha.NamesFor(pol, c.sync, me)
	}
	t.setNames(names)
}

// markOpened notes which timeline was begun. Where openNames failed, that is found out at the next start.
func markOpened(t *task) {
	t.a.m.data.mark.Begin(t.seen.probe.timeline)
	t.a.after(2*time.Millisecond, t.plain())
}

func afterwards(t *task) { t.refresh(nil) }

// setNames puts a value into force, within five seconds.
func (t *task) setNames(value string) {
	resume := t.answer()
	s := t.postmaster
	if s == nil || !s.alive() {
		t.next(errStart)
		return
	}
	s.setNames(value, func() { t.a.after(0, func() { resume(nil) }) })
	t.a.after(5*time.Second, func() { resume(errors.New("the value is not in force")) })
}

// setSyncSteps take one step of the synchronous set: PostgreSQL's names or /sync, never both.
func setSyncSteps(b Bugs) []step {
	one := func(t *task) {
		c := t.action.Sync
		switch {
		case t.holder == nil:
			t.next(errNoLeader)
		case c.Names != nil:
			t.setNames(*c.Names)
		default:
			t.write(changes{sync: c.Record, deleteSync: c.Delete, seenSync: syncRev(t.snap)}, false)
		}
	}
	if !b.NamesFirst {
		return []step{one}
	}
	return []step{func(t *task) { // planted: the names follow the record before the record is written
		c := t.action.Sync
		if c.Record == nil || len(c.Record.Standbys) > 0 {
			t.next(nil)
			return
		}
		t.setNames("")
	}, one}
}

func releaseKey(t *task) {
	p := t.seen.probe
	switch {
	case t.holder == nil:
		t.next(errNoLeader)
		return
	case t.seen.process != ha.ProcessDown && (p == nil || !p.inRecovery):
		t.next(errWritable)
		return
	}
	h := *t.holder
	t.ask(operation{
		try:  func(s *store) error { return s.release(h, 0) },
		ours: func(s *store) bool { return s.snap.Leader == nil },
	}, true, func(err error) { t.e.unled = err == nil })
}

func noProcesses(t *task) {
	s := t.a.m.server
	if s.alive() && !(t.a.w.opt.Bugs.OrphansIgnored && s.phase == orphaned) {
		t.next(errWritable)
		return
	}
	t.next(nil)
}

// giveAway writes the handover.
func giveAway(t *task) {
	m, ok := t.snap.Member(t.with)
	if t.holder == nil || !ok {
		t.next(errNoLeader)
		return
	}
	o := handover{to: t.with, lease: m.Lease, term: t.nextTerm(t.with, cluster.FenceStopped)}
	if t.kind == ha.Switch {
		o.optime = t.a.m.data.end()
	}
	if f := t.snap.Failover; f.MetBy(t.with, time.Time{}) { // none is scheduled here
		o.failoverRev = f.ModRev
	}
	h := *t.holder
	t.ask(operation{
		try:  func(s *store) error { return s.handOver(h, o) },
		ours: func(s *store) bool { return s.snap.Term != nil && s.snap.Term.Nonce == o.term.Nonce },
	}, true, func(err error) { t.e.unled = err == nil })
}

func dropRequest(t *task) {
	f := t.snap.Failover
	if f.Empty() {
		t.next(nil)
		return
	}
	t.ask(operation{
		try:  func(s *store) error { return s.putFailover(cluster.Failover{}, f.ModRev) },
		ours: func(s *store) bool { return s.snap.Failover.Empty() },
	}, true, nil)
}

func repair(t *task) {
	if t.holder == nil || t.seen.probe == nil {
		t.next(errNoLeader)
		return
	}
	c := changes{initialize: t.seen.probe.system}
	if t.snap.Config == nil {
		c.config = "0"
	}
	t.write(c, false)
}

// survey asks all other members at once; who need not answer is waited for only a little longer than the others (agent.ask).
func survey(t *task) {
	a := t.a
	resume := t.answer()
	s := &ha.Survey{At: a.now()}
	var targets []string
	awaits, lastLeader := map[string]bool{}, ""
	if a.oldLeader != nil {
		lastLeader = a.oldLeader.Name
	}
	leads := t.holder != nil && t.snap.Leader != nil && t.snap.Leader.Name == a.m.name
	target := func(m cluster.Member) {
		targets = append(targets, m.Name)
		awaits[m.Name] = ha.Awaited(m, t.snap, lastLeader, leads, a.policy().Pause)
	}
	for _, m := range t.snap.Members {
		if m.Name != a.m.name {
			target(m)
		}
	}
	if o := a.oldLeader; o != nil && o.Name != a.m.name && !slices.Contains(targets, o.Name) {
		target(*o)
	}
	missing, over := slices.Clone(targets), false
	end := func() {
		if over {
			return
		}
		over = true
		for _, n := range missing {
			s.Answers = append(s.Answers, ha.Answer{Name: n, Error: "no answer in time"})
		}
		t.e.survey = s
		resume(nil)
	}
	if len(targets) == 0 {
		end()
		return
	}
	awaited := func(name string) bool { return awaits[name] }
	enough := func() {
		if leads {
			end()
		} else {
			a.after(300*time.Millisecond, end)
		}
	}
	if !slices.ContainsFunc(targets, awaited) {
		enough()
	}
	for _, n := range targets {
		a.question(n, 2*time.Second, func(answer ha.Answer) {
			if over {
				return
			}
			s.Answers = append(s.Answers, answer)
			missing = slices.DeleteFunc(missing, func(o string) bool { return o == n })
			switch {
			case len(missing) == 0:
				end()
			case awaits[n] && !slices.ContainsFunc(missing, awaited):
				enough()
			case leads && ha.Sufficient(t.snap, s.Answers):
				a.after(300*time.Millisecond, end)
			}
		})
	}
}
