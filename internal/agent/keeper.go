package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/havenha/haven/internal/bootclock"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/dcs"
	"github.com/havenha/haven/internal/ha"
)

// renewal is what the keeper tells the loop.
type renewal struct {
	lease    dcs.Lease // the lease in use; its id changes when the old one has ended
	deadline cluster.Instant
	renewed  *dcs.Holder // the leadership that was proven, until deadline
	lost     *dcs.Holder // the leadership that the store denies
	err      error
}

// keeper keeps the member's lease alive, and proves its leadership while it has one. It runs beside the loop, on
// connections of its own, and stops proving when the loop does not turn.
type keeper struct {
	a     *Agent
	kick  chan struct{}
	ended chan struct{}

	mu     sync.Mutex
	lease  dcs.Lease
	asked  time.Duration // the TTL that lease was asked for with
	holder *dcs.Holder
	ttl    time.Duration // that is asked for from now on
	wait   time.Duration // loop_wait
}

func newKeeper(a *Agent) *keeper {
	return &keeper{a: a, kick: make(chan struct{}, 1), ended: make(chan struct{})}
}

// hold tells the keeper which leadership to prove; nil: none.
func (k *keeper) hold(h *dcs.Holder) {
	k.mu.Lock()
	k.holder = h
	k.mu.Unlock()
	k.again()
}

// adopt makes an existing lease the member's own.
func (k *keeper) adopt(l dcs.Lease) {
	k.mu.Lock()
	k.lease, k.asked = l, k.ttl
	k.mu.Unlock()
}

// timing tells the keeper how long leases shall be.
func (k *keeper) timing(ttl, loopWait time.Duration) {
	k.mu.Lock()
	k.ttl, k.wait = ttl, loopWait
	k.mu.Unlock()
}

// forget makes the keeper ask for a new lease: the old one has ended.
func (k *keeper) forget(id int64) {
	k.mu.Lock()
	if k.lease.ID == id {
		k.lease = dcs.Lease{}
	}
	k.mu.Unlock()
	k.again()
}

func (k *keeper) again() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

func (k *keeper) run(ctx context.Context) {
	defer close(k.ended)
	for ctx.Err() == nil {
		pause := k.once(ctx)
		select {
		case <-ctx.Done():
		case <-k.kick:
		case <-time.After(pause):
		}
	}
}

// once renews or grants, tells the loop, and returns when to do so again.
func (k *keeper) once(ctx context.Context) time.Duration {
	k.mu.Lock()
	lease, holder, ttl, wait, asked := k.lease, k.holder, k.ttl, k.wait, k.asked
	k.mu.Unlock()
	if holder != nil { // an earlier agent's, perhaps: the leader key and the member key hang on one lease
		lease.ID = holder.Lease
	}
	every := min(wait, ttl/6)
	if holder != nil && k.loopStands(wait, ttl) {
		k.tell(ctx, renewal{lease: lease, err: errors.New("the loop does not turn")})
		return every / 4
	}
	var r renewal
	switch {
	case lease.ID == 0:
		r = k.grant(ctx, ttl)
	case holder != nil:
		r = k.prove(ctx, lease, holder)
	case asked != ttl: // the configuration has changed; the old lease runs out, and the member key moves to the new one
		r = k.grant(ctx, ttl)
	default:
		r = k.keepAlive(ctx, lease, ttl)
	}
	k.tell(ctx, r)
	if r.err != nil {
		return max(every/4, 50*time.Millisecond)
	}
	return every
}

// loopStands tells that the event loop has not turned for too long: what it guards may be hung with it.
func (k *keeper) loopStands(wait, ttl time.Duration) bool {
	last := cluster.Instant(k.a.lastTurn.Load())
	return last != 0 && bootclock.Now().Sub(last) > max(wait, ttl/3)
}

func (k *keeper) grant(ctx context.Context, ttl time.Duration) renewal {
	lease, err := k.a.store.Grant(ctx, ttl)
	if err != nil {
		return renewal{err: err}
	}
	k.mu.Lock()
	k.lease, k.asked = lease, ttl
	k.mu.Unlock()
	return renewal{lease: lease}
}

func (k *keeper) prove(ctx context.Context, lease dcs.Lease, h *dcs.Holder) renewal {
	proof, err := k.a.store.Renew(ctx, *h)
	switch {
	case errors.Is(err, dcs.ErrConflict), errors.Is(err, dcs.ErrLeaseGone):
		return renewal{lease: lease, lost: h, err: err}
	case err != nil:
		return renewal{lease: lease, err: err}
	}
	return renewal{lease: lease, renewed: h, deadline: proof.Began.Add(proof.TTL - k.a.margin(proof.TTL))}
}

func (k *keeper) keepAlive(ctx context.Context, lease dcs.Lease, ttl time.Duration) renewal {
	err := k.a.store.KeepAlive(ctx, lease.ID)
	if errors.Is(err, dcs.ErrLeaseGone) {
		k.mu.Lock()
		k.lease = dcs.Lease{}
		k.mu.Unlock()
		return k.grant(ctx, ttl)
	}
	return renewal{lease: lease, err: err}
}

func (k *keeper) tell(ctx context.Context, r renewal) {
	select {
	case k.a.renewals <- r:
	case <-ctx.Done():
	}
}

// margin is how long before the end of the lease the server must not be writable any more.
func (a *Agent) margin(ttl time.Duration) time.Duration {
	if m := a.node.Load().Haven.GuardMargin; m > 0 {
		return min(m, ttl/2)
	}
	return min(max(ttl/10, time.Second), ttl/2)
}

func (a *Agent) takeRenewal(r renewal) {
	st := &a.st
	if r.lease.ID != 0 && r.lease.ID != st.lease.ID {
		st.lease = r.lease
		a.log.Info("lease granted", "lease", r.lease.ID, "ttl", r.lease.TTL)
	}
	switch {
	case st.holder == nil:
	case r.renewed != nil && r.renewed.LeaderRev == st.holder.LeaderRev:
		st.deadline = max(st.deadline, r.deadline)
	case r.lost != nil && st.task != nil && writesTerm(st.task.Kind):
		// the running action moves the term on: what the keeper compared may be our own former revision
	case r.lost != nil && r.lost.LeaderRev == st.holder.LeaderRev && r.lost.TermRev == st.holder.TermRev:
		st.lost = true
	case r.err != nil:
		a.log.Warn("leadership could not be proven", "error", r.err, "left", st.deadline.Sub(bootclock.Now()).Round(time.Millisecond))
	}
}

func writesTerm(k ha.Kind) bool {
	return k == ha.Open || k == ha.Acquire || k == ha.HandOver
}

// lead takes a leadership into the state: it is proven until deadline.
func (a *Agent) lead(h dcs.Holder, deadline cluster.Instant) {
	a.st.holder, a.st.lost, a.st.deadline = &h, false, max(a.st.deadline, deadline)
	a.keeper.hold(&h)
}

// forgetLost forgets a leadership that is lost once no server rests on it. Otherwise the keeper would go on proving what
// is denied, and let the lease of the member key end meanwhile.
func (a *Agent) forgetLost() {
	st := &a.st
	if st.holder == nil || !st.lost || st.task != nil {
		return
	}
	if v := a.serverView(); v.Process == ha.ProcessDown || v.RunningStandby() {
		a.log.Warn("leadership is lost")
		a.unlead()
	}
}

// unlead forgets a leadership.
func (a *Agent) unlead() {
	a.st.holder, a.st.lost, a.st.deadline = nil, false, 0
	a.keeper.hold(nil)
}
