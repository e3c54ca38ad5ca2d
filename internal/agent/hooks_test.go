package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// hooked is a world whose members' commands write what they are told into <dir>/<member>.told, and wait while the file
// hold-<key> of the member is there, which stands in <member>.begun; refuse-<key> makes them fail.
func hooked(t *testing.T, dcs string, names ...string) *world {
	t.Helper()
	w := newWorld(t, dcs, names...)
	text := readFile(t, w.file)
	for _, n := range names {
		script := filepath.Join(w.dir, n+".sh")
		body := fmt.Sprintf(`#!/bin/sh
key=$1; shift
echo "$key" >> %[1]s/%[2]s.begun
while [ -e %[1]s/%[2]s.hold-$key ]; do sleep 0.05; done
echo "$key $*" | sed 's/ *$//' >> %[1]s/%[2]s.told
[ ! -e %[1]s/%[2]s.refuse-$key ]
`, w.dir, n)
		if err := os.WriteFile(script, []byte(body), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, file := range []string{".told", ".begun"} {
			pgtest.Must(t, os.WriteFile(filepath.Join(w.dir, n+file), nil, 0o666))
			pgtest.Must(t, os.Chmod(filepath.Join(w.dir, n+file), 0o666))
		}
		hooks := fmt.Sprintf("pre_promote: %[1]s pre_promote, before_stop: %[1]s before_stop, callbacks: {", script)
		for _, on := range []string{"on_start", "on_stop", "on_restart", "on_reload", "on_role_change"} {
			hooks += fmt.Sprintf("%s: %q, ", on, script+" callback")
		}
		text = strings.Replace(text, n+": {postgresql: {", n+": {postgresql: {"+hooks+"}, ", 1)
	}
	if err := os.WriteFile(w.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func (w *world) told(name string) []string {
	return strings.Split(strings.TrimSpace(readFile(w.t, filepath.Join(w.dir, name+".told"))), "\n")
}

// forget empties what a member was told, and awaitTold waits until it is just this.
func (w *world) forget(names ...string) {
	w.t.Helper()
	for _, n := range names {
		if err := os.Truncate(filepath.Join(w.dir, n+".told"), 0); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) awaitTold(name string, want ...string) {
	w.t.Helper()
	pgtest.Eventually(w.t, name+" was told "+strings.Join(want, ", "), func() error {
		got := w.told(name)
		if !slices.ContainsFunc(want, isReload) { // the settings of another role are brought into force by a reload
			got = slices.DeleteFunc(got, isReload)
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("%s was told %q, want %q", name, got, want)
		}
		return nil
	})
}

func isReload(line string) bool { return strings.Contains(line, " on_reload ") }

// mark makes the file that holds a command of a member up, or makes it fail; the result takes it away.
func (w *world) mark(name, how string) (remove func()) {
	w.t.Helper()
	path := filepath.Join(w.dir, name+"."+how)
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		w.t.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			w.t.Error(err)
		}
	}
}

// switchTo asks for a switchover, once the leader knows that the other streams.
func (w *world) switchTo(from, to string) {
	w.t.Helper()
	pgtest.Eventually(w.t, from+" sees "+to+" stream", func() error {
		if p := w.members[from].agent.Status().Probe; p != nil && slices.ContainsFunc(p.Standbys, func(s postgres.Walsender) bool { return s.Name == to && s.State == "streaming" }) {
			return nil
		}
		return fmt.Errorf("it does not")
	})
	if err := w.store.PutFailover(w.t.Context(), cluster.Failover{Leader: from, Candidate: to}, -1); err != nil {
		w.t.Fatal(err)
	}
}

// renewedFor waits until a leader's deadline has moved on by so much.
func (w *world) renewedFor(name string, d time.Duration) {
	w.t.Helper()
	first := w.members[name].agent.Status().Deadline
	w.eventually("leadership of "+name+" is renewed", awaitFor, func() bool {
		s := w.members[name].agent.Status()
		return s.Holds && s.Deadline.Sub(first) >= d
	})
}

func led(name string, n int) func(cluster.Snapshot) bool {
	return func(s cluster.Snapshot) bool { return s.Leader != nil && s.Leader.Name == name && whole(n)(s) }
}

// TestOperatorsCommands runs callbacks and the scripts around stop and promotion through the life of a cluster, and lets
// each of them hang or fail once: nothing waits for a callback, leadership is renewed while a script runs.
func TestOperatorsCommands(t *testing.T) {
	w := hooked(t, "{ttl: 10, loop_wait: 1, synchronous_mode: off}", "a", "b")
	w.start("a")
	w.await("a leads", led("a", 1))
	w.awaitTold("a", "callback on_start primary test")
	b := w.start("b")
	w.await("b follows", led("a", 2))
	w.awaitTold("b", "callback on_start replica test")

	if err := w.restart(b, ha.Restart{}); err != nil {
		t.Fatal(err)
	}
	w.awaitTold("b", "callback on_start replica test", "before_stop", "callback on_restart replica test")
	b.agent.Reload(b.node)
	w.awaitTold("b", "callback on_start replica test", "before_stop", "callback on_restart replica test", "callback on_reload replica test")
	w.await("b streams", led("a", 2))

	w.forget("a", "b")
	release := w.mark("a", "hold-callback") // on_stop hangs, and what comes after it is told all the same
	w.switchTo("a", "b")
	w.await("switchover to b", led("b", 2))
	w.awaitTold("b", "pre_promote", "callback on_role_change primary test")
	w.awaitTold("a", "before_stop")
	release()
	w.awaitTold("a", "before_stop", "callback on_role_change replica test")

	w.forget("a", "b")
	release = w.mark("a", "refuse-pre_promote")
	w.switchTo("b", "a")
	w.awaitTold("a", "pre_promote")
	w.await("b leads again, since a may not be promoted", led("b", 2))
	release()
	w.renewedFor("b", 11*time.Second) // a may try again after ttl

	w.forget("a", "b")
	release = w.mark("a", "hold-pre_promote")
	w.switchTo("b", "a")
	w.await("a has the leader key", func(s cluster.Snapshot) bool { return s.Leader != nil && s.Leader.Name == "a" })
	w.renewedFor("a", 10*time.Second) // though pre_promote hangs
	if got := w.told("a"); slices.Contains(got, "callback on_role_change primary test") {
		t.Errorf("promoted before the script had ended: %q", got)
	}
	release()
	w.await("a leads", led("a", 2))
	w.awaitTold("a", "pre_promote", "callback on_role_change primary test")

	w.forget("a", "b")
	w.members["a"].end()
	w.awaitTold("a", "before_stop", "callback on_stop primary test")
}

// TestLostLeaseWaitsForNoScript lets the script before a stop hang while the store is lost: the server is ended by the
// deadline of its lease, long before the script's own limit (30 s).
func TestLostLeaseWaitsForNoScript(t *testing.T) {
	w := hooked(t, "{ttl: 10, loop_wait: 1, synchronous_mode: off}", "a", "b")
	a := w.start("a")
	w.await("a leads", led("a", 1))
	w.start("b")
	w.await("b follows", led("a", 2))
	release := w.mark("a", "hold-before_stop")
	w.switchTo("a", "b")
	w.await("the switchover has begun", func(s cluster.Snapshot) bool {
		t := a.agent.Status().Task
		return t != nil && t.Kind == ha.Switch
	})
	w.server.Stop()
	begun := time.Now()
	pgtest.Eventually(t, "the server of a is ended", func() error {
		left, err := a.server.Processes()
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("processes %v are left", left)
		}
		return err
	})
	if took := time.Since(begun); took > 25*time.Second {
		t.Errorf("it took %s, as long as the script may take", took)
	}
	if got := w.told("a"); slices.Contains(got, "before_stop") {
		t.Errorf("the script has ended by itself: %q", got)
	}
	release()
	<-w.server.Stopped()
	w.startEtcd()
	w.await("somebody leads again", whole(2))
}

// stopping is a cluster with a switchover from a to b under way, in the script before the stop; release lets that go on.
func stopping(t *testing.T, dcs string) (w *world, before cluster.Snapshot, release func()) {
	t.Helper()
	w = hooked(t, dcs, "a", "b")
	w.start("a")
	w.await("a leads", led("a", 1))
	w.start("b")
	before = w.await("b follows", led("a", 2))
	release = w.mark("a", "hold-before_stop")
	w.switchTo("a", "b")
	w.eventually("the primary is about to be stopped", patient, func() bool {
		return strings.Contains(readFile(t, filepath.Join(w.dir, "a.begun")), "before_stop")
	})
	return w, before, release
}

// TestHandoverFollowsTheLease changes the ttl while a switchover stops the primary: the candidate's member key moves to a lease of
// the new ttl, after the decision and before the handover, and leadership is handed over to that lease.
func TestHandoverFollowsTheLease(t *testing.T) {
	w, before, release := stopping(t, "{ttl: 30, loop_wait: 1, synchronous_mode: off}")
	pgtest.Must(t, w.store.PutConfig(t.Context(), []byte(`{"ttl": 20, "loop_wait": 1, "synchronous_mode": false}`), -1))
	w.await("the lease of b is another", func(now cluster.Snapshot) bool {
		was, _ := before.Member("b")
		is, ok := now.Member("b")
		return ok && is.Lease != was.Lease
	})
	release()
	now := w.await("b leads", led("b", 2))
	if b, _ := now.Member("b"); now.Term.Number != before.Term.Number+1 || now.Leader.Lease != b.Lease {
		t.Errorf("leader %+v, term %+v; term %d was before it, and the lease of b is %d", now.Leader, now.Term, before.Term.Number, b.Lease)
	}
}

// TestRequestAskedForAgain: the request is written again while its switchover stops the primary, as by an operator whose first
// command has had no answer. The switchover is finished, and the second request is met by it.
func TestRequestAskedForAgain(t *testing.T) {
	w, before, release := stopping(t, "{ttl: 30, loop_wait: 1, synchronous_mode: off}")
	pgtest.Must(t, w.store.PutFailover(t.Context(), cluster.Failover{Leader: "a", Candidate: "b"}, -1))
	release()
	now := w.await("b leads", led("b", 2))
	if now.Term.Number != before.Term.Number+1 || !now.Failover.Empty() {
		t.Errorf("term %d after %d, request %+v", now.Term.Number, before.Term.Number, now.Failover)
	}
}

// TestOrderIsFinishedInAPause: an agent that is told to end in a pause leaves its server as it is, but first finishes the switchover
// for which it stops that server.
func TestOrderIsFinishedInAPause(t *testing.T) {
	w, before, release := stopping(t, "{ttl: 30, loop_wait: 1, synchronous_mode: off}")
	a := w.members["a"]
	pgtest.Must(t, w.store.PutConfig(t.Context(), []byte(`{"ttl": 30, "loop_wait": 1, "synchronous_mode": false, "pause": true}`), -1))
	w.eventually("a knows of the pause", patient, func() bool { return a.agent.Status().Dynamic.Pause })
	a.stop(nil)
	time.Sleep(time.Second) // it must not end
	release()
	pgtest.Must(t, <-a.done)
	a.done <- nil
	now := w.await("b leads", led("b", 1))
	if now.Term.Number != before.Term.Number+1 {
		t.Errorf("term %d after %d", now.Term.Number, before.Term.Number)
	}
}

// TestRequestTakenBack: a request that is taken back while its switchover waits for open transactions stops nothing.
func TestRequestTakenBack(t *testing.T) {
	w := hooked(t, "{ttl: 30, loop_wait: 1, synchronous_mode: off, haven: {switchover_wait: 30s}}", "a", "b")
	a := w.start("a")
	w.await("a leads", led("a", 1))
	w.start("b")
	before := w.await("b follows", led("a", 2))
	pid := postmaster(t, a)
	conn, err := w.connect(t.Context(), "a")
	pgtest.Must(t, err)
	tx, err := conn.Begin(t.Context())
	pgtest.Must(t, err)
	w.switchTo("a", "b")
	held := func(s cluster.Snapshot) bool { return s.Hold != nil && s.Hold.Seconds > 0 }
	w.await("new transactions are held", held)
	pgtest.Must(t, w.store.PutFailover(t.Context(), cluster.Failover{}, -1))
	pgtest.Must(t, tx.Rollback(t.Context()))
	w.await("nothing is held any more", func(s cluster.Snapshot) bool { return !held(s) })
	pgtest.Must(t, conn.Close(t.Context()))
	w.eventually("the switchover is over", patient, func() bool { return a.agent.Status().Task == nil })
	now := w.await("a leads", led("a", 2))
	if now.Term.Number != before.Term.Number || postmaster(t, a) != pid || slices.Contains(w.told("a"), "before_stop") {
		t.Errorf("term %d after %d, postmaster %d after %d: the server was stopped", now.Term.Number, before.Term.Number, postmaster(t, a), pid)
	}
}
