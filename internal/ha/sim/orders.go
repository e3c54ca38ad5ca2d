package sim

import (
	"errors"
	"slices"
	"time"

	"github.com/havenha/haven/internal/ha"
)

// order is what an operator asks of one member.
func (m *member) order(verb string) {
	a := m.agent
	if a == nil || a.frozen > 0 || verb == "reinit" && slices.ContainsFunc(m.w.members, func(o *member) bool { return o != m && o.data.stuck }) {
		return // with one copy gone already, nobody gives another one up
	}
	if verb == "restart" {
		a.restart = &ha.Restart{}
	} else {
		a.reinit = &ha.Reinit{}
	}
	a.turn()
}

// takeOrders shows Decide the orders that may be carried out, and forgets those that may not (agent.takeOrders).
func (a *agent) takeOrders(v *ha.View) {
	if a.restart != nil && (a.task == nil || a.task.kind != ha.RestartServer) && ha.RefuseRestart(*v, *a.restart) != "" {
		a.restart = nil
	}
	v.Restart = a.restart
	leads := v.Lease.Held || v.Store.Leader != nil && v.Store.Leader.Name == v.Me.Name
	if a.reinit != nil && (leads || !a.reinitAccepted && ha.RefuseReinit(*v) != "") {
		a.reinit = nil
	}
	a.reinitAccepted = a.reinit != nil
	v.Reinit = a.reinit
}

func (a *agent) settleOrder(k ha.Kind, err error) {
	switch {
	case k == ha.RestartServer:
		a.restart = nil
	case k == ha.Clone && err == nil:
		a.reinit = nil
	}
}

// stopBounded stops the server in order; what is left after the shutdown, or of one that does not stop, is ended.
func stopBounded(t *task) {
	m, s := t.a.m, t.postmaster
	if !s.alive() {
		t.next(nil)
		return
	}
	resume, n := t.answer(), t.awaited
	end := func() {
		if n == t.awaited {
			m.kill(func() { t.a.after(0, func() { resume(nil) }) })
		}
	}
	s.stopFast(func() { t.a.after(time.Second, end) }, func() { t.a.after(0, func() { resume(nil) }) })
	t.a.after(ctlTimeout, end)
	var watch func() // a postmaster that dies meanwhile leaves nothing to wait for
	watch = func() {
		switch {
		case n != t.awaited || t.over:
		case s.phase == orphaned || s.phase == dead:
			end()
		default:
			t.a.after(20*time.Millisecond, watch)
		}
	}
	watch()
}

// notReady ends a start that takes too long. A primary that was restarted is ended where a synchronous standby can take
// over; any other server lives on.
func (t *task) notReady(resume func(error)) {
	err := errors.New("not ready in time")
	if t.kind == ha.RestartServer && t.action.AsPrimary && t.snap.Sync.Active() && len(t.snap.Sync.Standbys) > 0 && !t.over {
		t.a.m.kill(func() { t.a.after(0, func() { resume(err) }) })
		return
	}
	resume(err)
}
