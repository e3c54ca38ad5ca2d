package agent

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
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
		return fmt.Errorf("promote: leadership could not be proven: %w", err)
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
	h, _, err := a.store.Write(ctx, *in.holder, changes)
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
	if err := a.store.Release(ctx, *in.holder, nil); err != nil {
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

// giveTo writes the handover. To a member that writes no terms, the key is deleted and the request left for it, as
// Patroni does.
func (a *Agent) giveTo(ctx context.Context, in input, name string, status *cluster.Status, e *effects) error {
	if in.holder == nil {
		return errors.New("hand over: no leadership is held")
	}
	m, ok := in.snap.Member(name)
	if !ok {
		return fmt.Errorf("hand over: %s has no member key", name)
	}
	var err error
	if m.Haven == nil {
		err = a.store.Release(ctx, *in.holder, status)
	} else {
		o := dcs.Handover{Candidate: name, Lease: m.Lease, Status: status, Term: a.nextTerm(in, name, cluster.FenceStopped, in.action.Cause)}
		if f := in.snap.Failover; !f.Empty() {
			o.FailoverRev = f.ModRev
		}
		err = a.store.HandOver(ctx, *in.holder, o)
	}
	if err == nil {
		e.unled = true
		e.note("handed leadership over to %s", name)
	}
	a.refresh(ctx, e)
	if err != nil {
		return fmt.Errorf("hand over to %s: %w", name, err)
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
	if _, err := a.askOne(ctx, in.snap, candidate); err != nil {
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
	if err := a.stillStreams(ctx, candidate); err != nil {
		resume()
		return fmt.Errorf("switchover: %w", err)
	}
	e.note("stopping the primary")
	end, err := a.stopPrimary(ctx, in, candidate)
	if done, late := a.overran(ctx, in, candidate, err, e); done {
		return late
	}
	if err != nil {
		resume() // the server starts again in place
		return fmt.Errorf("switchover: %w", err)
	}
	e.note("the primary is shut down, %s has its WAL up to %s", candidate, end)
	if err := a.giveTo(ctx, in, candidate, lastStatus(in, end), e); err != nil {
		resume()
		return err
	}
	return nil
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

// shutDownGrace is how long processes may be left after the control file says shut down: a walsender to a frozen
// standby would stay for wal_sender_timeout.
const shutDownGrace = time.Second

// stopPrimary shuts the server down, waits until the candidate has the whole of its WAL, and makes sure that no process
// is left. It returns the end of the WAL.
func (a *Agent) stopPrimary(ctx context.Context, in input, candidate string) (cluster.LSN, error) {
	down := make(chan postgres.Control, 1)
	stopped := make(chan error, 1)
	a.beforeStop(ctx, in)
	stopCtx, cancel := context.WithTimeout(ctx, stopLimit(in, candidate))
	defer cancel()
	a.beside(stopCtx, func(ctx context.Context) {
		stopped <- a.server.Stop(ctx, postgres.StopFast, func(c postgres.Control) { down <- c })
	})
	if err := a.awaitStop(ctx, down, stopped); err != nil {
		return 0, err
	}
	end, err := a.server.EndOfWAL()
	if err != nil {
		return 0, err
	}
	return end, a.awaitReceived(ctx, in.snap, candidate, end)
}

// awaitStop waits for the end of all processes; those that outlive the shutdown checkpoint are ended.
func (a *Agent) awaitStop(ctx context.Context, down <-chan postgres.Control, stopped <-chan error) error {
	select {
	case err := <-stopped:
		return err
	case <-down:
	}
	select {
	case err := <-stopped:
		return err
	case <-time.After(shutDownGrace):
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
