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
// hold-<key> of the member is there; refuse-<key> makes them fail.
func hooked(t *testing.T, dcs string, names ...string) *world {
	t.Helper()
	w := newWorld(t, dcs, names...)
	text := readFile(t, w.file)
	for _, n := range names {
		script := filepath.Join(w.dir, n+".sh")
		body := fmt.Sprintf(`#!/bin/sh
key=$1; shift
while [ -e %[1]s/%[2]s.hold-$key ]; do sleep 0.05; done
echo "$key $*" | sed 's/ *$//' >> %[1]s/%[2]s.told
[ ! -e %[1]s/%[2]s.refuse-$key ]
`, w.dir, n)
		if err := os.WriteFile(script, []byte(body), 0o755); err != nil {
			t.Fatal(err)
		}
		told := filepath.Join(w.dir, n+".told")
		if err := os.WriteFile(told, nil, 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(told, 0o666); err != nil {
			t.Fatal(err)
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
	pgtest.Eventually(w.t, "leadership of "+name+" is renewed", func() error {
		if s := w.members[name].agent.Status(); !s.Holds || s.Deadline.Sub(first) < d {
			return fmt.Errorf("holds %v, deadline %s after the first", s.Holds, s.Deadline.Sub(first))
		}
		return nil
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
