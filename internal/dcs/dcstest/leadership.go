package dcstest

import (
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/havenha/haven/internal/bootclock"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/dcs"
)

func leaseLife(b *bench) {
	before := bootclock.Now()
	l, err := b.store.Grant(b.ctx, ttl)
	b.ok("grant", err)
	if l.TTL < ttl {
		b.Errorf("granted %s, asked for %s", l.TTL, ttl)
	}
	if l.Began.Before(before) || bootclock.Now().Before(l.Began) {
		b.Errorf("the lease begins at %d, outside of the call", l.Began)
	}
	b.ok("keep alive", b.store.KeepAlive(b.ctx, l.ID))
	b.member("db1", l.ID)
	b.ok("revoke", b.store.Revoke(b.ctx, l.ID))
	b.ok("revoke again", b.store.Revoke(b.ctx, l.ID))
	b.is("keep alive after revoke", b.store.KeepAlive(b.ctx, l.ID), dcs.ErrLeaseGone)
	b.is("put member after revoke", b.store.PutMember(b.ctx, l.ID, cluster.Member{Name: "db1"}), dcs.ErrLeaseGone)
	if s := b.snapshot(); len(s.Members) != 0 {
		b.Errorf("the member key outlived its lease: %+v", s.Members)
	}
}

func members(b *bench) {
	l1, l2 := b.lease(), b.lease()
	b.member("db2", l2)
	b.member("db1", l1)
	s := b.snapshot()
	if len(s.Members) != 2 || s.Members[0].Name != "db1" || s.Members[0].Lease != l1 || s.Members[1].Lease != l2 {
		b.Fatalf("members: %+v", s.Members)
	}
	if m := s.Members[0]; m.State != cluster.StateRunning || m.Address() != "127.0.0.1:5432" || m.ModRev == 0 {
		b.Errorf("member came back as %+v", m)
	}
	b.ok("delete", b.store.DeleteMember(b.ctx, "db2"))
	b.ok("delete again", b.store.DeleteMember(b.ctx, "db2"))
	if s := b.snapshot(); len(s.Members) != 1 || s.Members[0].Name != "db1" {
		b.Errorf("after deleting db2: %+v", s.Members)
	}
}

func initialize(b *bench) {
	b.ok("cancel where nothing is", b.store.CancelInitialize(b.ctx))
	b.ok("begin", b.store.BeginInitialize(b.ctx))
	b.is("begin again", b.store.BeginInitialize(b.ctx), dcs.ErrConflict)
	if s := b.snapshot(); s.Initialize == nil || s.Initialize.SystemID != "" || s.Initialize.Valid() {
		b.Errorf("initialize: %+v", s.Initialize)
	}
	b.ok("cancel", b.store.CancelInitialize(b.ctx))
	if s := b.snapshot(); s.Initialize != nil {
		b.Errorf("initialize was not removed: %+v", s.Initialize)
	}
}

func founding(b *bench) {
	f := dcs.Founding{
		Claim: claimOf("db1", b.lease(), 1, 0), SystemID: "7300000000000000001",
		Config: json.RawMessage(`{"ttl": 30}`), Sync: &cluster.Sync{Leader: "db1"},
	}
	_, err := b.store.Found(b.ctx, f)
	b.is("found before begin", err, dcs.ErrConflict)
	b.ok("begin", b.store.BeginInitialize(b.ctx))
	h, err := b.store.Found(b.ctx, f)
	b.ok("found", err)
	s := b.snapshot()
	if !s.Initialize.Valid() || s.Leader == nil || s.Leader.ModRev != h.LeaderRev || s.Leader.Lease != f.Lease ||
		s.Term == nil || s.Term.ModRev != h.TermRev || !s.Term.Binds(s.Leader) {
		b.Errorf("founded: initialize %+v leader %+v term %+v holder %+v", s.Initialize, s.Leader, s.Term, h)
	}
	if s.Config == nil || string(s.Config.Raw) != `{"ttl":30}` || !s.Sync.Active() {
		b.Errorf("founded: config %+v sync %+v", s.Config, s.Sync)
	}
	again, err := b.store.Found(b.ctx, f)
	b.ok("the same founding again", err)
	if again != h {
		b.Errorf("holder %+v, and again %+v", h, again)
	}
	f.Term.Nonce = "another"
	_, err = b.store.Found(b.ctx, f)
	b.is("found again", err, dcs.ErrConflict)
	b.is("cancel once founded", b.store.CancelInitialize(b.ctx), dcs.ErrConflict)
}

func acquisition(b *bench) {
	h := b.leader("db1")
	lease := b.lease()
	before := b.snapshot()
	_, err := b.store.Acquire(b.ctx, claimOf("db2", lease, 2, h.TermRev))
	b.is("acquire what is held", err, dcs.ErrConflict)
	if s := b.snapshot(); s.Term.ModRev != before.Term.ModRev || s.Leader.ModRev != before.Leader.ModRev {
		b.Errorf("a failed acquisition wrote: %+v %+v", s.Leader, s.Term)
	}
	b.ok("release", b.store.Release(b.ctx, h, nil))
	_, err = b.store.Acquire(b.ctx, claimOf("db2", lease, 2, 0))
	b.is("acquire with a term that is not the present one", err, dcs.ErrConflict)
	if s := b.snapshot(); s.Leader != nil {
		b.Errorf("a failed acquisition wrote the leader key: %+v", s.Leader)
	}
	next, err := b.store.Acquire(b.ctx, claimOf("db2", lease, 2, h.TermRev))
	b.ok("acquire", err)
	s := b.snapshot()
	if s.Leader.Name != "db2" || s.Leader.ModRev != next.LeaderRev || s.Term.Number != 2 || s.Term.ModRev != next.TermRev {
		b.Errorf("holder %+v, leader %+v, term %+v", next, s.Leader, s.Term)
	}
	b.ok("revoke", b.store.Revoke(b.ctx, lease))
	_, err = b.store.Acquire(b.ctx, claimOf("db2", lease, 3, next.TermRev))
	b.is("acquire on a lease that has ended", err, dcs.ErrLeaseGone)
	if s := b.snapshot(); s.Leader != nil || s.Term.Number != 2 {
		b.Errorf("a refused acquisition wrote: %+v %+v", s.Leader, s.Term)
	}
}

func race(b *bench) {
	const runners = 8
	var won, lost int
	var mu sync.Mutex
	var running sync.WaitGroup
	for i := range runners {
		claim := claimOf(fmt.Sprintf("db%d", i), b.lease(), 1, 0)
		running.Go(func() {
			_, err := b.store.Acquire(b.ctx, claim)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				won++
			case errors.Is(err, dcs.ErrConflict):
				lost++
			default:
				b.Errorf("acquire: %v", err)
			}
		})
	}
	running.Wait()
	if won != 1 || lost != runners-1 {
		b.Errorf("%d won and %d lost", won, lost)
	}
}

func renewal(b *bench) {
	h := b.leader("db1")
	for range 3 {
		before := bootclock.Now()
		r, err := b.store.Renew(b.ctx, h)
		b.ok("renew", err)
		if r.TTL < ttl || r.Began.Before(before) || bootclock.Now().Before(r.Began) {
			b.Errorf("renewal %+v, called at %d", r, before)
		}
	}
	before := b.snapshot().Revision
	_, err := b.store.Renew(b.ctx, h)
	b.ok("renew", err)
	if after := b.snapshot().Revision; after != before {
		b.Errorf("a renewal wrote: revision %d, then %d", before, after)
	}
	for what, other := range map[string]dcs.Holder{
		"leader's revision": {Name: h.Name, Lease: h.Lease, LeaderRev: h.LeaderRev + 1, TermRev: h.TermRev},
		"lease":             {Name: h.Name, Lease: b.lease(), LeaderRev: h.LeaderRev, TermRev: h.TermRev},
		"term":              {Name: h.Name, Lease: h.Lease, LeaderRev: h.LeaderRev},
	} {
		_, err := b.store.Renew(b.ctx, other)
		b.is("renew with another "+what, err, dcs.ErrConflict)
	}
	_, err = b.store.Renew(b.ctx, h)
	b.ok("renew after conflicts", err)
	b.ok("revoke", b.store.Revoke(b.ctx, h.Lease))
	_, err = b.store.Renew(b.ctx, h)
	b.is("renew after the lease has ended", err, dcs.ErrConflict)
}

func release(b *bench) {
	h := b.leader("db1")
	b.member("db1", h.Lease)
	b.ok("release", b.store.Release(b.ctx, h, &cluster.Status{Optime: 4711}))
	s := b.snapshot()
	if s.Leader != nil || s.Status == nil || s.Status.Optime != 4711 {
		b.Errorf("released: leader %+v status %+v", s.Leader, s.Status)
	}
	if len(s.Members) != 1 {
		b.Errorf("the member key went with the leader key: %+v", s.Members)
	}
	b.ok("the same release again", b.store.Release(b.ctx, h, &cluster.Status{Optime: 4711}))
	b.is("release again", b.store.Release(b.ctx, h, &cluster.Status{Optime: 4712}), dcs.ErrConflict)
	if s := b.snapshot(); s.Status.Optime != 4711 {
		b.Errorf("a release that failed wrote status: %+v", s.Status)
	}
}

func handoverTo(name string, lease int64) dcs.Handover {
	return dcs.Handover{
		Candidate: name, Lease: lease, Status: &cluster.Status{Optime: 99},
		Term: cluster.Term{Number: 2, Holder: name, State: cluster.TermClaimed, Fence: cluster.FenceStopped, Nonce: "second", Since: time.Unix(0, 0).UTC()},
	}
}

func handover(b *bench) {
	h := b.leader("db1")
	lease := b.lease()
	b.member("db2", lease)
	b.ok("request", b.store.PutFailover(b.ctx, cluster.Failover{Leader: "db1", Candidate: "db2"}, 0))
	o := handoverTo("db2", lease)
	o.FailoverRev = b.snapshot().Failover.ModRev
	b.ok("hand over", b.store.HandOver(b.ctx, h, o))
	s := b.snapshot()
	if s.Leader.Name != "db2" || s.Leader.Lease != lease || s.Term.Number != 2 || !s.Term.Binds(s.Leader) {
		b.Errorf("handed over: leader %+v term %+v", s.Leader, s.Term)
	}
	if !s.Failover.Empty() || s.Failover == nil || s.Status.Optime != 99 {
		b.Errorf("handed over: failover %+v status %+v", s.Failover, s.Status)
	}
	_, err := b.store.Renew(b.ctx, h)
	b.is("renew by the one who handed over", err, dcs.ErrConflict)
	_, err = b.store.Renew(b.ctx, dcs.Holder{Name: "db2", Lease: lease, LeaderRev: s.Leader.ModRev, TermRev: s.Term.ModRev})
	b.ok("renew by the new leader", err)
	b.ok("the same handover again", b.store.HandOver(b.ctx, h, o))
	o.Term.Nonce = "another"
	b.is("hand over again", b.store.HandOver(b.ctx, h, o), dcs.ErrConflict)
}

func handoverGone(b *bench) {
	h := b.leader("db1")
	lease := b.lease()
	b.member("db2", lease)
	b.ok("revoke", b.store.Revoke(b.ctx, lease))
	before := b.snapshot()
	err := b.store.HandOver(b.ctx, h, handoverTo("db2", lease))
	if !errors.Is(err, dcs.ErrConflict) && !errors.Is(err, dcs.ErrLeaseGone) {
		b.Errorf("hand over to a lease that has ended: %v", err)
	}
	other := b.lease()
	b.member("db2", other)
	before.Revision = b.snapshot().Revision
	stale := b.lease()
	b.is("hand over to a lease that is not the member's", b.store.HandOver(b.ctx, h, handoverTo("db2", stale)), dcs.ErrConflict)
	if s := b.snapshot(); s.Leader.ModRev != h.LeaderRev || s.Term.ModRev != h.TermRev || s.Status != nil || s.Revision != before.Revision {
		b.Errorf("a failed handover wrote: %+v %+v %+v", s.Leader, s.Term, s.Status)
	}
	_, err = b.store.Renew(b.ctx, h)
	b.ok("renew after failed handovers", err)
}
