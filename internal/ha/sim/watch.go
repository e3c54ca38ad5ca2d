package sim

import (
	"time"
)

// silentFor is how long a watch may be silent before it counts as lost (internal/dcs/etcd).
const silentFor = 2500 * time.Millisecond

// watch is an agent's watch of the store: it tells each new state late, in order, and in time that it has lost sight.
type watch struct {
	connected bool
	heard     time.Duration // true time of the last sign of life
	checking  bool
	last      time.Duration // when the newest message arrives
	revision  int64         // newest that was sent
}

// sees tells whether a member's watch is served at this moment.
func (w *World) sees(a *agent) bool {
	return w.store.serves() && w.store.deposed[a.m.i] == 0 && w.network.both(a.m.i, w.store.place())
}

// storeChanged tells all watches of a new revision.
func (w *World) storeChanged() {
	w.checkRecord()
	for _, m := range w.members {
		if a := m.agent; a != nil && a.watch.connected && w.sees(a) {
			a.deliver()
		}
	}
}

// deliver sends the present state of the store; several changes may arrive as one.
func (a *agent) deliver() {
	w := a.w
	snap := w.store.snap
	a.watch.revision = snap.Revision
	at := max(w.now+w.network.delay(w.store.place(), a.m.i), a.watch.last)
	a.watch.last = at
	w.after(at-w.now, &a.process, func() {
		if !a.watch.connected {
			return
		}
		w.counts.Deliveries++
		if snap.Revision < a.snap.Revision || snap.Revision == a.snap.Revision && a.known {
			return // merged with a newer one
		}
		a.takeSnapshot(snap)
		a.turn()
	})
}

// linksChanged has all watches looked after: some may have lost sight of the store, some may see it again.
func (w *World) linksChanged() {
	for _, m := range w.members {
		if m.agent != nil {
			m.agent.watchAgain()
		}
	}
}

// watchAgain looks after the watch every second until all is well.
func (a *agent) watchAgain() {
	if a.watch.checking {
		return
	}
	a.watch.checking = true
	a.watch.heard = a.w.now
	a.after(a.w.random.between(10*time.Millisecond, 100*time.Millisecond), a.watchCheck)
}

func (a *agent) watchCheck() {
	w := a.w
	ok := w.sees(a)
	switch {
	case ok && !a.watch.connected:
		a.watch.connected = true
		a.deliver()
	case ok && a.watch.revision < w.store.snap.Revision:
		a.deliver()
	case ok:
	case a.watch.connected && w.now-a.watch.heard > silentFor:
		a.watch.connected = false
		a.known = false
		a.turn()
	}
	if ok {
		a.watch.checking = false
		return
	}
	a.after(w.random.between(500*time.Millisecond, time.Second), a.watchCheck)
}
