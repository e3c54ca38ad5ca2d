package dcstest

import (
	"context"
	"encoding/json"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/dcs"
)

// write makes changes that must succeed.
func (b *bench) write(h dcs.Holder, c dcs.Changes) (dcs.Holder, int64) {
	b.Helper()
	next, rev, err := b.store.Write(b.ctx, h, c)
	b.ok("write", err)
	return next, rev
}

func leaderWrites(b *bench) {
	h := b.leader("db1")
	term := b.snapshot().Term
	term.State, term.Timeline = cluster.TermPromoted, 3
	id := "7300000000000000001"
	next, syncRev := b.write(h, dcs.Changes{
		Status:   &cluster.Status{Optime: 83886416, Slots: map[string]cluster.LSN{"db2": 83886080}, RetainSlots: []string{"db2"}},
		History:  []cluster.HistoryLine{{Timeline: 1, LSN: 25165984, Reason: "no recovery target specified", Timestamp: "2031-02-03T04:05:06+00:00", NewLeader: "db1"}, {Timeline: 2, LSN: 25165985, Reason: "x"}},
		Failsafe: map[string]string{"db1": "http://127.0.0.1:8008/patroni"}, Initialize: &id,
		Config: json.RawMessage(`{"ttl":30}`), Term: term,
	})
	if next.TermRev <= h.TermRev || next.LeaderRev != h.LeaderRev || syncRev != 0 {
		b.Errorf("holder after the write: %+v, before %+v, sync %d", next, h, syncRev)
	}
	s := b.snapshot()
	if s.Term.ModRev != next.TermRev || s.Term.State != cluster.TermPromoted || !s.Term.Binds(s.Leader) {
		b.Errorf("term %+v", s.Term)
	}
	if s.Status.Optime != 83886416 || s.Status.Slots["db2"] != 83886080 || len(s.Status.RetainSlots) != 1 {
		b.Errorf("status %+v", s.Status)
	}
	if len(s.History) != 2 || s.History[0].NewLeader != "db1" || cluster.LastTimeline(s.History) != 3 {
		b.Errorf("history %+v", s.History)
	}
	if s.Failsafe["db1"] == "" || s.Initialize.SystemID != id || string(s.Config.Raw) != `{"ttl":30}` {
		b.Errorf("failsafe %+v initialize %+v config %+v", s.Failsafe, s.Initialize, s.Config)
	}
	_, err := b.store.Renew(b.ctx, h)
	b.is("renew with the term's old revision", err, dcs.ErrConflict)
	_, _, err = b.store.Write(b.ctx, h, dcs.Changes{Term: term})
	b.ok("write the same term again", err)
	other := *term
	other.Nonce = "another"
	_, _, err = b.store.Write(b.ctx, h, dcs.Changes{Term: &other})
	b.is("write another term against its old revision", err, dcs.ErrConflict)
	b.write(next, dcs.Changes{Config: json.RawMessage(`{"ttl":5}`), Status: &cluster.Status{Optime: 83886417}})
	s = b.snapshot()
	if string(s.Config.Raw) != `{"ttl":30}` || s.Status.Optime != 83886417 {
		b.Errorf("config that exists must be left alone, and the rest written: %s %+v", s.Config.Raw, s.Status)
	}
}

func syncWrites(b *bench) {
	h := b.leader("db1")
	change := func(standby string, rev int64) dcs.Changes {
		return dcs.Changes{Sync: &dcs.SyncChange{Sync: cluster.Sync{Leader: "db1", Standbys: []string{standby}, Quorum: 1}, SeenRev: rev}}
	}
	_, rev := b.write(h, change("db2", 0))
	if s := b.snapshot().Sync; s.ModRev != rev || !s.Has("DB2") || s.Quorum != 1 || !s.Active() {
		b.Errorf("sync %+v, revision told %d", s, rev)
	}
	_, _, err := b.store.Write(b.ctx, h, change("db3", 0))
	b.is("create sync where it exists", err, dcs.ErrConflict)
	_, _, err = b.store.Write(b.ctx, h, change("db3", rev-1))
	b.is("write sync against another revision", err, dcs.ErrConflict)
	if s := b.snapshot().Sync; !s.Has("db2") {
		b.Errorf("a failed write changed sync: %+v", s)
	}
	_, next := b.write(h, change("db3", rev))
	if next <= rev {
		b.Errorf("revision of sync went from %d to %d", rev, next)
	}
	remove := func(rev int64) dcs.Changes { return dcs.Changes{Sync: &dcs.SyncChange{Delete: true, SeenRev: rev}} }
	_, _, err = b.store.Write(b.ctx, h, remove(rev))
	b.is("delete sync against an old revision", err, dcs.ErrConflict)
	b.write(h, remove(next))
	if s := b.snapshot().Sync; s != nil {
		b.Errorf("sync was not deleted: %+v", s)
	}
}

func deposed(b *bench) {
	h := b.leader("db1")
	b.ok("revoke", b.store.Revoke(b.ctx, h.Lease))
	next, err := b.store.Acquire(b.ctx, claimOf("db2", b.lease(), 2, h.TermRev))
	b.ok("acquire", err)
	before := b.snapshot()
	term := *before.Term
	id := "1"
	for what, c := range map[string]dcs.Changes{
		"status":     {Status: &cluster.Status{Optime: 1}},
		"history":    {History: []cluster.HistoryLine{}},
		"failsafe":   {Failsafe: map[string]string{}},
		"initialize": {Initialize: &id},
		"config":     {Config: json.RawMessage(`{}`)},
		"event":      {Event: &cluster.Event{Term: 1}},
		"term":       {Term: &term},
		"sync":       {Sync: &dcs.SyncChange{Sync: cluster.Sync{Leader: "db1"}}},
		"hold":       {Hold: &cluster.Hold{Term: 1, Seconds: 1}},
	} {
		_, _, err := b.store.Write(b.ctx, h, c)
		b.is("a deposed leader's "+what, err, dcs.ErrConflict)
	}
	b.is("a deposed leader's release", b.store.Release(b.ctx, h, &cluster.Status{Optime: 1}), dcs.ErrConflict)
	if s := b.snapshot(); s.Revision != before.Revision {
		b.Errorf("a deposed leader wrote: revision %d, then %d", before.Revision, s.Revision)
	}
	_, err = b.store.Renew(b.ctx, next)
	b.ok("renew by the new leader", err)
}

// holds end when they are taken back, with the leadership, and with the lease.
func holds(b *bench) {
	h := b.leader("db1")
	hold := func() {
		h, _ = b.write(h, dcs.Changes{Hold: &cluster.Hold{Term: 1, Seconds: 12.5}})
		if got := b.snapshot().Hold; got == nil || got.Term != 1 || got.Seconds != 12.5 || got.ModRev == 0 {
			b.Errorf("the hold reads %+v", got)
		}
	}
	gone := func(why string) {
		if got := b.snapshot().Hold; got != nil {
			b.Errorf("%s, and there is a hold: %+v", why, got)
		}
	}
	hold()
	h, _ = b.write(h, dcs.Changes{Hold: &cluster.Hold{}})
	gone("it was taken back")
	hold()
	b.ok("release", b.store.Release(b.ctx, h, nil))
	gone("leadership was released")
	var err error
	h, err = b.store.Acquire(b.ctx, claimOf("db1", b.lease(), 2, h.TermRev))
	b.ok("acquire", err)
	hold()
	b.ok("revoke", b.store.Revoke(b.ctx, h.Lease))
	gone("the lease has ended")
}

func events(b *bench) {
	h := b.leader("db1")
	for n := uint64(1); n <= 103; n++ {
		b.write(h, dcs.Changes{Event: &cluster.Event{Term: n, Kind: "failover", NewLeader: "db1"}})
	}
	// The same one again, told better, removes none.
	b.write(h, dcs.Changes{Event: &cluster.Event{Term: 103, Kind: "failover", NewLeader: "db1", Loss: "none"}})
	e := b.snapshot().Events
	if len(e) < 99 || len(e) > 100 || e[0].Term < 4 || e[len(e)-1].Term != 103 || e[len(e)-1].Loss != "none" {
		b.Errorf("%d events, from %d to %d", len(e), e[0].Term, e[len(e)-1].Term)
	}
}

func failoverRequests(b *bench) {
	at := time.Date(2031, 5, 6, 3, 0, 0, 0, time.FixedZone("", 7200))
	b.ok("create", b.store.PutFailover(b.ctx, cluster.Failover{Leader: "db1", Candidate: "db2", ScheduledAt: &at}, 0))
	f := b.snapshot().Failover
	if f.Leader != "db1" || f.Candidate != "db2" || f.ScheduledAt == nil || !f.ScheduledAt.Equal(at) {
		b.Fatalf("request came back as %+v", f)
	}
	b.is("create where it exists", b.store.PutFailover(b.ctx, cluster.Failover{Candidate: "db3"}, 0), dcs.ErrConflict)
	b.is("change another revision", b.store.PutFailover(b.ctx, cluster.Failover{Candidate: "db3"}, f.ModRev-1), dcs.ErrConflict)
	b.ok("clear", b.store.PutFailover(b.ctx, cluster.Failover{}, f.ModRev))
	if f := b.snapshot().Failover; f == nil || !f.Empty() {
		b.Errorf("a cleared request is {}, not %+v", f)
	}
	b.ok("whatever it is", b.store.PutFailover(b.ctx, cluster.Failover{Candidate: "db3"}, -1))
	if f := b.snapshot().Failover; f.Candidate != "db3" || f.Leader != "" {
		b.Errorf("request %+v", f)
	}
}

func configuration(b *bench) {
	b.ok("create", b.store.PutConfig(b.ctx, json.RawMessage(`{"ttl": 30, "postgresql": {"parameters": {"a": "<1>"}}}`), 0))
	c := b.snapshot().Config
	if string(c.Raw) != `{"ttl":30,"postgresql":{"parameters":{"a":"<1>"}}}` {
		b.Errorf("config is %s", c.Raw)
	}
	b.is("create where it exists", b.store.PutConfig(b.ctx, json.RawMessage(`{}`), 0), dcs.ErrConflict)
	b.ok("change", b.store.PutConfig(b.ctx, json.RawMessage(`{"ttl":20}`), c.ModRev))
	b.is("change an old revision", b.store.PutConfig(b.ctx, json.RawMessage(`{}`), c.ModRev), dcs.ErrConflict)
	if err := b.store.PutConfig(b.ctx, json.RawMessage(`[1]`), -1); err == nil {
		b.Error("a configuration that is no object was taken")
	}
	if c := b.snapshot().Config; string(c.Raw) != `{"ttl":20}` {
		b.Errorf("config is %s", c.Raw)
	}
}

// next is the next snapshot of a watch for which ok holds.
func (b *bench) next(ch <-chan dcs.Update, what string, ok func(cluster.Snapshot) bool) cluster.Snapshot {
	b.Helper()
	for {
		select {
		case u, open := <-ch:
			if !open {
				b.Fatalf("the watch ended before %s", what)
			}
			if u.Err == nil && ok(u.Snapshot) {
				return u.Snapshot
			}
		case <-b.ctx.Done():
			b.Fatalf("the watch did not tell of %s", what)
		}
	}
}

func watch(b *bench) {
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	ch := b.store.Watch(ctx)
	first := b.next(ch, "the beginning", func(cluster.Snapshot) bool { return true })
	if first.Leader != nil || first.ClusterID == 0 {
		b.Errorf("first snapshot %+v", first)
	}
	h := b.leader("db1")
	s := b.next(ch, "the leader", func(s cluster.Snapshot) bool { return s.Leader != nil })
	if s.Leader.ModRev != h.LeaderRev || s.Term == nil || s.Term.ModRev != h.TermRev || s.Revision < h.LeaderRev {
		b.Errorf("leader and term were written at once, seen: %+v %+v", s.Leader, s.Term)
	}
	b.member("db1", h.Lease)
	kept := b.next(ch, "the member", func(s cluster.Snapshot) bool { return len(s.Members) == 1 })
	b.ok("revoke", b.store.Revoke(b.ctx, h.Lease))
	b.next(ch, "the end of the lease", func(s cluster.Snapshot) bool { return s.Leader == nil && len(s.Members) == 0 })
	if kept.Leader == nil || len(kept.Members) != 1 || kept.Members[0].Name != "db1" {
		b.Errorf("a snapshot changed after it was delivered: %+v", kept)
	}
	cancel()
	for range ch {
	}
}

func slowWatch(b *bench) {
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	ch := b.store.Watch(ctx)
	b.next(ch, "the beginning", func(cluster.Snapshot) bool { return true })
	h := b.leader("db1")
	const writes = 50
	for i := range writes {
		b.write(h, dcs.Changes{Status: &cluster.Status{Optime: cluster.LSN(i + 1)}})
	}
	told := 0
	b.next(ch, "the last write", func(s cluster.Snapshot) bool {
		told++
		return s.Status != nil && s.Status.Optime == writes
	})
	if told > writes {
		b.Errorf("%d snapshots for %d writes", told, writes)
	}
}
