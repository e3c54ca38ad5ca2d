package e2e

import (
	"context"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/havenha/haven/internal/check"
	"github.com/havenha/haven/internal/drill"
	"github.com/havenha/haven/internal/drill/hosts"
	"github.com/havenha/haven/internal/drill/stack"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// TestHosts does to hosts, and to the network between them, what a cluster has to survive, under load of every kind:
// afterwards all is healthy again by itself, and nothing that was acknowledged is lost.
func TestHosts(t *testing.T) {
	if err := hosts.Available(); err != nil {
		t.Skip(err)
	}
	s := startStack(t, "haven", stack.Haven{Binary: binary(t)}, stack.Settings{
		TTL: 10 * time.Second, LoopWait: 2 * time.Second, RetryTimeout: 4 * time.Second, Synchronous: "on",
	})
	for _, d := range stack.Days() {
		if s.Settings.Fit(d) {
			t.Run(d.Name, func(t *testing.T) { survive(t, s, d) })
		}
	}
	t.Run("synchronous standby cut", func(t *testing.T) { loseStandby(t, s) })
	t.Run("no quorum, no writes", func(t *testing.T) { loseQuorum(t, s) })
}

// smallDisk is the size of the file systems on which disks are filled: room for the data and for some WAL.
const smallDisk = 400 << 20

// TestFullDisks is TestHosts with disks that can be filled.
func TestFullDisks(t *testing.T) {
	if err := hosts.Available(); err != nil {
		t.Skip(err)
	}
	s := startStack(t, "small disks", stack.Haven{Binary: binary(t)}, stack.Settings{
		TTL: 10 * time.Second, LoopWait: 2 * time.Second, RetryTimeout: 4 * time.Second, Synchronous: "on", SmallDisk: smallDisk,
	})
	for _, d := range stack.Days() {
		if s.Settings.Fit(d) {
			t.Run(d.Name, func(t *testing.T) { survive(t, s, d) })
		}
	}
}

// TestThePeerRunsOnHosts runs Debian's Patroni, etcd and HAProxy in the same way: what make bench measures has to be a
// cluster that works.
func TestThePeerRunsOnHosts(t *testing.T) {
	if err := hosts.Available(); err != nil {
		t.Skip(err)
	}
	need(t, "patroni")
	need(t, "haproxy")
	s := startStack(t, "patroni", stack.Patroni{BinDir: pgtest.BinDirs()[0]}, stack.Settings{
		TTL: 20 * time.Second, LoopWait: time.Second, RetryTimeout: 3 * time.Second, Synchronous: "on", Check: "inter 500ms fall 2 rise 1",
	})
	survive(t, s, hostDay("switchover"))
	before, err := s.StoreIndex(t.Context())
	if err != nil {
		t.Error(err)
	}
	survive(t, s, hostDay("host killed"))
	if after, err := s.StoreIndex(t.Context()); err != nil || after <= before {
		t.Errorf("the store's raft index went from %d to %d (%v) over a failover", before, after, err)
	}
}

func startStack(t *testing.T, name string, p stack.Product, set stack.Settings) *stack.Stack {
	t.Helper()
	s, err := stack.New(name, openDir(t), p, set, credential(pgtest.Account(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			logs, _ := filepath.Glob(s.LogPath("*", "*"))
			for _, log := range logs {
				t.Logf("%s:\n%s", filepath.Base(log), tail(log, 12_000))
			}
		}
	})
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	return s
}

// loaded waits for health and puts load on the cluster.
func loaded(t *testing.T, s *stack.Stack) (string, *drill.Run) {
	t.Helper()
	primary, err := s.AwaitHealthy(t.Context(), 2*awaitFor)
	if err != nil {
		t.Fatal(err)
	}
	load, err := drill.Begin(t.Context(), drill.Load{
		Routes: map[string]string{"proxy": s.WriteDSN()}, Dial: s.Dial, Clients: drill.Mix{Ledger: 3, Registers: 2, Lists: 1, Transfers: 1, Readers: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	awaitWrites(t, load)
	return primary, load
}

func awaitWrites(t *testing.T, load *drill.Run) {
	t.Helper()
	if err := load.AwaitWrites(t.Context(), 100, awaitFor); err != nil {
		t.Fatal(err)
	}
}

// TestFailsafeHosts: without a quorum of etcd the leader goes on, and nobody notices.
func TestFailsafeHosts(t *testing.T) {
	if err := hosts.Available(); err != nil {
		t.Skip(err)
	}
	s := startStack(t, "failsafe", stack.Haven{Binary: binary(t)}, stack.Settings{
		TTL: 10 * time.Second, LoopWait: 2 * time.Second, RetryTimeout: 4 * time.Second, Synchronous: "on", Failsafe: true,
	})
	for _, d := range stack.Days() {
		if s.Settings.Fit(d) {
			t.Run(d.Name, func(t *testing.T) { survive(t, s, d) })
		}
	}
}

func hostDay(name string) stack.Day {
	all := stack.Days()
	return all[slices.IndexFunc(all, func(d stack.Day) bool { return d.Name == name })]
}

func survive(t *testing.T, s *stack.Stack, d stack.Day) {
	old, load := loaded(t, s)
	target := d.Target(old, 0)
	mark := check.Fault{Name: d.Name, Target: target, Begin: load.Now()}
	undo, err := d.Do(t.Context(), s, target)
	if err != nil {
		t.Fatal(err)
	}
	if d.Leadership == stack.Moves {
		if err := s.AwaitTakeover(t.Context(), awaitFor, old); err != nil {
			t.Fatal(err)
		}
		awaitWrites(t, load)
	}
	if undo != nil {
		time.Sleep(d.Lasts)
		mark.End = load.Now()
		if err := undo(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	load.Mark(mark)
	now := recovered(t, s, load)
	if wrong := d.Broken(old, now); wrong != "" {
		t.Error(wrong)
	}
}

// recovered waits for health, ends the load and judges.
func recovered(t *testing.T, s *stack.Stack, load *drill.Run) string {
	t.Helper()
	begun := time.Now()
	now, err := s.AwaitHealthy(t.Context(), 2*awaitFor)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("healthy %.1f s after the end of the fault", time.Since(begun).Seconds())
	awaitWrites(t, load)
	history := load.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), awaitFor)
	defer cancel()
	if err := load.Final(ctx, s.WriteDSN()); err != nil {
		t.Fatal(err)
	}
	report := check.Judge(history)
	t.Log(report.Text())
	if report.Verdict != check.Pass {
		t.Errorf("verdict %s", report.Verdict)
	}
	return now
}

// loseStandby cuts the synchronous standby off. Its walsender counts as streaming until TCP gives up, but commits must
// not wait for that, nor for the end of its lease: another one takes its place.
func loseStandby(t *testing.T, s *stack.Stack) {
	primary, load := loaded(t, s)
	c, err := s.Connect(t.Context(), s.DSN(primary))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.WithoutCancel(t.Context()))
	var standby string
	if err := c.QueryRow(t.Context(), "SELECT application_name FROM pg_stat_replication WHERE sync_state = 'sync'").Scan(&standby); err != nil {
		t.Fatal(err)
	}
	host := s.Net.Host(standby)
	mark := check.Fault{Name: "synchronous standby cut", Target: standby, Begin: load.Now()}
	undo, err := host.Cut(t.Context(), s.Net.Others(host))
	if err != nil {
		t.Fatal(err)
	}
	awaitWrites(t, load)
	mark.End = load.Now()
	if waited := mark.End - mark.Begin; waited > s.Settings.TTL {
		t.Errorf("writes went on after %s only", waited)
	}
	if err := undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	load.Mark(mark)
	if now := recovered(t, s, load); now != primary {
		t.Errorf("%s led, and now %s does", primary, now)
	}
}

// loseQuorum cuts the etcd of two of three hosts off, long enough for every lease to end: nobody may write then, and all
// is well again afterwards.
func loseQuorum(t *testing.T, s *stack.Stack) {
	primary, load := loaded(t, s)
	mark := check.Fault{Name: "etcd quorum lost", Begin: load.Now()}
	undo, err := hostDay("etcd quorum lost").Do(t.Context(), s, primary)
	if err != nil {
		t.Fatal(err)
	}
	for begun := time.Now(); len(s.Primaries(t.Context())) > 0; time.Sleep(100 * time.Millisecond) {
		if time.Since(begun) > awaitFor {
			t.Fatalf("%s still writes although nobody can prove leadership", primary)
		}
	}
	mark.End = load.Now()
	if err := undo(t.Context()); err != nil {
		t.Fatal(err)
	}
	load.Mark(mark)
	recovered(t, s, load)
}
