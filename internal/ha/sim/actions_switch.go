package sim

import (
	"errors"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
)

// The steps of a switchover, after leadership is proven.

func askCandidate(t *task) {
	resume := t.answer()
	t.a.question(t.with, 2*time.Second, func(answer ha.Answer) {
		if !answer.Reachable {
			resume(errUpstream)
			return
		}
		resume(nil)
	})
}

func checkpointFirst(t *task) {
	s := t.postmaster
	if !s.alive() {
		t.next(errStart)
		return
	}
	resume := t.answer()
	s.checkpoint(func() { t.a.after(0, func() { resume(nil) }) })
	t.a.after(10*time.Second, func() { resume(errStart) })
}

func stillStreams(t *task) {
	resume := t.answer()
	t.a.ask(t.postmaster, 3*time.Millisecond, func(p *probe) {
		if p != nil {
			for _, o := range p.standbys {
				if o.Name == t.with && o.State == "streaming" {
					resume(nil)
					return
				}
			}
		}
		resume(errUpstream)
	})
}

// stillAsked reads the request once more (agent.stillAsked).
func stillAsked(t *task) {
	if t.action.Request == 0 {
		t.next(nil)
		return
	}
	resume := t.answer()
	t.a.snapshot(func(s cluster.Snapshot, err error) {
		if err == nil && !s.Failover.SameAs(t.snap.Failover) {
			err = errNotAsked
		}
		resume(err)
	})
}

// shutDownFast stops the primary; processes that outlive the shutdown checkpoint by a second are ended.
func shutDownFast(t *task) {
	m, s := t.a.m, t.postmaster
	if !s.alive() {
		t.next(errStart)
		return
	}
	resume, n := t.answer(), t.awaited
	t.a.ordered = true
	s.stopFast(func() {
		t.a.after(time.Second, func() {
			if n == t.awaited && s.alive() {
				m.kill(func() { t.a.after(0, func() { resume(nil) }) })
			}
		})
	}, func() { t.a.after(0, func() { resume(nil) }) })
	t.a.after(ctlTimeout, func() { resume(errors.New("the server does not stop")) })
}

func awaitReceived(t *task) {
	a, resume, n := t.a, t.answer(), t.awaited
	end, until := a.m.data.end(), a.now().Add(5*time.Second)
	var once func()
	once = func() {
		a.question(t.with, 2*time.Second, func(answer ha.Answer) {
			switch {
			case n != t.awaited:
			case answer.Reachable && answer.Position >= end:
				resume(nil)
			case a.now() >= until:
				resume(errors.New("the candidate did not receive the end of the WAL"))
			default:
				a.after(20*time.Millisecond, once)
			}
		})
	}
	once()
}
