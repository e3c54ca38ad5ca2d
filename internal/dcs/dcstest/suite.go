package dcstest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/dcs"
)

// ttl is long enough that no lease ends during a test by itself.
const ttl = 30 * time.Second

// Run holds a store to every promise of package dcs. Each call of open returns a store with a prefix of its own, closed
// by open's own cleanup.
func Run(t *testing.T, open func(t *testing.T) dcs.Store) {
	tests := []struct {
		name string
		run  func(*bench)
	}{
		{"absence is read, not guessed", absence},
		{"leases", leaseLife},
		{"member keys", members},
		{"initialize is won once", initialize},
		{"founding", founding},
		{"acquisition", acquisition},
		{"one of many wins", race},
		{"renewal", renewal},
		{"a leader's writes", leaderWrites},
		{"sync is compared", syncWrites},
		{"a deposed leader writes nothing", deposed},
		{"holds end", holds},
		{"events are bounded", events},
		{"release", release},
		{"handover", handover},
		{"handover to a lease that has ended", handoverGone},
		{"failover requests", failoverRequests},
		{"dynamic configuration", configuration},
		{"watch", watch},
		{"slow watchers get the newest state", slowWatch},
		{"an ended context is not a conflict", endedContext},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			tt.run(&bench{T: t, ctx: ctx, store: open(t)})
		})
	}
}

// bench is a test with its store; its methods end the test where something fails that is not the test's subject.
type bench struct {
	*testing.T
	ctx   context.Context
	store dcs.Store
}

func (b *bench) ok(what string, err error) {
	b.Helper()
	if err != nil {
		b.Fatalf("%s: %v", what, err)
	}
}

func (b *bench) is(what string, err, want error) {
	b.Helper()
	if !errors.Is(err, want) {
		b.Fatalf("%s: got %v, want %v", what, err, want)
	}
}

func (b *bench) snapshot() cluster.Snapshot {
	b.Helper()
	s, err := b.store.Snapshot(b.ctx)
	b.ok("snapshot", err)
	return s
}

func (b *bench) lease() int64 {
	b.Helper()
	l, err := b.store.Grant(b.ctx, ttl)
	b.ok("grant", err)
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		// The store may be closed already; the lease then runs out.
		_ = b.store.Revoke(ctx, l.ID)
	})
	return l.ID
}

func (b *bench) member(name string, lease int64) {
	b.Helper()
	b.ok("put member", b.store.PutMember(b.ctx, lease, cluster.Member{
		Name: name, ConnURL: "postgres://127.0.0.1:5432/postgres", APIURL: "http://127.0.0.1:8008/patroni",
		State: cluster.StateRunning, Role: cluster.RoleReplica, Version: "4.1.4",
	}))
}

func claimOf(name string, lease int64, number uint64, termRev int64) dcs.Claim {
	return dcs.Claim{Name: name, Lease: lease, TermRev: termRev, Term: cluster.Term{
		Number: number, Holder: name, State: cluster.TermClaimed, Fence: cluster.FenceLease,
		Nonce: name + "-nonce", SystemID: "7300000000000000001", Since: time.Date(2031, 5, 6, 3, 0, 0, 0, time.UTC),
	}}
}

// leader makes name the leader of the first term.
func (b *bench) leader(name string) dcs.Holder {
	b.Helper()
	h, err := b.store.Acquire(b.ctx, claimOf(name, b.lease(), 1, 0))
	b.ok("acquire", err)
	return h
}

func absence(b *bench) {
	s := b.snapshot()
	if s.Leader != nil || s.Term != nil || s.Sync != nil || s.Status != nil || s.Config != nil || s.Initialize != nil ||
		s.Failover != nil || s.History != nil || s.Failsafe != nil || len(s.Members) != 0 || len(s.Events) != 0 {
		b.Errorf("an empty prefix was read as %+v", s)
	}
	if s.ClusterID == 0 || s.Revision == 0 {
		b.Errorf("the snapshot does not say which cluster answered, and of which revision: %+v", s)
	}
}

func endedContext(b *bench) {
	h := b.leader("db1")
	ctx, cancel := context.WithCancel(b.ctx)
	cancel()
	_, snapshotErr := b.store.Snapshot(ctx)
	_, renewErr := b.store.Renew(ctx, h)
	_, _, writeErr := b.store.Write(ctx, h, dcs.Changes{Status: &cluster.Status{Optime: 1}})
	for what, err := range map[string]error{
		"snapshot": snapshotErr, "renew": renewErr, "write": writeErr, "release": b.store.Release(ctx, h, nil),
	} {
		if err == nil || errors.Is(err, dcs.ErrConflict) || errors.Is(err, dcs.ErrLeaseGone) {
			b.Errorf("%s with an ended context: got %v, want an error that says nothing about the store", what, err)
		}
	}
	if s := b.snapshot(); s.Leader == nil || s.Leader.ModRev != h.LeaderRev {
		b.Errorf("the leader key changed: %+v", s.Leader)
	}
}
