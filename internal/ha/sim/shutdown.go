package sim

import (
	"time"

	"github.com/havenha/haven/internal/ha"
)

// shutdown ends the agent in an orderly way: a leader hands over to a synchronous standby that streams, or stops and gives
// the key up; a standby stops; in pause the server is left running (agent.shutdown).
func (a *agent) shutdown() {
	if a.ending {
		return
	}
	if a.policy().Pause {
		a.m.halt()
		return
	}
	if a.task != nil {
		a.task.cancel()
	}
	a.ending = true
	a.after(2*time.Second, a.beginShutdown)
	a.shutdownTurn()
}

// shutdownTurn keeps the promise of the deadline while the server is being stopped.
func (a *agent) shutdownTurn() {
	a.lastTurn = a.now()
	if a.holder != nil && (a.lost || a.now() >= a.deadline) {
		a.m.kill(func() {})
	}
	a.timer++
	mine := a.timer
	wait := time.Second
	if a.holder != nil && a.now() < a.deadline {
		wait = min(wait, a.deadline.Sub(a.now()))
	}
	a.after(max(wait, time.Millisecond), func() {
		if mine == a.timer {
			a.shutdownTurn()
		}
	})
}

func (a *agent) beginShutdown() {
	t := &task{a: a, kind: ha.Switch, since: a.now(), snap: a.snap, leaseID: a.leaseID, postmaster: a.postmaster, seen: a.seen, dynamic: a.dynamic}
	t.action = ha.Action{Kind: ha.Switch}
	if a.holder != nil {
		h := *a.holder
		t.holder = &h
	}
	t.with = a.successor()
	if t.with != "" {
		t.steps = []step{mustRenew, askCandidate, checkpointFirst, stillStreams, shutDownFast, awaitReceived, giveAway, leave}
	} else {
		t.steps = []step{stopForGood, giveUp, leave}
	}
	t.onFail = func() { // what could not be handed over is stopped and released
		t.onFail = a.gone
		t.steps, t.position, t.over = []step{stopForGood, giveUp, leave}, 0, false
		t.next(nil)
	}
	a.task = t
	a.after(time.Minute, a.gone)
	t.next(nil)
}

// gone ends the agent's process; somebody who wanted the agent begins another.
func (a *agent) gone() {
	m := a.m
	m.halt()
	if a.again {
		m.w.after(time.Second, nil, func() {
			if m.agent == nil && !m.down && m.foreign == nil {
				m.begin()
			}
		})
	}
}

func leave(t *task) { t.a.gone() }

// stopForGood stops the server; without a leadership whatever may be writable is ended at once.
func stopForGood(t *task) {
	p := t.seen.probe
	if t.holder == nil && (p == nil || !p.inRecovery) {
		killAll(t)
		return
	}
	stopFast(t)
}

func giveUp(t *task) {
	if t.holder == nil || t.a.m.server.alive() {
		t.next(nil)
		return
	}
	h := *t.holder
	t.ask(operation{try: func(s *store) error { return s.release(h, t.a.m.data.end()) }}, false, nil)
}

// successor is a standby that leadership may go to when this agent ends; empty: none.
func (a *agent) successor() string {
	p := a.seen.probe
	if a.holder == nil || a.lost || !a.known || p == nil || p.inRecovery {
		return ""
	}
	return ha.Successor(a.view(a.now()))
}
