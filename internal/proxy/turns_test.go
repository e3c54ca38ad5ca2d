package proxy

import (
	"net/http"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// crowd has that many clients wait for a leader, and then shows one, at that time.
func crowd(t *testing.T, w *world, n int) (all []*client, shown time.Time) {
	t.Helper()
	a := newFake(t, "db1")
	w.show(scene(nil, 0, "", a))
	all = make([]*client, n)
	for i := range all {
		all[i] = connect(t, w.rw)
	}
	w.until("waiting clients", func(s Stats) bool { return s.Listeners[0].Waiting == n })
	a.primary.Store(http.StatusOK)
	shown = time.Now()
	w.show(scene(a, 1, cluster.TermPromoted, a))
	return all, shown
}

// TestTurnsOfThoseWhoTimeOutAreNotLost: of a crowd only a few get in before hold_timeout. Who comes afterwards does not wait for the turns that
// the others would have had.
func TestTurnsOfThoseWhoTimeOutAreNotLost(t *testing.T) {
	c := settings()
	c.Listeners[0].Admit, c.Listeners[0].HoldTimeout = 10, 10*time.Second
	w := start(t, c)
	crowd(t, w, 120)
	w.until("the others have timed out", func(s Stats) bool { l := s.Listeners[0]; return l.Timeouts > 0 && l.Waiting == 0 })
	connect(t, w.rw).wantServer("db1")
}

// TestTurnsOfThoseWhoLeaveAreNotLost: it would take a minute until all that leave had had their turns.
func TestTurnsOfThoseWhoLeaveAreNotLost(t *testing.T) {
	c := settings()
	c.Listeners[0].Admit = 1
	w := start(t, c)
	all, _ := crowd(t, w, 70)
	w.until("the burst has got in", func(s Stats) bool { return s.Listeners[0].Sessions >= 10 })
	for _, c := range all {
		c.Close()
	}
	connect(t, w.rw).wantServer("db1")
}

// TestWhoLeavesWaitsNoMore: the place of a client that has left is free soon, though no server comes.
func TestWhoLeavesWaitsNoMore(t *testing.T) {
	c := settings()
	c.Listeners[0].HoldTimeout = 0
	w := start(t, c)
	w.show(scene(nil, 0, ""))
	stays, leaves := connect(t, w.rw), connect(t, w.rw)
	w.until("two wait", func(s Stats) bool { return s.Listeners[0].Waiting == 2 })
	leaves.Close()
	w.until("one waits", func(s Stats) bool { return s.Listeners[0].Waiting == 1 })
	a := newFake(t, "db1")
	a.primary.Store(http.StatusOK)
	w.show(scene(a, 1, cluster.TermPromoted, a))
	stays.wantServer("db1")
}
