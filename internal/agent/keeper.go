package agent

import (
	"context"
	"errors"
	"fmt"
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
	renewed  *dcs.Holder       // the leadership that was proven, until deadline
	began    bootclock.Reading // when the proof of it began
	lost     *dcs.Holder       // the leadership that the store denies
	failsafe bool              // it was proven by the word of all members, without the store
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

	// Only run uses these.
	failsafe  bool      // the last proof was the word of all members
	unguarded bool      // there was no guard at the last proof
	refused   int64     // the lease of that proof
	proven    dcs.Lease // the lease of the last proof that the store gave
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
	k.lease, k.asked = l, l.TTL
	k.mu.Unlock()
}

// timing tells the keeper how long leases shall be.
func (k *keeper) timing(ttl, loopWait time.Duration) {
	k.mu.Lock()
	k.ttl, k.wait = ttl, loopWait
	k.mu.Unlock()
}

// loopWait is what timing was told last.
func (k *keeper) loopWait() time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.wait
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
	length := k.length(holder, ttl)
	if holder != nil && k.loopStands(wait, length) {
		k.tell(ctx, renewal{lease: lease, err: errors.New("the loop does not turn")})
		return between(wait, length) / 4
	}
	if k.unguarded && holder == nil {
		k.unguarded = false
		if lease.ID == k.refused { // the leader key may still hang on it, and is to end; the member key moves to another
			lease = dcs.Lease{}
		}
	}
	if k.unguarded { // to renew what cannot count would only keep the key from members that can lead
		if err := k.a.warden.ready(); err != nil {
			k.tell(ctx, renewal{lease: lease, err: fmt.Errorf("%w: %w", errUnguarded, err)})
			return soon(wait, length)
		}
		k.unguarded = false
	}
	var r renewal
	switch {
	case lease.ID == 0:
		r = k.grant(ctx, ttl)
	case holder != nil:
		r = k.prove(ctx, lease, holder, length)
		length = k.length(holder, ttl)
	case asked != ttl: // the configuration has changed; the old lease runs out, and the member key moves to the new one
		r = k.grant(ctx, ttl)
	default:
		r = k.keepAlive(ctx, lease, ttl)
	}
	k.tell(ctx, r)
	if r.err != nil {
		return soon(wait, length)
	}
	return between(wait, length)
}

// length is that of the lease, as far as renewals are concerned: a longer ttl reaches the lease that leadership hangs on with the next
// change of leadership only, and a shorter one counts at once.
func (k *keeper) length(holder *dcs.Holder, ttl time.Duration) time.Duration {
	if holder != nil && k.proven.ID == holder.Lease {
		return min(ttl, k.proven.TTL)
	}
	return ttl
}

// between is the time from one renewal of a lease of that length to the next, and soon that after one that failed.
func between(loopWait, length time.Duration) time.Duration { return min(loopWait, length/6) }

func soon(loopWait, length time.Duration) time.Duration {
	return max(between(loopWait, length)/4, 50*time.Millisecond)
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

func (k *keeper) prove(ctx context.Context, lease dcs.Lease, h *dcs.Holder, length time.Duration) renewal {
	began := k.a.stolen.read()
	proving, cancel := k.a.provingTime(ctx, length)
	proof, deadline, err := k.a.prove(proving, *h)
	cancel()
	k.a.figures.renewal(bootclock.Now().Sub(began.Boot), err)
	if err == nil {
		k.failsafe, k.proven = false, dcs.Lease{ID: h.Lease, TTL: proof.TTL}
	} else if r, ok := k.withoutStore(ctx, lease, h, length, err); ok {
		return r
	}
	if k.unguarded = errors.Is(err, errUnguarded); k.unguarded {
		k.refused = lease.ID
	}
	switch {
	case errors.Is(err, dcs.ErrConflict), errors.Is(err, dcs.ErrLeaseGone):
		return renewal{lease: lease, lost: h, err: err}
	case err != nil:
		return renewal{lease: lease, err: err}
	}
	return renewal{lease: lease, renewed: h, began: began, deadline: deadline}
}

// withoutStore has leadership proven by the word of all members, where the store cannot be reached. It goes on when the
// store is back and denies a leadership whose lease has ended meanwhile: nobody else can have taken it, and the loop creates
// the key again, for which it needs a new lease.
func (k *keeper) withoutStore(ctx context.Context, lease dcs.Lease, h *dcs.Holder, length time.Duration, why error) (renewal, bool) {
	denied := errors.Is(why, dcs.ErrConflict) || errors.Is(why, dcs.ErrLeaseGone)
	if errors.Is(why, errUnguarded) || denied && !k.failsafe {
		return renewal{}, false
	}
	began := k.a.stolen.read()
	deadline, ok := k.a.failsafe(ctx, *h, length)
	if !ok {
		return renewal{}, false
	}
	k.failsafe = true
	if denied {
		lease = k.fresh(ctx, h.Lease, length/4, lease)
	}
	return renewal{lease: lease, renewed: h, began: began, deadline: deadline, failsafe: true}, true
}

// fresh is a lease in the place of one that has ended; that one, if none can be had within limit: the loop waits meanwhile for the
// deadline that the members' word has proven.
func (k *keeper) fresh(ctx context.Context, ended int64, limit time.Duration, old dcs.Lease) dcs.Lease {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	k.mu.Lock()
	own, ttl := k.lease, k.ttl
	k.mu.Unlock()
	if own.ID != 0 && own.ID != ended && k.a.store.KeepAlive(ctx, own.ID) == nil {
		return own
	}
	if err := k.a.store.KeepAlive(ctx, ended); err == nil || !errors.Is(err, dcs.ErrLeaseGone) {
		return old
	}
	if r := k.grant(ctx, ttl); r.err == nil {
		return r.lease
	}
	return old
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
	case r.renewed != nil && r.began.Boot < a.stolen.doubt.Boot:
		a.keeper.again() // what it has proven may be older than it looks
	case r.renewed != nil && r.renewed.LeaderRev == st.holder.LeaderRev:
		a.stolen.proven = r.began
		st.deadline, st.failsafe = max(st.deadline, r.deadline), r.failsafe
	case r.lost != nil && st.task != nil && writesTerm(st.task.Kind):
		// the running action moves the term on: what the keeper compared may be our own former revision
	case r.lost != nil && r.lost.LeaderRev == st.holder.LeaderRev && r.lost.TermRev == st.holder.TermRev:
		st.lost = true
	case r.err != nil:
		a.log.Warn("leadership could not be proven", "error", r.err, "left", st.deadline.Sub(bootclock.Now()).Round(time.Millisecond))
	}
}

// takeProofs takes the renewals that have come, so that no deadline is judged that one of them has moved on.
func (a *Agent) takeProofs() {
	for {
		select {
		case r := <-a.renewals:
			a.takeRenewal(r)
		default:
			return
		}
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
