package sim

import (
	"errors"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// How long one try of a store call and the whole call may take (internal/dcs/etcd).
const (
	shortestTry = time.Second
	longestTry  = 2 * time.Second
	firstPause  = 100 * time.Millisecond
)

// roundTrip asks the store once. serve runs there and returns what runs here when its answer comes; write tells that the
// answer may be lost after the deed. late runs instead if nothing came in time.
func (a *agent) roundTrip(limit time.Duration, write bool, serve func(s *store) func(), late func()) {
	w, i := a.w, a.m.i
	over := false
	w.network.carry(i, w.store.place(), nil, func() {
		s := w.store
		if !s.serves() || s.deposed[i] > 0 {
			return
		}
		then := serve(s)
		if write && s.loseReply > 0 {
			s.loseReply--
			w.note("etcd", "an answer to %s is lost", a.m.name)
			return
		}
		w.network.carry(s.place(), i, &a.process, func() {
			if !over {
				over = true
				then()
			}
		})
	})
	a.after(limit, func() {
		if !over {
			over = true
			late()
		}
	})
}

func (s *store) place() int { return len(s.w.members) }

// operation is a store call. ours tells, after a try without an answer, whether that try has written all the same.
type operation struct {
	try  func(s *store) error
	ours func(s *store) bool
	read bool
}

// call repeats an operation until it is answered or retry_timeout is over (etcd.Client.call and commit).
func (a *agent) call(op operation, done func(err error)) {
	limit := min(max(a.retryTimeout()/3, shortestTry), longestTry)
	end := a.now().Add(a.retryTimeout())
	unsure := false
	var once func(pause time.Duration)
	once = func(pause time.Duration) {
		a.roundTrip(limit, !op.read, func(s *store) func() {
			err := op.try(s)
			if errors.Is(err, errConflict) && unsure && op.ours != nil && op.ours(s) {
				err = nil
			}
			return func() { done(err) }
		}, func() {
			unsure = true
			if a.now().Add(pause) >= end {
				done(errUnknown)
				return
			}
			a.after(pause, func() { once(min(2*pause, time.Second)) })
		})
	}
	once(firstPause)
}

// snapshot reads the whole store, linearizably.
func (a *agent) snapshot(done func(s cluster.Snapshot, err error)) {
	var snap cluster.Snapshot
	a.call(operation{read: true, try: func(s *store) error { snap = s.snap; return nil }}, func(err error) { done(snap, err) })
}

// proof is what a renewal proved: the instant before its keepalive, and the TTL.
type proof struct {
	began cluster.Instant
	ttl   time.Duration
}

// renew proves leadership: a keepalive between two linearizable transactions of one raft term (etcd.Client.Renew). Its tries do not get
// more and more time here, which matters to a slow store only.
func (a *agent) renew(h holder, within time.Duration, done func(p proof, err error)) {
	end := a.now().Add(within)
	limit := min(max(a.policy().TTL/10, 200*time.Millisecond), within)
	again := func(once func()) func() {
		return func() {
			if a.now() >= end {
				done(proof{}, errUnknown)
				return
			}
			a.after(50*time.Millisecond, once)
		}
	}
	var once func()
	once = func() {
		late := again(once)
		if a.raft == 0 {
			a.confirm(limit, h, func(err error) {
				if err != nil {
					done(proof{}, err)
					return
				}
				a.renewOnce(limit, h, done, late)
			}, late)
			return
		}
		a.renewOnce(limit, h, done, late)
	}
	once()
}

func (a *agent) renewOnce(limit time.Duration, h holder, done func(proof, error), late func()) {
	before, began := a.raft, a.now()
	a.keepAlive(limit, h.lease, func(raft uint64, ttl time.Duration) {
		if a.w.opt.Bugs.KeepaliveIsProof && ttl > 0 {
			done(proof{began, ttl}, nil)
			return
		}
		a.confirm(limit, h, func(err error) {
			switch {
			case err != nil:
				done(proof{}, err)
			case ttl == 0:
				done(proof{}, errLeaseGone)
			case before != raft || raft != a.raft:
				late()
			default:
				done(proof{began, ttl}, nil)
			}
		}, late)
	}, late)
}

// keepAlive refreshes a lease. A deposed etcd leader answers too, from its own memory (safety: H6).
func (a *agent) keepAlive(limit time.Duration, id int64, done func(raft uint64, ttl time.Duration), late func()) {
	w, i, over := a.w, a.m.i, false
	w.network.carry(i, w.store.place(), nil, func() {
		s := w.store
		raft, ttl := s.raft, time.Duration(0)
		l := s.lease(id)
		switch {
		case s.deposed[i] > 0:
			raft, ttl = s.raft-1, a.policy().TTL
		case !s.serves():
			return
		case l != nil:
			s.refresh(l)
			ttl = l.ttl
		}
		w.network.carry(s.place(), i, &a.process, func() {
			if !over {
				over = true
				done(raft, ttl)
			}
		})
	})
	a.after(limit, func() {
		if !over {
			over = true
			late()
		}
	})
}

// confirm compares leader key and term in a linearizable transaction that writes nothing.
func (a *agent) confirm(limit time.Duration, h holder, done func(error), late func()) {
	a.roundTrip(limit, false, func(s *store) func() {
		l, raft := s.snap.Leader, s.raft
		same := l != nil && l.ModRev == h.leaderRev && l.Lease == h.lease && termRev(s.snap) == h.termRev
		return func() {
			if !same {
				a.raft = 0
				done(errConflict)
				return
			}
			a.raft = raft
			done(nil)
		}
	}, late)
}
