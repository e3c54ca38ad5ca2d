package sim

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
)

// writer writes the member key, and a leader's status key, beside the loop (agent.keyWriter).
type writer struct {
	want   wanted
	set    bool
	busy   bool
	again  bool
	timer  int
	last   cluster.Member
	lease  int64
	optime cluster.LSN
}

type wanted struct {
	lease  int64
	member cluster.Member
	holder *holder
	optime cluster.LSN
	// failsafe are the members to be named in /failsafe; nil: as it is.
	failsafe map[string]string
	every    time.Duration
}

// sameShape tells whether two member keys differ in positions at most, or in whether they stream: that comes later here than
// in a real one.
func sameShape(a, b cluster.Member) bool {
	return a.State == b.State && a.Role == b.Role && a.Timeline == b.Timeline && a.Pause == b.Pause &&
		health(a) == health(b) && (a.CheckpointAfterPromote == nil) == (b.CheckpointAfterPromote == nil)
}

// publish makes the state visible: through the member key, and to whoever asks.
func (a *agent) publish() {
	a.status = published{*a.policy(), a.holder != nil && !a.lost, a.seen.probe, a.snap, a.serverView().MightWrite(), a.memory.LastLeader}
	a.noteOffice()
	m := a.memberKey()
	a.public = m
	w := wanted{lease: a.leaseID, member: m, every: a.policy().LoopWait}
	if p := a.seen.probe; a.holder != nil && !a.lost && a.task == nil && p != nil && !p.inRecovery {
		h := *a.holder
		w.holder, w.optime = &h, p.wal
		l := a.snap.Leader
		if list := a.failsafeList(a.snap); a.known && l != nil && a.snap.Term.Settled(l) && !maps.Equal(list, a.snap.Failsafe) {
			w.failsafe = list
		}
	}
	x := &a.writer
	urgent := !x.set || x.want.lease != w.lease || !sameShape(x.want.member, m)
	x.want, x.set = w, true
	if !urgent {
		return
	}
	if x.busy {
		x.again = true
		return
	}
	a.writeKeys()
}

// noteOffice remembers who leads, once that leadership is settled.
func (a *agent) noteOffice() {
	s := a.snap
	if !a.known || s.Leader == nil || !s.Term.Settled(s.Leader) {
		return
	}
	if m, ok := s.Member(s.Leader.Name); ok {
		a.oldLeader = &m
	}
}

func (a *agent) writeKeys() {
	x := &a.writer
	want := x.want
	if want.lease == 0 {
		return
	}
	x.busy, x.again = true, false
	if want.lease == x.lease && sameShape(want.member, x.last) && want.member.Position() == x.last.Position() {
		a.writeStatus(want)
		return
	}
	a.call(operation{try: func(s *store) error { return s.putMember(want.lease, want.member) }}, func(err error) {
		if errors.Is(err, errLeaseGone) {
			a.forget(want.lease)
		}
		if err != nil {
			a.wrote(err)
			return
		}
		x.last, x.lease = want.member, want.lease
		a.writeStatus(want)
	})
}

func (a *agent) writeStatus(want wanted) {
	x := &a.writer
	if want.holder == nil || want.optime == x.optime && want.failsafe == nil {
		a.wrote(nil)
		return
	}
	a.call(operation{try: func(s *store) error {
		_, err := s.change(*want.holder, changes{optime: want.optime, failsafe: want.failsafe}, true)
		return err
	}}, func(err error) {
		if err == nil {
			x.optime = want.optime
		}
		a.wrote(err)
	})
}

func (a *agent) wrote(err error) {
	x := &a.writer
	x.busy = false
	pause := x.want.every
	if err != nil {
		pause = min(time.Second, pause)
	}
	if x.again {
		pause = 0
	}
	x.timer++
	mine := x.timer
	a.after(pause, func() {
		if mine == x.timer && !x.busy {
			a.writeKeys()
		}
	})
}

// memberKey is the own member key as it should be now (agent.member).
func (a *agent) memberKey() cluster.Member {
	m := cluster.Member{Name: a.m.name, Tags: a.m.tags, Pause: a.policy().Pause}
	running := ha.None
	if a.task != nil {
		running = a.task.kind
	}
	m.State, m.Role = a.serverView().Published(running, a.holder != nil, a.memory.StartFailures)
	m.Haven = &cluster.HavenField{Health: a.serverView().Health(*a.policy())}
	if p := a.seen.probe; p != nil {
		p.fill(&m)
	} else {
		m.Timeline = a.seen.disk.controlTL
	}
	if !a.checkpoint && m.Role == cluster.RolePrimary {
		no := false
		m.CheckpointAfterPromote = &no
	}
	return m
}

func (p *probe) fill(m *cluster.Member) {
	m.Timeline = p.timeline
	if !p.inRecovery {
		m.XlogLocation, m.ReceiveLSN, m.ReplayLSN = p.wal, 0, 0
		return
	}
	m.ReceiveLSN, m.ReplayLSN = p.receive, p.replay
	m.XlogLocation = max(p.receive, p.replay)
	if m.ReplicationState = ""; p.streaming {
		m.ReplicationState = "streaming"
	}
}

// chores make the checkpoint after a promotion.
type chores struct{ busy bool }

// maintain does what is due while there is nothing to decide (agent.maintain). Slots and settings are not modelled.
func (a *agent) maintain() {
	a.keeper.ttl, a.keeper.wait = a.policy().TTL, a.policy().LoopWait
	p, s := a.seen.probe, a.postmaster
	if p == nil || !a.known || !a.snap.Initialize.Valid() || p.inRecovery || a.checkpoint || a.chores.busy || s == nil {
		return
	}
	a.chores.busy = true
	over := false
	end := func(ok bool) {
		if over {
			return
		}
		over, a.chores.busy = true, false
		a.checkpoint = a.checkpoint || ok
		a.look()
		a.turn()
	}
	s.checkpoint(func() { a.after(0, func() { end(true) }) })
	a.after(5*time.Second, func() { end(false) })
}

// question is what another member's agent answers when it is asked directly: its published state, with its server asked
// at this moment. down tells that the host refuses.
func (a *agent) question(of string, limit time.Duration, done func(ha.Answer)) {
	w, over := a.w, false
	i := slices.IndexFunc(w.members, func(m *member) bool { return m.name == of })
	to := w.members[i]
	end := func(answer ha.Answer) {
		if !over {
			over = true
			done(answer)
		}
	}
	w.network.carry(a.m.i, to.i, nil, func() {
		back := func(answer ha.Answer) {
			answer.Name = of
			w.network.carry(to.i, a.m.i, &a.process, func() { end(answer) })
		}
		b := to.agent
		if b == nil {
			if to.frozen == 0 && !to.down {
				back(ha.Answer{Refused: true, Error: "connection refused"})
			}
			return
		}
		w.after(0, &b.process, func() { b.answer(back) })
	})
	a.after(limit, func() { end(ha.Answer{Name: of, Error: "no answer in time"}) })
}

func (a *agent) answer(back func(ha.Answer)) {
	p := a.postmaster
	silent := func() { back(ha.Answer{Error: "its agent answers, its PostgreSQL does not"}) }
	if p == nil || p.phase == dead {
		silent()
		return
	}
	known, role, grounded := a.reach, a.public.Role, a.grounded
	a.ask(p, a.w.random.between(500*time.Microsecond, 5*time.Millisecond), func(fresh *probe) {
		if fresh == nil || fresh.inRecovery && !(grounded && !a.broken) && !a.w.opt.Bugs.RestartedLSN {
			silent()
			return
		}
		known.raise(fresh)
		me := cluster.Member{Tags: a.m.tags}
		back(ha.Answer{
			Reachable: true, Primary: role == cluster.RolePrimary || !fresh.inRecovery, Position: fresh.position(),
			Timeline: fresh.timeline, MayLead: me.MayLead(), Priority: me.Priority(),
		})
	})
}
