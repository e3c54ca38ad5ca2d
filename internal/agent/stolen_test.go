package agent_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/havenha/haven/internal/bootclock"
	"github.com/havenha/haven/internal/cluster"
)

// TestStolenTime: the wall clock of all hosts runs ahead of the boot clock by far, as if their virtual machines had been stopped. A leader
// that can prove itself goes on; one that cannot is not writable a moment later, though its lease looks alive for a long time.
func TestStolenTime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "{ttl: 60, loop_wait: 10, synchronous_mode: off}", "a", "b")
	var stolen atomic.Int64
	w.clocks = func() bootclock.Reading {
		r := bootclock.Read()
		r.Wall = r.Wall.Add(time.Duration(stolen.Load()))
		return r
	}
	w.start("a")
	w.start("b")
	s := w.await("two members", whole(2))
	leader := w.leader(s)
	w.mustExec(leader.name, "CREATE TABLE t (n int)")
	jump := func() {
		stolen.Add(int64(time.Hour))
		for _, m := range w.members {
			m.agent.Wake()
		}
	}

	jump()
	time.Sleep(3 * time.Second) // the one thing to see is that nothing happens
	w.mustExec(leader.name, "INSERT INTO t VALUES (1)")
	if now := w.await("two members", whole(2)); now.Term.Number != s.Term.Number {
		t.Fatalf("term %d was %d", now.Term.Number, s.Term.Number)
	}

	w.server.Stop()
	<-w.server.Stopped()
	jump()
	w.eventually("the primary is not writable", 30*time.Second, func() bool { return w.exec(leader.name, "INSERT INTO t VALUES (2)") != nil })
	w.startEtcd()
	w.await("the cluster is whole again", func(now cluster.Snapshot) bool { return now.Leader != nil && whole(2)(now) })
}
