package agent

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/havenha/haven/internal/bootclock"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/dcs"
	"github.com/havenha/haven/internal/guard"
	"github.com/havenha/haven/internal/ha"
)

// errUnguarded: leadership was not proven, or the proof does not count, since the guard does not know of it.
var errUnguarded = errors.New("without a guard that knows of it no leadership counts")

// warden deals with the guard: it hands deadlines on, lets the guard rest where there is nothing to guard, and sees to it
// that there is another when one dies.
type warden struct {
	a    *Agent
	link *guard.Link // nil: there is no guard
	kick chan struct{}
	// release is that the loop wants no deadline in force. A deadline that is handed on afterwards withdraws it.
	release atomic.Bool
	// settled is that what the loop wants released cannot become writable by a promotion that is still pending.
	settled atomic.Bool
	// promoting: this agent has asked for a promotion of which it is not known that it happened, or cannot happen any more.
	promoting atomic.Bool
	// unarmed is when the guard last refused a deadline where a watchdog is required, a cluster.Instant; 0: never.
	unarmed atomic.Int64
	// until is the deadline that the guard was given last, a cluster.Instant; 0: it was let rest.
	until atomic.Int64
	// ending is since when the loop has the server ended, a cluster.Instant; 0: nothing is left of it, or it is to live.
	ending atomic.Int64
	// takenOver: another agent of this member uses the guard.
	takenOver atomic.Bool
}

// prove renews leadership and returns until when it is proven. It counts from the moment in which the guard knows, so
// that a server which rests on it is never without one. In pause nothing is guarded.
func (a *Agent) prove(ctx context.Context, h dcs.Holder) (dcs.Renewal, cluster.Instant, error) {
	paused := a.paused.Load() // before the renewal begins: one from within a pause arms nothing
	// Before the lease is kept alive: without a guard it is to end, so that somebody else can lead.
	if err := a.warden.ready(); err != nil {
		a.noticeTakeover(err)
		return dcs.Renewal{}, 0, fmt.Errorf("%w: %w", errUnguarded, err)
	}
	proof, err := a.store.Renew(ctx, h)
	if err != nil {
		return proof, 0, err
	}
	deadline := proof.Began.Add(proof.TTL - a.margin(proof.TTL))
	if w := a.warden; w.link != nil && !paused {
		w.release.Store(false)
		if err := a.arm(h, deadline, proof.TTL); err != nil {
			a.noticeTakeover(err)
			return proof, 0, fmt.Errorf("%w: %w", errUnguarded, err)
		}
		if a.paused.Load() { // the pause began meanwhile: the guard may have been let rest before it was armed here
			w.release.Store(true)
			w.wake()
		}
	}
	return proof, deadline, nil
}

// arm hands a deadline on, and has the watchdog fed with it.
func (a *Agent) arm(h dcs.Holder, deadline cluster.Instant, ttl time.Duration) error {
	dog, err := a.watchdog(ttl)
	if err == nil {
		err = a.warden.link.Arm(h.LeaderRev, deadline, a.server.Target(), dog)
	}
	if err == nil {
		a.warden.until.Store(int64(deadline))
	}
	if err != nil && a.node.Load().Watchdog.Mode == config.WatchdogRequired {
		a.warden.unarmed.Store(int64(bootclock.Now()))
	}
	return err
}

// watchdog is the device that is to be fed; nil: none. One that would reset the host between two renewals is no help
// (Patroni, watchdog).
func (a *Agent) watchdog(ttl time.Duration) (*guard.Watchdog, error) {
	set := a.node.Load().Watchdog
	if set.Mode == config.WatchdogOff {
		return nil, nil
	}
	timeout := ttl - set.SafetyMargin
	if set.SafetyMargin < 0 {
		timeout = ttl / 2
	}
	timeout = timeout.Truncate(time.Second)
	required := set.Mode == config.WatchdogRequired
	if wait := a.keeper.loopWait(); timeout < wait {
		if required {
			return nil, fmt.Errorf("the watchdog, which is required, would reset the host %s after a renewal, before the next one is due: raise ttl, or lower watchdog.safety_margin", timeout)
		}
		return nil, nil
	}
	return &guard.Watchdog{Device: set.Device, Testing: set.Driver == "testing", Timeout: timeout, Required: required}, nil
}

// unfit tells that the watchdog, which is required, could not be had within the last ttl.
func (w *warden) unfit(ttl time.Duration) bool {
	at := cluster.Instant(w.unarmed.Load())
	return at != 0 && bootclock.Now().Sub(at) < ttl
}

// noticeTakeover has the loop end when another agent of this member uses the guard: two must not act on one server.
func (a *Agent) noticeTakeover(err error) {
	if errors.Is(err, guard.ErrTakenOver) && !a.warden.takenOver.Swap(true) {
		a.Wake()
	}
}

// ready tells whether a deadline can be handed on: there is a guard, and it is not just ending the server.
func (w *warden) ready() error {
	if err := w.unended(); err != nil {
		return err
	}
	if w.link == nil {
		return nil
	}
	s, err := w.link.State()
	if err != nil {
		return err
	}
	if k := s.Killed; s.Killing && k != nil {
		return fmt.Errorf("it is ending the server: %s %s", k.Reason, k.Left)
	}
	return nil
}

// unended is an error if the end of the server was ordered a ttl ago or longer, and is not verified. What a disk that does
// not answer keeps in the kernel runs no more of its own program once it was sent a SIGKILL; so the lease is left to end like
// that of a host that is lost, for another member to lead.
func (w *warden) unended() error {
	since := cluster.Instant(w.ending.Load())
	k := w.a.keeper
	k.mu.Lock()
	ttl := k.ttl
	k.mu.Unlock()
	if since == 0 {
		return nil
	}
	if long := bootclock.Now().Sub(since); long > ttl {
		return fmt.Errorf("the server was to be ended %s ago, and processes of it are still there: leaving leadership to others", long.Round(time.Second))
	}
	return nil
}

// releaseGuard lets the guard rest while the server needs no deadline: in pause, or when it is a standby or does not run,
// and no action is under way that may change that.
func (a *Agent) releaseGuard(v ha.View) {
	w := a.warden
	if w.link == nil {
		return
	}
	down := v.Server.Process == ha.ProcessDown
	idle := a.st.task == nil && a.st.holder == nil && (down || v.Server.RunningStandby())
	if !v.Policy.Pause && !idle {
		return
	}
	led := a.st.known && a.st.snap.Leader != nil && a.st.snap.Leader.Name != a.opt.Node.Name
	if idle && (down || led) {
		w.promoting.Store(false)
	}
	w.settled.Store(v.Policy.Pause || down || led)
	w.release.Store(true)
	w.wake()
}

// releaseNow lets the guard rest before the agent ends, and leaves a server running that nobody will renew for.
func (a *Agent) releaseNow() {
	w := a.warden
	if w.link == nil {
		return
	}
	w.settled.Store(true)
	w.release.Store(true)
	w.disarm()
}

func (w *warden) wake() {
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// run disarms when it is asked to, and replaces a guard that dies.
func (w *warden) run(ctx context.Context) {
	if w.link == nil {
		return
	}
	for {
		lost := w.link.Lost()
		select {
		case <-ctx.Done():
			return
		case <-w.kick:
			w.disarm()
		case <-lost:
			w.replace(ctx)
		}
	}
}

func (w *warden) disarm() {
	if !w.link.Armed() {
		return
	}
	harmless := false
	if !w.settled.Load() {
		if w.mayBecomeWritable() {
			return
		}
		harmless = true
	}
	still := func() bool { return w.release.Load() && (harmless || w.settled.Load()) }
	if err := w.link.Disarm(still); err != nil {
		w.a.noticeTakeover(err)
		w.a.log.Warn("the guard could not be disarmed", "error", err)
		return
	}
	if !w.link.Armed() {
		w.until.Store(0)
	}
}

// guarded tells whether a living guard holds a deadline that has not passed; nil: there is to be no guard. It never blocks.
func (w *warden) guarded() *bool {
	if w.link == nil {
		return nil
	}
	armed := bootclock.Now().Before(cluster.Instant(w.until.Load()))
	select {
	case <-w.link.Lost():
		armed = false
	default:
	}
	return &armed
}

// mayBecomeWritable tells whether a promotion was asked for that may still happen. PostgreSQL answers as a standby until it
// does, and does it when it gets to it, also after we have given up waiting.
func (w *warden) mayBecomeWritable() bool {
	p, err := w.a.readMark()
	return err != nil || p.Pending != 0 || w.promoting.Load()
}

// replaceEvery is how often another guard is tried for, until there is one.
const replaceEvery = time.Second

// replace gets another guard, and has leadership proven at once, so that it knows the deadline.
func (w *warden) replace(ctx context.Context) {
	for ctx.Err() == nil {
		_, err := w.link.State()
		if err == nil {
			w.a.log.Warn("the guard was lost; there is another")
			w.a.keeper.again()
			return
		}
		w.a.log.Error("there is no guard; without one no renewal counts", "error", err, "left", w.left())
		select {
		case <-ctx.Done():
		case <-time.After(replaceEvery):
		}
	}
}

// left is how long the leadership of this member is proven for.
func (w *warden) left() time.Duration {
	s := w.a.Status()
	if !s.Holds {
		return 0
	}
	return s.Deadline.Sub(bootclock.Now()).Round(time.Millisecond)
}
