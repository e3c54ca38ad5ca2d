package agent

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/havenha/haven/internal/bootclock"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/dcs"
	"github.com/havenha/haven/internal/ha"
	"github.com/havenha/haven/internal/postgres"
)

// probeTimeout bounds one question to the local server.
const probeTimeout = 2 * time.Second

// seen is what one look at the local server showed.
type seen struct {
	disk     postgres.Disk
	diskErr  error
	mark     ha.Promotions
	markErr  error
	founding bool // a bootstrap was begun here, and has not been seen to end
	process  ha.Process
	adopted  *postgres.Server  // a server that somebody else has started, in a pause
	replay   postgres.Recovery // of a server that does not answer, or of a standby without a stream
	probe    *postgres.Probe
	probeErr error
	end      *reach // of a standby's WAL on disk; nil: it was not looked for
	at       cluster.Instant
	wall     time.Time
}

// answered is the last answer of a server, and since when it has had none.
type answered struct {
	probe    *postgres.Probe
	process  *postgres.Server
	at, lost cluster.Instant
}

type lookResult struct {
	seen       seen
	generation int
}

type serverExit struct {
	process *postgres.Server
	at      cluster.Instant
	wall    time.Time
}

// look begins a look at the local server, unless one is on its way: then another follows it.
func (a *Agent) look(ctx context.Context) {
	if a.st.looking {
		a.st.lookAgain = true
		return
	}
	a.st.looking = true
	generation, p := a.st.generation, a.st.process
	if a.sessionLost.Swap(false) {
		a.st.watching, a.st.grounded = false, false
	}
	ground, adopt := !a.st.grounded, a.st.dynamic.Pause && a.st.task == nil && p == nil
	a.beside(ctx, func(ctx context.Context) {
		r := lookResult{seen: a.see(ctx, p, ground, adopt), generation: generation}
		select {
		case a.looks <- r:
		case <-ctx.Done():
		}
	})
}

// see looks at the data directory, the processes and the server, in this order. ground asks for the end of a standby's
// WAL as well: the server has not answered before, so it may be in the middle of its replay. With adopt, a server that an operator
// has started in a pause is taken under the agent's wing: nobody else knows of its postmaster, and what is left would count as orphans.
func (a *Agent) see(ctx context.Context, p *postgres.Server, ground, adopt bool) seen {
	s := seen{at: bootclock.Now(), wall: time.Now()}
	s.disk, s.diskErr = a.server.Inspect()
	s.founding = a.foundingMarked()
	s.mark, s.markErr = a.readMark()
	s.process = a.processState(p)
	if adopt && s.process == ha.ProcessOrphans {
		if started, err := a.server.Adopt(); err == nil && started != nil && alive(started) {
			s.adopted, s.process = started, ha.ProcessUp
		}
	}
	if s.process != ha.ProcessUp {
		s.replay = a.replayOf(s.process)
		return s
	}
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	probe, err := a.server.Probe(ctx)
	if err != nil {
		s.probeErr, s.replay = err, a.replayOf(s.process)
		return s
	}
	s.probe = &probe
	if probe.InRecovery && !streaming(probe) {
		s.replay.Busy = a.server.Recovery().Busy
	}
	if ground && probe.InRecovery {
		if tl, end, err := a.server.LocalEnd(); err == nil { // else it is looked for again
			s.end = &reach{timeline: tl, wal: end}
		}
	}
	return s
}

// replayOf tells what the replay of a server does that does not answer.
func (a *Agent) replayOf(p ha.Process) postgres.Recovery {
	if p == ha.ProcessDown {
		return postgres.Recovery{}
	}
	return a.server.Recovery()
}

func (a *Agent) processState(p *postgres.Server) ha.Process {
	if p != nil && alive(p) {
		return ha.ProcessUp
	}
	left, err := a.server.Processes()
	switch {
	case err != nil:
		return ha.ProcessUnknown
	case len(left) > 0:
		return ha.ProcessOrphans
	}
	return ha.ProcessDown
}

func alive(p *postgres.Server) bool {
	select {
	case <-p.Exited():
		return false
	default:
		return true
	}
}

func (a *Agent) takeLook(ctx context.Context, r lookResult) {
	a.st.looking = false
	if r.generation == a.st.generation {
		a.takeSeen(ctx, r.seen)
	}
	if a.st.lookAgain || r.generation != a.st.generation {
		a.st.lookAgain = false
		a.look(ctx)
	}
}

func (a *Agent) takeSeen(ctx context.Context, s seen) {
	// A look may be faster than the report of the end, and what it shows must not be decided on without the crash.
	if p := a.st.process; p != nil && s.process != ha.ProcessUp && !alive(p) {
		a.noteEnd(serverExit{process: p, at: bootclock.Now(), wall: time.Now()})
	}
	if s.adopted != nil && a.st.process == nil {
		a.log.Info("adopted a server that was started by hand", "pid", s.adopted.PID())
		a.st.process, a.st.crash = s.adopted, nil
		a.watchExit(s.adopted)
	}
	if s.end != nil {
		a.st.reach.timeline, a.st.reach.wal = max(a.st.reach.timeline, s.end.timeline), max(a.st.reach.wal, s.end.wal)
	}
	answers := s.probe != nil || postgres.Busy(s.probeErr)
	a.st.grounded = s.end != nil || answers && a.st.grounded || s.probe != nil && !s.probe.InRecovery
	a.st.reach.raise(s.probe)
	if s.probe == nil && a.st.seen.probe != nil {
		a.st.answered.lost = bootclock.Now()
	}
	a.st.seen = s
	if s.process == ha.ProcessDown {
		a.warden.ending.Store(0)
	}
	if s.probe == nil {
		return
	}
	a.st.answered = answered{probe: s.probe, process: a.st.process, at: s.at}
	a.clearFounded(s)
	if s.diskErr == nil && !s.probe.InRecovery && s.disk.Control.Timeline != 0 && s.disk.Control.Timeline < s.probe.Timeline {
		a.st.checkpoint = false // it was promoted, by an earlier agent perhaps, and pg_rewind elsewhere goes by the control file
	}
	if t := a.st.task; s.mark.Pending != 0 && s.probe.InRecovery && s.probe.ReceiverStatus == "streaming" && (t == nil || t.Kind != ha.Promote) {
		a.dropPending()
	}
	a.learnUpstream(s.probe)
	a.st.story.streamed(a.st.snap.Leader, s)
	if !a.st.watching {
		a.st.watching = true
		a.watchLoss(ctx)
	}
}

// reach is how far the WAL of this data directory is known to go. A standby that was restarted tells less than it has
// received until it has replayed all of it, and without a stream it tells the timeline of its last checkpoint: both would
// make a race judge by less than was acknowledged. So the end of the WAL is read from the disk whenever the server
// answers again after it did not, and raised by what the server tells from then on.
type reach struct {
	timeline cluster.Timeline
	wal      cluster.LSN
}

// raise takes in what a standby tells, and puts what was known before in its place where that is more.
func (r *reach) raise(p *postgres.Probe) {
	if p == nil {
		return
	}
	r.timeline = max(r.timeline, p.Timeline)
	if !p.InRecovery {
		r.wal = max(r.wal, p.WalLSN)
		return
	}
	r.wal = max(r.wal, p.ReceiveLSN, p.ReplayLSN)
	p.Timeline, p.ReceiveLSN = r.timeline, r.wal
}

// learnUpstream finds out, after a restart of the agent, whom the running standby follows.
func (a *Agent) learnUpstream(p *postgres.Probe) {
	if a.st.upstream != "" || !p.InRecovery || p.ReceiverConninfoHost == "" {
		return
	}
	address := net.JoinHostPort(p.ReceiverConninfoHost, p.ReceiverConninfoPort)
	for _, m := range a.st.snap.Members {
		if m.Address() == address {
			a.st.upstream = m.Name
		}
	}
}

// watchLoss looks again as soon as the server breaks its connection to us: a crash is seen without polling.
func (a *Agent) watchLoss(ctx context.Context) {
	lost := a.server.Lost()
	a.beside(ctx, func(ctx context.Context) {
		select {
		case <-lost:
			a.sessionLost.Store(true)
			a.Wake()
		case <-ctx.Done():
		}
	})
}

// watchExit reports the end of the postmaster.
func (a *Agent) watchExit(p *postgres.Server) {
	a.running.Add(1)
	go func() {
		defer a.running.Done()
		for {
			select {
			case <-p.Exited():
				a.exits <- serverExit{process: p, at: bootclock.Now(), wall: time.Now()}
				return
			case <-a.keeper.ended:
				return
			}
		}
	}()
}

func (a *Agent) takeExit(ctx context.Context, e serverExit) {
	if e.process != a.st.process {
		return
	}
	a.noteEnd(e)
	a.st.seen.probe, a.st.seen.process = nil, ha.ProcessUnknown
	a.look(ctx)
}

// noteEnd notes the end of the postmaster. One that nobody had ordered is a crash.
func (a *Agent) noteEnd(e serverExit) {
	a.st.process = nil
	if a.ordered.Load() {
		return
	}
	overdue := a.st.holder != nil && !e.at.Before(a.st.deadline)
	a.st.crash = &ha.Crash{Text: e.process.ExitStatus(), At: e.at, Wall: e.wall, Overdue: overdue}
	told, noted := "the server ended by itself", "the postmaster ended: "
	if overdue {
		told, noted = "the server was ended at the deadline of its leadership", "the postmaster was ended at the deadline of its leadership: "
	}
	a.log.Warn(told, "pid", e.process.PID(), "status", e.process.ExitStatus())
	a.st.story.note(e.wall, a.opt.Node.Name, noted+e.process.ExitStatus())
}

func (a *Agent) takeUpdate(u dcs.Update) {
	if u.Err != nil {
		if a.st.known {
			a.log.Warn("etcd cannot be read", "error", u.Err)
		}
		a.st.known = false
		return
	}
	a.takeSnapshot(u.Snapshot)
}

// takeSnapshot takes the store's state in, unless a newer one was read already.
func (a *Agent) takeSnapshot(s cluster.Snapshot) {
	if s.ClusterID == a.st.snap.ClusterID && s.Revision < a.st.snap.Revision {
		return
	}
	before := a.st.snap
	a.st.snap, a.st.known, a.st.seenAt = s, true, time.Now()
	a.st.story.leaderKey(before.Leader, s.Leader, a.opt.Node.Name)
	a.noticeUpstream(before, s)
	if s.Config != nil && (before.Config == nil || before.Config.ModRev != s.Config.ModRev) {
		a.takeConfig(s)
	}
	if a.deposedBy(s.Leader) {
		a.st.lost = true
	}
}

// deposedBy tells whether the leader key as it is now denies our leadership. One that is absent does not: its holder may
// create it again. While an action of ours takes the key, a key that bears our name is taken for our own.
func (a *Agent) deposedBy(l *cluster.Leader) bool {
	h, t := a.st.holder, a.st.task
	switch {
	case h == nil || l == nil || l.Name == h.Name && l.ModRev <= h.LeaderRev:
		return false
	case t == nil:
		return true
	case t.Kind == ha.Acquire:
		return l.Name != h.Name
	case t.Kind == ha.Switch || t.Kind == ha.HandOver:
		return l.Name != t.With
	}
	return true
}

func (a *Agent) takeConfig(s cluster.Snapshot) {
	d, warnings, err := config.ParseDynamic(s.Config.Raw, allHaven(s))
	if err != nil {
		a.log.Warn("the dynamic configuration cannot be used; the former one stays in force", "error", err)
		return
	}
	for _, w := range warnings {
		a.log.Warn("dynamic configuration: " + w)
	}
	a.st.dynamic, a.st.inForce = d, s.Config.Raw
	if a.paused.Swap(d.Pause) && !d.Pause {
		a.keeper.again() // the guard learns of a deadline with the first proof after the pause
	}
}

func allHaven(s cluster.Snapshot) bool {
	for _, m := range s.Members {
		if m.Haven == nil && len(m.ConnURL) > 0 {
			return false
		}
	}
	return true
}

// view puts together what Decide may look at.
func (a *Agent) view(now cluster.Instant) ha.View {
	st := &a.st
	node := a.node.Load()
	me := cluster.Member{Tags: node.Tags}
	v := ha.View{
		Now: now, Wall: time.Now(),
		Me: ha.Self{Name: node.Name, MayBootstrap: node.Bootstrap != nil, MayLead: me.MayLead() && !a.watchdogFailed(node, st.dynamic.TTL), Started: st.started,
			ReplicateFrom: ha.ReplicateFrom(node.Tags), NoStream: a.noStream()},
		Policy: policy(st.dynamic, node),
		Store:  storeView(st.snap, st.known, st.dynamic.LoopWait),
		Server: a.serverView(),
		Survey: st.survey, Compare: st.compare, Task: st.task, Outcome: st.outcome,
		Lease:  ha.Lease{ID: st.lease.ID, Held: st.holder != nil, Lost: st.lost, Deadline: st.deadline, Failsafe: st.failsafe},
		Pledge: a.pledges.now(),
	}
	if st.holder != nil {
		v.Lease.LeaderRev, v.Lease.TermRev = st.holder.LeaderRev, st.holder.TermRev
	}
	return v
}

// noStream tells whether this member is to replicate from the archive only.
func (a *Agent) noStream() bool { return cluster.Member{Tags: a.node.Load().Tags}.Tag("nostream") }

// ownNames is the operator's own synchronous_standby_names, which holds while no synchronous mode is on.
func ownNames(d config.Dynamic, node *config.Node) string {
	_, params, _, _, _, _ := node.ServerSettings(d, "primary")
	return params["synchronous_standby_names"]
}

func policy(d config.Dynamic, node *config.Node) ha.Policy {
	p := ha.Policy{
		TTL: d.TTL, LoopWait: d.LoopWait,
		MaxLag: uint64(max(0, d.MaximumLagOnFailover)), MaxSyncLag: d.MaximumLagOnSyncNode,
		Strict: d.SynchronousModeStrict, SyncCount: d.SynchronousNodeCount,
		Pause: d.Pause, Failsafe: d.FailsafeMode, CheckTimeline: d.CheckTimeline,
		StartLimit: max(1, d.PrimaryStartTimeout), RaceBackoff: d.PrimaryRaceBackoff, CrashWait: d.Haven.CrashWait,
		UseRewind:      node.PostgresWith(d).UsePgRewind,
		CrashHandovers: 5 * time.Minute, HungAfter: hungAfter(d), NotStreaming: 10 * time.Second,
		StandbyGoneFor: 2 * time.Second, CloneLimit: d.Haven.CloneLimit, CloneWindow: d.Haven.CloneWindow,
		CopiesAlone: copiesAlone(d, node),
	}
	if far, ok := d.Standby(); ok {
		p.Remote = ha.RemotePrefix + far.Name()
	}
	switch d.SynchronousMode {
	case config.SyncOn:
		p.Sync = ha.SyncPriority
	case config.SyncQuorum:
		p.Sync = ha.SyncQuorum
	default:
		p.Sync, p.OwnNames = ha.SyncOff, ownNames(d, node)
	}
	return p
}

// hungAfter is how long the server may answer no new connection; 0: any time.
func hungAfter(d config.Dynamic) time.Duration {
	if d.Haven.HungAfter < 0 {
		return ha.HungAfter(d.TTL)
	}
	return d.Haven.HungAfter
}

// staleAfter is how many loop_waits after its time a scheduled request is not carried out any more (Patroni: 1.5), and
// staleAtLeast the least that this is.
const (
	staleAfter   = 1.5
	staleAtLeast = 15 * time.Second
)

func storeView(s cluster.Snapshot, known bool, loopWait time.Duration) ha.Store {
	if !known {
		return ha.Store{}
	}
	v := ha.StoreOf(s)
	if r := v.Failover; r != nil && s.Failover.ScheduledAt != nil {
		late := time.Since(*s.Failover.ScheduledAt)
		limit := max(time.Duration(staleAfter*float64(loopWait)), staleAtLeast)
		r.Scheduled, r.Due, r.Stale = true, late >= 0, late > limit
	}
	return v
}

func (a *Agent) serverView() ha.Server { return a.viewOf(a.st.seen) }

// steady is how long a server that lives, and is only slow to answer, is shown to others as it last answered.
const steady = 5 * time.Second

// shown is what was seen last, as others are to know it: for one slow answer nobody shall route past this member, take it for
// unready, or lose sight of how far it is.
func (a *Agent) shown() seen {
	s, last := a.st.seen, a.st.answered
	if s.probe == nil && s.process == ha.ProcessUp && errors.Is(s.probeErr, context.DeadlineExceeded) &&
		last.process != nil && last.process == a.st.process && bootclock.Now().Sub(last.lost) < steady {
		s.probe, s.at = last.probe, last.at
	}
	return s
}

func (a *Agent) viewOf(s seen) ha.Server {
	v := ha.Server{Disk: ha.DiskUnknown, Process: s.process, Crash: a.st.crash, Upstream: a.st.upstream, Knocks: a.knocker.of(a.st.process), Room: a.surveyor.now(s.disk.Control.SegmentSize), Recovery: s.replay.Doing, Busy: s.replay.Busy}
	if v.Process == "" {
		v.Process = ha.ProcessUnknown
	}
	if s.at != 0 && s.diskErr == nil {
		diskView(&v, s.disk)
	}
	v.Promoted = s.markErr != nil || s.mark.Any()
	if v.Disk == ha.DiskData && s.founding && !a.founded(s.disk.Control.SystemID) {
		v.Disk = ha.DiskUnfinished
	}
	if p := s.probe; p != nil {
		v.Probed, v.ProbedAt, v.InRecovery = true, s.at, p.InRecovery
		v.Version, v.PendingRestart = p.Version, p.PendingRestart
		v.SystemID, v.Timeline, v.SyncNames = p.SystemID, p.Timeline, p.SyncNames
		v.WAL = max(p.ReceiveLSN, p.ReplayLSN)
		if !p.InRecovery {
			v.WAL = p.WalLSN
		}
		v.Replayed, v.Waiting = p.ReplayLSN, p.Waiting
		v.Streaming = p.InRecovery && streaming(*p)
		v.Standbys = a.standbys(p)
	}
	return v
}

// streaming tells whether a standby receives. A receiver begins at the begin of a segment; one that stays behind what is
// replayed brings nothing: the upstream's WAL ends before the local one does.
func streaming(p postgres.Probe) bool {
	return p.ReceiverStatus == "streaming" && p.Received >= p.ReplayLSN
}

func diskView(v *ha.Server, d postgres.Disk) {
	switch d.Kind {
	case postgres.DiskAbsent, postgres.DiskEmpty:
		v.Disk = ha.DiskEmpty
	case postgres.DiskUnfinished:
		v.Disk = ha.DiskUnfinished
	case postgres.DiskForeign:
		v.Disk = ha.DiskForeign
	case postgres.DiskData:
		v.Disk = ha.DiskData
		v.SystemID, v.DiskTimeline = d.Control.SystemID, d.Control.Timeline
		v.WasPrimary = !d.StandbySignal && !d.Copy && d.Control.Primary()
		v.Torn = d.Torn
		v.CleanStop = d.Control.Clean()
	}
}

// standbys lists the walsenders that are members': they bear a member's name and, where slots are in use, hold that
// member's slot. Another connection of that name would acknowledge commits that the member does not have.
func (a *Agent) standbys(p *postgres.Probe) []ha.Standby {
	var out []ha.Standby
	for _, w := range p.Standbys {
		if m, ok := a.memberOf(w); ok {
			out = append(out, ha.Standby{Name: m, State: w.State, SyncState: w.SyncState, Flush: w.Flush})
		}
	}
	return out
}

func (a *Agent) memberOf(w postgres.Walsender) (string, bool) {
	for _, m := range a.st.snap.Members {
		if strings.EqualFold(m.Name, w.Name) && m.Name != a.opt.Node.Name {
			return m.Name, !a.st.dynamic.UseSlots || w.Slot == cluster.SlotName(m.Name)
		}
	}
	return "", false
}

// intruders are walsenders that bear the name of a member which streams by its own slot.
func (a *Agent) intruders(p *postgres.Probe) []postgres.Walsender {
	var out []postgres.Walsender
	owners := a.standbys(p)
	for _, w := range p.Standbys {
		name, owner := a.memberOf(w)
		present := slices.ContainsFunc(owners, func(s ha.Standby) bool { return s.Name == name })
		if name != "" && !owner && present {
			out = append(out, w)
		}
	}
	return out
}
