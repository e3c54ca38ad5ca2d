package proxy

import (
	"errors"
	"net/http"
	"syscall"
	"testing"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/dcs"
)

func isReset(err error) bool { return errors.Is(err, syscall.ECONNRESET) }

func TestWaitsForAPrimaryAndThenConnects(t *testing.T) {
	w, a := start(t, settings()), newFake(t, "db1")
	w.show(scene(nil, 0, "", a))
	c := connect(t, w.rw)
	w.until("a waiting client", func(s Stats) bool { return s.Listeners[0].Waiting == 1 })
	a.primary.Store(http.StatusOK)
	w.show(scene(a, 1, cluster.TermPromoted, a))
	c.wantServer("db1")
	c.TCPConn.CloseWrite()
	s := w.until("no session", func(s Stats) bool { return s.Listeners[0].Sessions == 0 && s.Listeners[0].Total == 1 })
	if l := s.Listeners[0]; l.Held != 1 || l.Timeouts != 0 || l.Waiting != 0 || l.In != 8 {
		t.Errorf("statistics: %+v", l)
	}
}

func TestSessionsOfAnOlderTermAreResetAtOnce(t *testing.T) {
	w, a, b := start(t, settings()), newFake(t, "db1"), newFake(t, "db2")
	a.primary.Store(http.StatusOK)
	w.show(scene(a, 1, cluster.TermPromoted, a, b))
	c := connect(t, w.rw)
	c.wantServer("db1")
	c.wantEcho()

	// The old primary still believes in itself; nobody has been asked about the new one yet.
	w.show(scene(b, 2, cluster.TermClaimed, a, b))
	c.wantReset()
	next := connect(t, w.rw)
	w.until("a waiting client", func(s Stats) bool { return s.Listeners[0].Waiting == 1 && s.Listeners[0].Reset == 1 })
	b.primary.Store(http.StatusOK)
	w.show(scene(b, 2, cluster.TermPromoted, a, b))
	next.wantServer("db2")
}

func TestTheSameHolderInANewTermIsANewLeadership(t *testing.T) {
	w, a := start(t, settings()), newFake(t, "db1")
	a.primary.Store(http.StatusOK)
	w.show(scene(a, 1, cluster.TermPromoted, a))
	c := connect(t, w.rw)
	c.wantServer("db1")
	w.show(scene(a, 2, cluster.TermPromoted, a))
	c.wantReset()
	connect(t, w.rw).wantServer("db1")
}

func TestAVanishedLeaderKeyEndsNothingButNobodyIsLetIn(t *testing.T) {
	w, a := start(t, settings()), newFake(t, "db1")
	a.primary.Store(http.StatusOK)
	w.show(scene(a, 1, cluster.TermPromoted, a))
	c := connect(t, w.rw)
	c.wantServer("db1")
	w.show(scene(nil, 0, "", a))
	w.until("no leader", func(s Stats) bool { return s.Leader.State == NoLeader })
	c.wantEcho()
	next := connect(t, w.rw)
	w.until("a waiting client", func(s Stats) bool { return s.Listeners[0].Waiting == 1 })
	w.show(scene(a, 1, cluster.TermPromoted, a))
	next.wantServer("db1")
	c.wantEcho()
}

func TestALeaderThatDoesNotSayThatItIsWritableGetsNothing(t *testing.T) {
	w, a := start(t, settings()), newFake(t, "db1")
	w.show(scene(a, 1, cluster.TermPromoted, a))
	c := connect(t, w.rw)
	w.until("several checks", func(Stats) bool { return a.asked.Load() >= 3 })
	s := w.proxy.Snapshot()
	if s.Leader.State != Checking || s.Leader.Why != "its REST API answers 503 to /primary" || a.accepted.Load() != 0 {
		t.Errorf("leader %+v, %d sessions reached its server", s.Leader, a.accepted.Load())
	}
	a.primary.Store(http.StatusOK)
	c.wantServer("db1")
}

func TestAClaimIsNotEvenAsked(t *testing.T) {
	w, a := start(t, settings()), newFake(t, "db1")
	a.primary.Store(http.StatusOK)
	w.show(scene(a, 3, cluster.TermClaimed, a))
	s := w.until("a seen claim", func(s Stats) bool { return s.Leader.Name == "db1" })
	if s.Leader.State != Checking || s.Leader.Why != "term 3 is claimed, not yet promoted" || a.asked.Load() != 0 {
		t.Errorf("leader %+v, asked %d times", s.Leader, a.asked.Load())
	}
}

func TestAForeignLeaderIsAdmittedByItsRESTAPI(t *testing.T) {
	w, a, b := start(t, settings()), newFake(t, "db1"), newFake(t, "db2")
	a.primary.Store(http.StatusOK)
	w.show(scene(a, 0, "", a, b))
	c := connect(t, w.rw)
	c.wantServer("db1")

	// Patroni creates its leader key anew after a long absence of the store: same holder, sessions go on.
	again := scene(a, 0, "", a, b)
	again.Leader.CreateRev, again.Leader.ModRev = 20, 20
	asked := a.asked.Load()
	w.show(again)
	w.until("another check", func(s Stats) bool { return a.asked.Load() > asked && s.Leader.State == Admitted })
	c.wantEcho()

	b.primary.Store(http.StatusOK)
	w.show(scene(b, 0, "", a, b))
	c.wantReset()
	connect(t, w.rw).wantServer("db2")
}

func TestAnAPIOfAnotherMemberIsNotBelieved(t *testing.T) {
	w, a, b := start(t, settings()), newFake(t, "db1"), newFake(t, "db2")
	b.primary.Store(http.StatusOK)
	s := scene(a, 0, "", a, b)
	s.Members[0].APIURL = s.Members[1].APIURL
	w.show(s)
	w.until("a refusal", func(s Stats) bool { return s.Leader.Why == `its REST API belongs to another member, "db2"` })
}

func TestAnUnknownStoreChangesNothing(t *testing.T) {
	w, a := start(t, settings()), newFake(t, "db1")
	a.primary.Store(http.StatusOK)
	w.show(scene(a, 1, cluster.TermPromoted, a))
	c := connect(t, w.rw)
	c.wantServer("db1")
	w.watch <- dcs.Update{Err: errors.New("connection refused")}
	w.until("an unknown store", func(s Stats) bool { return !s.Store.Known && s.Store.Error == "connection refused" })
	c.wantEcho()
	connect(t, w.rw).wantServer("db1")
	w.show(scene(a, 1, cluster.TermPromoted, a))
	w.until("a known store", func(s Stats) bool { return s.Store.Known && s.Store.Error == "" })
	c.wantEcho()
}

func TestOnceAdmittedNothingIsAskedWhileSessionsFlow(t *testing.T) {
	w, a := start(t, settings()), newFake(t, "db1")
	a.primary.Store(http.StatusOK)
	w.show(scene(a, 1, cluster.TermPromoted, a))
	connect(t, w.rw).wantServer("db1")
	asked := a.asked.Load()
	for range 50 {
		w.show(scene(a, 1, cluster.TermPromoted, a))
		connect(t, w.rw).wantServer("db1")
	}
	if now := a.asked.Load(); now != asked {
		t.Errorf("the REST API was asked %d times more", now-asked)
	}
}

func TestAFailedConnectionMakesThePrimaryAskedAgain(t *testing.T) {
	w, a, b := start(t, settings()), newFake(t, "db1"), newFake(t, "db2")
	a.primary.Store(http.StatusOK)
	w.show(scene(a, 1, cluster.TermPromoted, a, b))
	connect(t, w.rw).wantServer("db1")
	a.kill()
	c := connect(t, w.rw)
	w.until("a failed connection, and a client that waits", func(s Stats) bool {
		l := s.Listeners[0]
		return l.Servers[0].Errors >= 1 && s.Leader.State == Checking && l.Waiting == 1
	})
	b.primary.Store(http.StatusOK)
	w.show(scene(b, 2, cluster.TermPromoted, a, b))
	c.wantServer("db2")
}
