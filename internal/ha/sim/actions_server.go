package sim

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/havenha/haven/internal/ha"
)

var (
	errUpstream     = errors.New("the upstream does not answer")
	errTorn         = errors.New("the data directory is torn")
	errSameTimeline = errors.New("both are on the same timeline")
	errNoCheckpoint = errors.New("the upstream has made no checkpoint since its promotion")
)

// ctlTimeout bounds a start or a stop (pg_ctl_timeout).
const ctlTimeout = time.Minute

// serverSteps are those of actions on the own server and its data.
func (a *agent) serverSteps(t *task) []step {
	switch t.kind {
	case ha.Start:
		if t.action.AsPrimary {
			return []step{mustRenew, configure, launch}
		}
		return []step{configure, launch}
	case ha.RestartServer:
		if t.action.AsPrimary {
			return []step{mustRenew, checkpointFirst, stopBounded, mustRenew, configure, launch}
		}
		return []step{stopBounded, configure, launch}
	case ha.Kill:
		return []step{killAll, awaitFormer, killAll}
	case ha.StopFast:
		return []step{stopBounded}
	case ha.Clone:
		return []step{copyData}
	case ha.MoveAside:
		return []step{moveAside}
	case ha.Follow:
		return []step{follow}
	case ha.CompareTo:
		return []step{compareHistories}
	}
	return []step{stopFirst, recoverCrash, rewind, configure, launch}
}

func (t *task) number(name string) int {
	return slices.IndexFunc(t.a.w.members, func(m *member) bool { return m.name == name })
}

// configure writes the configuration that the server starts with.
func configure(t *task) {
	d := t.a.m.data
	if (t.kind == ha.Start || t.kind == ha.RestartServer) && !t.action.AsPrimary {
		d.settleMark()
	}
	d.upstream, d.names, d.signal = -1, "", !t.action.AsPrimary
	if t.action.AsPrimary {
		d.names = ha.NamesFor(t.a.w.policies[t.dynamic], t.snap.Sync, t.a.m.name)
	} else if t.with != "" {
		d.upstream = t.number(t.with)
	}
	t.a.after(2*time.Millisecond, t.plain())
}

// plain goes on without an error.
func (t *task) plain() func() {
	resume := t.answer()
	return func() { resume(nil) }
}

func launch(t *task) {
	m := t.a.m
	switch {
	case m.server.alive():
		t.next(errors.New("processes of an earlier server still run"))
		return
	case m.data.kind != ha.DiskData || m.data.torn:
		t.next(errTorn)
		return
	}
	resume := t.answer()
	s := m.launch(func(err error) { t.a.after(0, func() { resume(err) }) })
	t.e.started = s
	up := t.with
	if t.action.AsPrimary {
		up = ""
	}
	t.e.upstream = &up
	t.a.after(ctlTimeout, func() { t.notReady(resume) })
}

func killAll(t *task) {
	if t.a.w.opt.Bugs.OrphansIgnored { // planted: only the postmaster is ended
		if s := t.a.m.server; s.alive() && s.phase != orphaned {
			s.crash()
		}
		t.a.after(5*time.Millisecond, t.plain())
		return
	}
	resume := t.answer()
	t.a.m.kill(func() { t.a.after(time.Millisecond, func() { resume(nil) }) })
}

// awaitFormer waits for the action that the kill displaced.
func awaitFormer(t *task) {
	f := t.former
	if f == nil || f.over {
		t.next(nil)
		return
	}
	resume := t.answer()
	f.ended = func() { resume(nil) }
	t.a.after(time.Minute, func() { resume(errors.New("the cancelled action has not ended")) })
}

func stopFast(t *task) {
	s := t.a.m.server
	if !s.alive() {
		t.next(nil)
		return
	}
	resume := t.answer()
	s.stopFast(func() {}, func() { t.a.after(0, func() { resume(nil) }) })
}

func stopFirst(t *task) {
	if t.seen.process == ha.ProcessDown {
		t.next(nil)
		return
	}
	stopFast(t)
}

// upstream is the running server of the other member, if it can be reached.
func (t *task) upstream() *server {
	m := t.a.w.members[t.number(t.with)]
	s := m.server
	if s == nil || s.phase != running || !s.ready || s.frozen > 0 || !t.a.w.network.both(t.a.m.i, m.i) {
		return nil
	}
	return s
}

// whileUpstream lets something run that needs the upstream all the time; it fails when that goes.
func (t *task) whileUpstream(takes time.Duration, done func(up *server, err error)) {
	up := t.upstream()
	if up == nil {
		t.a.after(20*time.Millisecond, func() { done(nil, errUpstream) })
		return
	}
	var part func(left time.Duration)
	part = func(left time.Duration) {
		if t.upstream() != up {
			done(nil, errUpstream)
			return
		}
		if left <= 0 {
			done(up, nil)
			return
		}
		t.a.after(min(left, 200*time.Millisecond), func() { part(left - 200*time.Millisecond) })
	}
	part(takes)
}

// copyData is a base backup.
func copyData(t *task) {
	d := t.a.m.data
	*d = data{kind: ha.DiskUnfinished, upstream: -1}
	w, n := t.a.w, t.awaited
	resume := t.answer()
	t.whileUpstream(w.random.between(300*time.Millisecond, 5*time.Second), func(up *server, err error) {
		if err == nil && n == t.awaited && !t.over {
			d.copyOf(up.m.data)
			d.upstream = up.m.i
		}
		resume(err)
	})
}

func moveAside(t *task) {
	if t.a.m.server.alive() {
		t.next(errWritable)
		return
	}
	t.a.w.destroys(t, nil)
	*t.a.m.data = data{kind: ha.DiskEmpty, upstream: -1}
	t.a.after(5*time.Millisecond, t.plain())
}

func follow(t *task) {
	m := t.a.m
	m.data.mark.Pending = 0
	m.data.upstream = t.number(t.with)
	var unknown string
	t.e.upstream = &unknown // if what follows is cut short, the server's own word counts
	resume := t.answer()
	t.a.after(3*time.Millisecond, func() {
		if s := m.server; s.alive() {
			s.refollow()
		}
		up := t.with
		t.e.upstream = &up
		resume(nil)
	})
}

// compareHistories holds the local history against the leader's, ids and switch points.
func compareHistories(t *task) {
	resume := t.answer()
	a := t.a
	t.whileUpstream(a.w.random.between(3*time.Millisecond, 30*time.Millisecond), func(up *server, err error) {
		if err != nil || t.snap.Leader == nil {
			resume(errUpstream)
			return
		}
		d, was := a.m.data, t.seen.disk.wasPrimary()
		if p := t.seen.probe; p == nil {
			d.settleMark()
		} else if was = !p.inRecovery; p.inRecovery {
			d.mark.Pending = 0
		}
		c := &ha.Compare{With: t.with, LeaderRev: t.snap.Leader.ModRev, At: a.now()}
		c.Diverged, c.Text = diverged(d, d.end(), was, up.m.data)
		if c.Close = t.action.Close; c.Close && !c.Diverged {
			closely(c, d, up.m.data)
		}
		if twin := d.mark.Twin(t.snap.History, d.tl, up.m.data.tl); twin != 0 {
			c.Diverged, c.Twin, c.Text = true, true, fmt.Sprintf("two promotions to timeline %d", twin)
			a.w.toldApart(a.m, up.m)
		}
		t.e.compare = c
		resume(nil)
	})
}

// recoverCrash brings a server that was not stopped cleanly through crash recovery, alone.
func recoverCrash(t *task) {
	d := t.a.m.data
	switch {
	case d.torn || d.kind != ha.DiskData:
		t.next(errTorn)
		return
	case d.clean():
		t.next(nil)
		return
	}
	resume := t.answer()
	t.a.after(t.a.w.random.between(50*time.Millisecond, time.Second), func() {
		d.state, d.controlTL = shutDown, d.tl
		resume(nil)
	})
}

// rewind is pg_rewind: what it leaves when it is interrupted must not be started.
func rewind(t *task) {
	a, d := t.a, t.a.m.data
	up := t.upstream()
	if up == nil {
		t.next(errUpstream)
		return
	}
	if up.m.data.tl == d.controlTL {
		t.next(errSameTimeline)
		return
	}
	a.w.destroys(t, up.m.data)
	d.torn, d.signal = true, false
	n, resume := t.awaited, t.answer()
	t.whileUpstream(a.w.random.between(100*time.Millisecond, 3*time.Second), func(up *server, err error) {
		if n != t.awaited || t.over {
			return
		}
		switch {
		case err != nil:
		case up.m.data.controlTL != up.m.data.tl:
			d.torn = false
			err = errNoCheckpoint
		default:
			d.copyOf(up.m.data)
			a.w.counts.Rewinds++
		}
		resume(err)
	})
}

// closeNames has commits wait for a standby that does not exist, until the promotion is recorded.
func closeNames(t *task) {
	if t.a.w.policies[t.dynamic].Sync == ha.SyncOff && !t.snap.Sync.Active() {
		t.next(nil)
		return
	}
	t.setNames(ha.Placeholder)
}

// markPromotion writes the mark before the promotion, when the number of the timeline is not known yet.
func markPromotion(t *task) {
	p, m := t.seen.probe, t.a.m
	if p == nil {
		t.next(errStart)
		return
	}
	m.data.mark.Member, m.data.mark.Pending = m.name, p.timeline
	t.a.after(2*time.Millisecond, t.plain())
}

func endRecovery(t *task) {
	s := t.postmaster
	if !s.alive() || !s.ready {
		t.next(errStart)
		return
	}
	if s.m.promoteFails > 0 {
		t.next(errors.New("the server refuses to be promoted"))
		return
	}
	resume := t.answer()
	s.promote()
	var wait func()
	wait = func() {
		switch {
		case !s.alive() || s.phase == orphaned:
			resume(errStart)
		case s.primary:
			none := ""
			t.e.promoted, t.e.upstream = true, &none
			resume(nil)
		case !t.over:
			t.a.after(5*time.Millisecond, wait)
		}
	}
	t.a.after(5*time.Millisecond, wait)
}
