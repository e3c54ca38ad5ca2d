package agent

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/dcs"
	"github.com/havenha/haven/internal/ha"
	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/slots"
)

// nextTerm is the term that follows what the store shows.
func (a *Agent) nextTerm(in input, holder string, fence cluster.Fence, cause *cluster.Cause) cluster.Term {
	nonce := make([]byte, 16)
	rand.Read(nonce) // never fails (crypto/rand)
	t := cluster.Term{
		Number: 1, Holder: holder, State: cluster.TermClaimed, Fence: fence, Nonce: hex.EncodeToString(nonce),
		Cause: cause, Since: time.Now(), OldTTL: int(in.dynamic.TTL / time.Second),
	}
	if i := in.snap.Initialize; i.Valid() {
		t.SystemID = i.SystemID
	}
	if old := in.snap.Term; old != nil {
		t.Number, t.OldLeader, t.Reserved = old.Number+1, old.Holder, old.Reserved
	}
	if l := in.snap.Leader; l != nil {
		t.OldLeader, t.OldLease = l.Name, l.Lease
	}
	if s := in.snap.Sync; s.Active() {
		t.Voters, t.Quorum, t.SyncRev = s.Standbys, s.Quorum, s.ModRev
	}
	if c := in.seen.disk.Control; c.Timeline > t.Reserved {
		t.Reserved = c.Timeline
	}
	return t
}

// acquire takes the leader key and begins a term.
func (a *Agent) acquire(ctx context.Context, in input, e *effects) error {
	a.pledges.settle()    // ours, from an attempt before
	if in.holder != nil { // the key of our own leadership vanished
		a.pledges.hold()
	} else if err := a.pledges.claim(); err != nil {
		return fmt.Errorf("acquire the leader key: %w", err)
	}
	c := dcs.Claim{Name: in.node.Name, Lease: in.lease.ID, TermRev: termRev(in.snap)}
	c.Term = a.nextTerm(in, in.node.Name, in.action.Fence, in.action.Cause)
	h, err := a.store.Acquire(ctx, c)
	if err != nil {
		a.refresh(ctx, e)
		return fmt.Errorf("acquire the leader key: %w", err)
	}
	e.note("acquired the leader key, term %d", c.Term.Number)
	err = a.begun(ctx, h, e)
	a.refresh(ctx, e)
	return err
}

// resume proves a leadership that stands in the store under our name: one that was handed to us, or that an earlier
// agent of this member held.
func (a *Agent) resume(ctx context.Context, in input, e *effects) error {
	a.pledges.hold()
	l := in.snap.Leader
	h := dcs.Holder{Name: in.node.Name, Lease: l.Lease, LeaderRev: l.ModRev, TermRev: termRev(in.snap)}
	proof, deadline, err := a.prove(ctx, h)
	if err != nil {
		a.refresh(ctx, e)
		return fmt.Errorf("prove the leadership that the store shows: %w", err)
	}
	a.keeper.adopt(dcs.Lease{ID: l.Lease, TTL: proof.TTL, Began: proof.Began})
	e.led, e.deadline = &h, deadline
	e.note("proved that leadership is ours")
	return nil
}

// promote makes the standby a primary. In a synchronous mode it stays closed: commits wait for a standby that does not
// exist, until open has recorded the promotion. So a member that dies between the two takes no commit with it.
func (a *Agent) promote(ctx context.Context, in input, e *effects) error {
	if in.holder == nil {
		return errors.New("promote: no leadership is held")
	}
	if _, _, err := a.prove(ctx, *in.holder); err != nil {
		err = fmt.Errorf("promote: leadership could not be proven: %w", err)
		if errors.Is(err, errUnguarded) {
			return err
		}
		return unbegun{err}
	}
	if err := a.clearedToPromote(ctx, in, e); err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	if in.dynamic.SynchronousMode != config.SyncOff || in.snap.Sync.Active() {
		if err := a.server.SetSyncNames(ctx, ha.Placeholder); err != nil {
			return fmt.Errorf("promote: close: %w", err)
		}
	}
	if err := a.markPromotion(in.seen.probe); err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	e.note("promoting")
	a.warden.promoting.Store(true)
	if err := a.server.Promote(ctx); err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	a.warden.promoting.Store(false)
	e.note("the server accepts writes")
	e.promoted = true
	none := ""
	e.upstream = &none
	if !in.dynamic.UseSlots {
		return nil
	}
	return a.server.KeepSlots(ctx, slots.Plan{Physical: memberSlots(in.snap, in.node.Name)})
}

func memberSlots(s cluster.Snapshot, me string) []string {
	var out []string
	for _, m := range s.Members {
		if m.Name != me && !m.Tag("nostream") {
			out = append(out, cluster.SlotName(m.Name))
		}
	}
	return out
}

// open records the promotion with the new synchronous state and the story of it, in one transaction, and then lets
// commits be acknowledged.
func (a *Agent) open(ctx context.Context, in input, e *effects) error {
	p := in.seen.probe
	if in.holder == nil || p == nil {
		return errors.New("open: neither leadership nor a server")
	}
	t := *in.snap.Term
	t.State, t.Timeline, t.Reserved = cluster.TermPromoted, p.Timeline, max(t.Reserved, p.Timeline)
	next, names := openSync(in)
	event := in.story.event(in, t, *p)
	changes := dcs.Changes{Term: &t, Sync: next, Event: &event, History: a.history(in, p.Timeline)}
	var h dcs.Holder
	err := a.untilKnown(ctx, func() (err error) {
		h, _, err = a.store.Write(ctx, *in.holder, changes)
		return err
	})
	if err != nil {
		a.refresh(ctx, e)
		return fmt.Errorf("open: %w", err)
	}
	e.led = &h
	a.keeper.hold(&h)
	err = a.server.SetSyncNames(ctx, names)
	a.begunHere(p.Timeline)
	a.refresh(ctx, e)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	return nil
}

// openSync is the first /sync of a new leader, and the names that belong to it.
func openSync(in input) (*dcs.SyncChange, string) {
	old, me := in.snap.Sync, in.node.Name
	var rev int64
	if old != nil {
		rev = old.ModRev
	}
	pol := policy(in.dynamic, in.node)
	next := ha.FirstSync(pol, in.snap, me)
	switch {
	case next != nil:
		return &dcs.SyncChange{Sync: *next, SeenRev: rev}, ha.NamesFor(pol, next, me)
	case old == nil:
		return nil, pol.OwnNames
	}
	return &dcs.SyncChange{SeenRev: rev, Delete: true}, pol.OwnNames
}

// history is the key history after this promotion: the lines of PostgreSQL's own history file, with what the key knew
// of the older ones, as far as max_timelines_history goes.
func (a *Agent) history(in input, tl cluster.Timeline) []cluster.HistoryLine {
	lines, err := a.server.LocalHistory(tl)
	if err != nil {
		a.log.Warn("the timeline history could not be read", "error", err)
		return nil
	}
	return cluster.NewestLines(cluster.HistoryAfter(lines, in.snap.History, in.node.Name), in.dynamic.MaxTimelinesHistory)
}

// setSync takes one step of the synchronous set.
func (a *Agent) setSync(ctx context.Context, in input, e *effects) error {
	step := in.action.Sync
	if in.holder == nil {
		return errors.New("synchronous set: no leadership is held")
	}
	if step.Names != nil {
		return a.server.SetSyncNames(ctx, *step.Names)
	}
	change := &dcs.SyncChange{Delete: step.Delete}
	if s := in.snap.Sync; s != nil {
		change.SeenRev = s.ModRev
	}
	if step.Record != nil {
		change.Sync = *step.Record
	}
	_, _, err := a.store.Write(ctx, *in.holder, dcs.Changes{Sync: change})
	a.refresh(ctx, e)
	if err != nil {
		return fmt.Errorf("write /sync: %w", err)
	}
	return nil
}

// repair writes the cluster's identifier and configuration where the store lacks them.
func (a *Agent) repair(ctx context.Context, in input, e *effects) error {
	p := in.seen.probe
	if in.holder == nil || p == nil {
		return errors.New("repair: neither leadership nor a server")
	}
	c := dcs.Changes{Initialize: &p.SystemID}
	if in.snap.Config == nil || in.snap.Config.Raw == nil {
		if c.Config = in.inForce; c.Config == nil { // this agent has never read one
			c.Config = config.DefaultDCS(in.node.Format, in.node.Bootstrap)
		}
	}
	_, _, err := a.store.Write(ctx, *in.holder, c)
	a.refresh(ctx, e)
	return err
}

// release gives the leader key up. The server must not be writable: stillTrue and the processes are looked at again.
func (a *Agent) release(ctx context.Context, in input, e *effects) error {
	if in.holder == nil {
		return errors.New("release: no leadership is held")
	}
	if p := in.seen.probe; in.seen.process != ha.ProcessDown && (p == nil || !p.InRecovery) {
		return errors.New("release: the server may still be writable")
	}
	if err := a.untilKnown(ctx, func() error { return a.store.Release(ctx, *in.holder, nil) }); err != nil {
		return fmt.Errorf("release the leader key: %w", err)
	}
	e.unled = true
	e.note("leader key released")
	a.refresh(ctx, e)
	return nil
}

// dropRequest clears a request that cannot be met.
func (a *Agent) dropRequest(ctx context.Context, in input, e *effects) error {
	f := in.snap.Failover
	if f.Empty() {
		return nil
	}
	a.log.Info("Cleaning up failover key")
	err := a.store.PutFailover(ctx, cluster.Failover{}, f.ModRev)
	a.refresh(ctx, e)
	return err
}

// handOver gives leadership to a standby after a crash. Every process of the server is looked for once more.
func (a *Agent) handOver(ctx context.Context, in input, e *effects) error {
	left, err := a.server.Processes()
	if err != nil || len(left) > 0 {
		return fmt.Errorf("hand over: %d processes of the server are left (%v)", len(left), err)
	}
	return a.giveTo(ctx, in, in.action.Member, nil, e)
}

// giveTo writes the handover. What it rests on may have moved since the decision: the candidate's member key to another lease, as
// it does when the ttl is changed, or the request, which somebody has written again. As long as leadership is ours, what is in the
// store now is tried once more: the server is down, and going back would only make the outage longer.
func (a *Agent) giveTo(ctx context.Context, in input, name string, status *cluster.Status, e *effects) error {
	if in.holder == nil {
		return errors.New("hand over: no leadership is held")
	}
	err := a.giveToMember(ctx, in, in.snap, name, status)
	a.refresh(ctx, e)
	if errors.Is(err, dcs.ErrConflict) && e.snap.Leader != nil && e.snap.Leader.ModRev == in.holder.LeaderRev {
		e.note("the store refused the handover: %s or the request has changed meanwhile; once more, as they are now", name)
		err = a.giveToMember(ctx, in, e.snap, name, status)
		a.refresh(ctx, e)
	}
	if err != nil {
		return fmt.Errorf("hand over to %s: %w", name, err)
	}
	e.unled = true
	e.note("handed leadership over to %s", name)
	return nil
}

// giveToMember hands leadership over to a member as snap shows it, and clears the request that this meets; another stays for the next
// leader. To a member that writes no terms, the key is deleted and the request left for it, as Patroni does.
func (a *Agent) giveToMember(ctx context.Context, in input, snap cluster.Snapshot, name string, status *cluster.Status) error {
	m, ok := snap.Member(name)
	if !ok {
		return errors.New("it has no member key")
	}
	if m.Haven == nil {
		return a.untilKnown(ctx, func() error { return a.store.Release(ctx, *in.holder, status) })
	}
	o := dcs.Handover{Candidate: name, Lease: m.Lease, Status: status, Term: a.nextTerm(in, name, cluster.FenceStopped, in.action.Cause)}
	if f := snap.Failover; f.MetBy(name, time.Now()) {
		o.FailoverRev = f.ModRev
	}
	return a.untilKnown(ctx, func() error { return a.store.HandOver(ctx, *in.holder, o) })
}

// unknownPause is between two tries of a write of which it is not known whether it was made.
const unknownPause = 500 * time.Millisecond

// untilKnown repeats a write until it is certain that it was made, or that it never will be, or until ctx ends: a message that has had no
// answer may wait in the network, and be carried out after something was decided that rests on its not having been. If a server were
// started again in place, and the message that hands leadership over arrived then, two would write. Once an outcome is unknown, only an
// answer to that very write settles it, however later tries fail.
func (a *Agent) untilKnown(ctx context.Context, write func() error) error {
	for unknown := false; ; {
		err := write()
		unknown = unknown || errors.Is(err, dcs.ErrUnknown)
		settled := err == nil || errors.Is(err, dcs.ErrConflict) || errors.Is(err, dcs.ErrLeaseGone)
		if !unknown || settled || ctx.Err() != nil {
			return err
		}
		a.log.Warn("it is not known whether this was written: trying again until it is", "error", err)
		pause(ctx, unknownPause)
	}
}

// stillAsked reads the request that a switchover carries out once more, before anything is stopped for it.
func (a *Agent) stillAsked(ctx context.Context, in input) error {
	if in.action.Request == 0 {
		return nil
	}
	s, err := a.store.Snapshot(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("read the request again: %w", err)
	case s.Failover.Empty():
		return errors.New("the request was taken back")
	case !s.Failover.SameAs(in.snap.Failover):
		return errors.New("another request has taken its place")
	}
	return nil
}

// switchover stops the primary in an orderly way and hands leadership over once the candidate has all of its WAL.
// Until the stop nothing has happened; after it, a failure leaves a stopped leader, which starts again in place.
func (a *Agent) switchover(ctx context.Context, in input, e *effects) error {
	candidate := in.action.Member
	if in.holder == nil {
		return errors.New("switchover: no leadership is held")
	}
	if _, err := a.store.Renew(ctx, *in.holder); err != nil {
		return fmt.Errorf("switchover: leadership could not be proven: %w", err)
	}
	if err := a.awaitAnswer(ctx, in.snap, candidate); err != nil {
		return fmt.Errorf("switchover: %s does not answer: %w", candidate, err)
	}
	e.note("checkpoint before the stop")
	if err := a.server.Checkpoint(ctx); err != nil {
		return fmt.Errorf("switchover: %w", err)
	}
	if err := a.stillStreams(ctx, candidate); err != nil {
		return fmt.Errorf("switchover: %w", err)
	}
	resume := a.quiesce(ctx, in, e)
	if err := a.stopAndGive(ctx, in, candidate, e); err != nil {
		resume() // where it was stopped, the server starts again in place
		return fmt.Errorf("switchover: %w", err)
	}
	return nil
}

// stopAndGive is the part of a switchover in which nobody can write.
func (a *Agent) stopAndGive(ctx context.Context, in input, candidate string, e *effects) error {
	if err := a.stillStreams(ctx, candidate); err != nil {
		return err
	}
	if err := a.stillAsked(ctx, in); err != nil {
		return err
	}
	e.note("stopping the primary")
	end, err := a.stopPrimary(ctx, in, candidate)
	if done, late := a.overran(ctx, in, candidate, err, e); done {
		return late
	}
	if err != nil {
		return err
	}
	e.note("the primary is shut down, %s has its WAL up to %s", candidate, end)
	return a.giveTo(ctx, in, candidate, lastStatus(in, end), e)
}

// answerLimit is how long the candidate of a switchover has to answer. Nothing is stopped yet, so it costs nothing to ask again.
const answerLimit = 5 * time.Second

func (a *Agent) awaitAnswer(ctx context.Context, s cluster.Snapshot, candidate string) error {
	for began := time.Now(); ; pause(ctx, 100*time.Millisecond) {
		_, err := a.askOne(ctx, s, candidate)
		if err == nil || ctx.Err() != nil || time.Since(began) >= answerLimit {
			return err
		}
	}
}

func (a *Agent) stillStreams(ctx context.Context, candidate string) error {
	p, err := a.server.Probe(ctx)
	if err != nil {
		return err
	}
	for _, w := range p.Standbys {
		if w.Name == candidate && w.State == "streaming" {
			return nil
		}
	}
	return fmt.Errorf("%s does not stream any more", candidate)
}

// A walsender to a frozen standby would stay for wal_sender_timeout after the shutdown checkpoint. shutDownGrace is how long processes
// may be left when nothing is waited for any more, and stillLimit how long a candidate may not come on that still lacks WAL; one that
// does not answer has twice the time, since it may be slow to answer and come on all the same.
const (
	shutDownGrace = time.Second
	stillLimit    = 3 * time.Second
)

// pause waits so long, or until ctx ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// stopPrimary shuts the server down, waits until the candidate has the whole of its WAL, and makes sure that no process
// is left. It returns the end of the WAL.
func (a *Agent) stopPrimary(ctx context.Context, in input, candidate string) (cluster.LSN, error) {
	down := make(chan postgres.Control, 1)
	stopped := make(chan error, 1)
	a.beforeStop(ctx, in)
	a.ordered.Store(true) // before, its end was a crash
	stopCtx, cancel := context.WithTimeout(ctx, stopLimit(in, candidate))
	defer cancel()
	a.beside(stopCtx, func(ctx context.Context) {
		stopped <- a.server.Stop(ctx, postgres.StopFast, func(c postgres.Control) { down <- c })
	})
	if err := a.awaitStop(ctx, down, stopped, func(ctx context.Context) { a.drain(ctx, in.snap, candidate) }); err != nil {
		return 0, err
	}
	end, err := a.server.EndOfWAL()
	if err != nil {
		return 0, err
	}
	return end, a.awaitReceived(ctx, in.snap, candidate, end)
}

// awaitStop waits for the end of all processes. What outlives the shutdown checkpoint are walsenders, which still send; when drain
// returns, they are ended.
func (a *Agent) awaitStop(ctx context.Context, down <-chan postgres.Control, stopped <-chan error, drain func(context.Context)) error {
	select {
	case err := <-stopped:
		return err
	case <-down:
	}
	draining, cancel := context.WithCancel(ctx)
	defer cancel()
	drained := make(chan struct{})
	a.beside(draining, func(ctx context.Context) {
		defer close(drained)
		drain(ctx)
	})
	select {
	case err := <-stopped:
		return err
	case <-drained:
		a.log.Warn("the server is shut down, but processes are left: ending them")
		if err := a.server.Kill(ctx); err != nil {
			return err
		}
		if err := <-stopped; err != nil {
			a.log.Debug("the shutdown was overtaken", "error", err)
		}
		return nil
	}
}

// drain returns when the candidate has all of the WAL, and other standbys have had a moment for it, or when the candidate has not come
// on for stillLimit, or twice that without an answer.
func (a *Agent) drain(ctx context.Context, s cluster.Snapshot, candidate string) {
	end, err := a.server.EndOfWAL()
	if err != nil {
		a.log.Warn("the end of the WAL is not known yet", "error", err)
		end = math.MaxUint64
	}
	var reached cluster.LSN
	limit := stillLimit
	for since := time.Now(); ctx.Err() == nil && time.Since(since) < limit; pause(ctx, 20*time.Millisecond) {
		answer, err := a.askOne(ctx, s, candidate)
		if err == nil && answer.Position > reached {
			reached, since = answer.Position, time.Now()
		}
		switch {
		case reached >= end:
			limit = shutDownGrace
		case err != nil:
			limit = 2 * stillLimit
		default:
			limit = stillLimit
		}
	}
}

// receiveTimeout bounds the wait for the candidate after the shutdown.
const receiveTimeout = 5 * time.Second

func (a *Agent) awaitReceived(ctx context.Context, s cluster.Snapshot, candidate string, end cluster.LSN) error {
	ctx, cancel := context.WithTimeout(ctx, receiveTimeout)
	defer cancel()
	for {
		answer, err := a.askOne(ctx, s, candidate)
		if err == nil && answer.Position >= end {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s did not receive the end of the WAL %s within %s (it has %s; %v)", candidate, end, receiveTimeout, answer.Position, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
