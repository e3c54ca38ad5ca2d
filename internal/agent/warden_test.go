package agent

import (
	"errors"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/havenha/haven/internal/bootclock"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/dcs"
	"github.com/havenha/haven/internal/guard"
	"github.com/havenha/haven/internal/ha"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// guarded is an agent of a member without a server, with a guard that is armed.
func guarded(t *testing.T) *Agent {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	link, _, err := guard.Open(guard.Options{Dir: t.TempDir(), Log: log})
	pgtest.Must(t, err)
	o := pgtest.Options(t, "a")
	pgtest.Must(t, os.MkdirAll(o.DataDir, 0o700))
	a := New(Options{Node: &config.Node{Name: "a"}, Server: pgtest.New(t, o), Guard: link, Log: log})
	t.Cleanup(func() {
		if err := link.Disarm(func() bool { return true }); err != nil {
			t.Error(err)
		}
		link.Close()
	})
	a.armForTest(t)
	return a
}

func (a *Agent) armForTest(t *testing.T) {
	t.Helper()
	a.warden.release.Store(false)
	pgtest.Must(t, a.warden.link.Arm(1, bootclock.Now().Add(time.Minute), a.server.Target(), nil))
}

func (a *Agent) armedAfter(t *testing.T, v ha.View) bool {
	t.Helper()
	a.releaseGuard(v)
	a.warden.disarm()
	s, err := a.warden.link.State()
	pgtest.Must(t, err)
	return s.Deadline != 0
}

func standby() ha.View {
	return ha.View{Server: ha.Server{Process: ha.ProcessUp, Probed: true, InRecovery: true}}
}

// TestPendingPromotionKeepsTheDeadline: a standby that was told to become a primary, and may still do so, is not let go of
// before another member leads; neither by the agent that asked for it nor by the next one.
func TestPendingPromotionKeepsTheDeadline(t *testing.T) {
	for name, pending := range map[string]func(*testing.T, *Agent){
		"asked by this agent":    func(_ *testing.T, a *Agent) { a.warden.promoting.Store(true) },
		"asked by a former one":  func(t *testing.T, a *Agent) { pgtest.Must(t, a.writeMark(ha.Promotions{Member: "a", Pending: 1})) },
		"the mark can't be read": func(t *testing.T, a *Agent) { pgtest.Must(t, os.WriteFile(a.markPath(), []byte("?"), 0o600)) },
	} {
		t.Run(name, func(t *testing.T) {
			a := guarded(t)
			pending(t, a)
			if !a.armedAfter(t, standby()) {
				t.Fatal("the deadline was taken back")
			}
			a.st.snap.Leader = &cluster.Leader{Name: "b"}
			if !a.armedAfter(t, standby()) {
				t.Fatal("the deadline was taken back for a leader that is not known any more")
			}
			a.st.known = true
			if a.armedAfter(t, standby()) {
				t.Error("another leads, and the deadline is in force")
			}
		})
	}
	a := guarded(t)
	if a.armedAfter(t, standby()) {
		t.Error("a standby without a promotion has a deadline")
	}
}

// TestPauseReleasesWhileATaskRuns: in pause nothing may be ended, however long an action takes; otherwise the guard keeps
// its deadline while one runs.
func TestPauseReleasesWhileATaskRuns(t *testing.T) {
	a := guarded(t)
	a.st.task = &ha.Task{Kind: ha.Start}
	if !a.armedAfter(t, standby()) {
		t.Error("the deadline was taken back while an action runs")
	}
	v := standby()
	v.Policy.Pause = true
	if a.armedAfter(t, v) {
		t.Error("a deadline is in force in pause")
	}
	a.armForTest(t)
	a.releaseNow()
	if a.warden.link.Armed() {
		t.Error("a deadline is in force after the end of the agent in pause")
	}
}

// TestServerThatDoesNotEndIsLeftToOthers: a kill that is not verified within a ttl ends the renewals, until nothing is left of
// the server. (What is stuck in the kernel cannot be made here.)
func TestServerThatDoesNotEndIsLeftToOthers(t *testing.T) {
	a := guarded(t) // without a store: a renewal that is tried would panic
	a.keeper.timing(10*time.Second, time.Second)
	a.warden.ending.Store(int64(bootclock.Now().Add(-5 * time.Second)))
	pgtest.Must(t, a.warden.ready())
	a.warden.ending.Store(int64(bootclock.Now().Add(-11 * time.Second)))
	if _, _, err := a.prove(t.Context(), dcs.Holder{}); !errors.Is(err, errUnguarded) {
		t.Errorf("leadership is proven over a server that does not end: %v", err)
	}
	a.takeSeen(t.Context(), seen{process: ha.ProcessOrphans})
	if a.warden.ready() == nil {
		t.Error("processes are left, and renewals count")
	}
	a.takeSeen(t.Context(), seen{process: ha.ProcessDown})
	pgtest.Must(t, a.warden.ready())
}

// TestTakenOverAgentEnds: of two agents of one member the one that came first ends.
func TestTakenOverAgentEnds(t *testing.T) {
	a := guarded(t)
	a.noticeTakeover(guard.ErrClosed)
	if a.warden.takenOver.Load() {
		t.Fatal("any error counts as a takeover")
	}
	a.noticeTakeover(guard.ErrTakenOver)
	if _, err := a.turn(t.Context()); err == nil || err.Error() != guard.ErrTakenOver.Error() {
		t.Errorf("the agent goes on: %v", err)
	}
}
