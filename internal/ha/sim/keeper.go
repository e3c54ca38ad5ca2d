package sim

import (
	"errors"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
)

// keeper keeps the member's lease alive and proves its leadership (agent.keeper).
type keeper struct {
	lease  int64
	asked  time.Duration // the TTL that lease was asked for with
	holder *holder
	ttl    time.Duration
	wait   time.Duration
	busy   bool
	kicked bool
	timer  int
	// failsafe: the last proof was the word of all members.
	failsafe bool
}

// renewal is what the keeper tells the loop.
type renewal struct {
	lease    int64
	deadline cluster.Instant
	renewed  *holder
	lost     *holder
	failsafe bool
	err      error
}

func (a *agent) hold(h *holder) {
	a.keeper.holder = h
	a.kick()
}

func (a *agent) forget(lease int64) {
	if a.keeper.lease == lease {
		a.keeper.lease = 0
	}
	a.kick()
}

func (a *agent) kick() {
	if a.keeper.busy {
		a.keeper.kicked = true
		return
	}
	a.keeper.timer++
	a.keeper.busy = true
	a.after(0, func() { a.keeper.busy = false; a.keeperOnce() })
}

// keeperOnce renews or grants, tells the loop, and does so again.
func (a *agent) keeperOnce() {
	k := &a.keeper
	k.busy, k.kicked = true, false
	if k.ttl == 0 {
		k.ttl, k.wait = a.policy().TTL, a.policy().LoopWait
	}
	lease, h, ttl, asked := k.lease, k.holder, k.ttl, k.asked
	if h != nil {
		lease = h.lease
	}
	switch {
	case h != nil && a.lastTurn != 0 && a.now().Sub(a.lastTurn) > max(k.wait, ttl/3):
		a.told(renewal{lease: lease, err: errUnknown})
	case lease == 0:
		a.grant(ttl)
	case h != nil:
		a.prove(lease, h, ttl)
	case asked != ttl:
		a.grant(ttl)
	default:
		a.keep(lease, ttl)
	}
}

// told gives the loop a renewal, and sets when the next one is due.
func (a *agent) told(r renewal) {
	k := &a.keeper
	every := min(k.wait, k.ttl/6)
	if r.err != nil {
		every = max(every/4, 50*time.Millisecond)
	}
	k.busy = false
	if k.kicked {
		every = 0
	}
	k.timer++
	mine := k.timer
	a.after(every, func() {
		if mine == k.timer && !k.busy {
			a.keeperOnce()
		}
	})
	a.takeRenewal(r)
	a.turn()
}

func (a *agent) grant(ttl time.Duration) {
	var id int64
	a.call(operation{try: func(s *store) error { id = s.grant(ttl).id; return nil }}, func(err error) {
		if err != nil {
			a.told(renewal{err: err})
			return
		}
		a.keeper.lease, a.keeper.asked = id, ttl
		a.told(renewal{lease: id})
	})
}

func (a *agent) prove(lease int64, h *holder, ttl time.Duration) {
	a.renew(*h, a.provingTime(ttl), func(p proof, err error) {
		if err == nil {
			a.keeper.failsafe = false
			a.told(renewal{lease: lease, renewed: h, deadline: p.began.Add(p.ttl - margin(p.ttl))})
			return
		}
		a.withoutStore(lease, h, ttl, err, func() { a.unproven(lease, h, err) })
	})
}

func (a *agent) unproven(lease int64, h *holder, err error) {
	switch {
	case errors.Is(err, errConflict), errors.Is(err, errLeaseGone):
		if a.w.opt.Bugs.LateRecreate {
			a.recreate(lease, h)
			return
		}
		a.told(renewal{lease: lease, lost: h, err: err})
	default:
		a.told(renewal{lease: lease, err: err})
	}
}

// recreate is a planted fault: a heartbeat that creates a vanished leader key, whatever has happened meanwhile.
func (a *agent) recreate(lease int64, h *holder) {
	var next holder
	began := a.now()
	a.call(operation{try: func(s *store) error {
		if s.snap.Leader != nil {
			return errConflict
		}
		if s.lease(lease) == nil {
			lease = s.grant(a.policy().TTL).id
		}
		rev := s.write(func(n *cluster.Snapshot, rev int64) {
			n.Leader = &cluster.Leader{Name: a.m.name, Lease: lease, CreateRev: rev, ModRev: rev}
		})
		next = holder{lease, rev, termRev(s.snap)}
		return nil
	}}, func(err error) {
		if err != nil {
			a.told(renewal{lease: lease, lost: h, err: err})
			return
		}
		a.holder, a.lost = &next, false
		a.keeper.holder = &next
		a.told(renewal{lease: lease, renewed: &next, deadline: began.Add(a.policy().TTL - margin(a.policy().TTL))})
	})
}

func (a *agent) keep(lease int64, ttl time.Duration) {
	var alive bool
	a.call(operation{read: true, try: func(s *store) error {
		l := s.lease(lease)
		if alive = l != nil; alive {
			s.refresh(l)
		}
		return nil
	}}, func(err error) {
		if err == nil && !alive {
			a.keeper.lease = 0
			a.grant(ttl)
			return
		}
		a.told(renewal{lease: lease, err: err})
	})
}

// margin is how long before the end of the lease the server must not be writable any more.
func margin(ttl time.Duration) time.Duration { return min(max(ttl/10, time.Second), ttl/2) }

func (a *agent) takeRenewal(r renewal) {
	if r.lease != 0 {
		a.leaseID = r.lease
	}
	h := a.holder
	switch {
	case h == nil:
	case r.renewed != nil && r.renewed.leaderRev == h.leaderRev:
		a.deadline, a.failsafe = max(a.deadline, r.deadline), r.failsafe
		a.arm()
	case r.lost != nil && a.task != nil && (a.task.kind == ha.Open || a.task.kind == ha.Acquire || a.task.kind == ha.HandOver):
	case r.lost != nil && r.lost.leaderRev == h.leaderRev && r.lost.termRev == h.termRev:
		a.lost = true
	}
}
