package sim

import (
	"errors"
	"strconv"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
)

var (
	errStart  = errors.New("the server ended at once")
	errUnread = errors.New("the server ended before it came to its data")
)

// member is one host: its clock, its disk, its server and its agent.
type member struct {
	w      *World
	i      int
	name   string
	clock  clock
	data   *data
	server *server // the newest run; nil or dead: none
	agent  *agent  // nil: none runs
	tags   map[string]any

	down         bool // the host has no power
	frozen       int  // of all its processes
	startFails   int
	portTaken    int
	promoteFails int
	foreign      *data // what stood in the data directory before somebody put another database there
	// until is the guard's deadline, on this host's clock; zero: it is not armed.
	until  cluster.Instant
	thawed time.Duration // when the host or its agent was last thawed or begun
	pause  bool          // it has heard of maintenance mode
	full   string        // which of its file systems: data or wal
	wiped  bool          // an operator has emptied its disk
	word   word          // to a leader without the store, on disk
	boots  int           // how often the host was started again
}

func (m *member) now() cluster.Instant { return m.clock.instant(m.w.now) }

func (m *member) wake() {
	if m.agent != nil {
		m.agent.look()
	}
}

// noticeExit tells the agent of the end of the postmaster.
func (m *member) noticeExit(s *server) {
	if a := m.agent; a != nil {
		m.w.after(m.w.random.between(500*time.Microsecond, 5*time.Millisecond), &a.process, func() {
			a.sessionLost()
			a.takeExit(s, a.now())
		})
	}
}

// agent is the model of internal/agent. Its state is what the loop there owns; the same names mean the same things.
type agent struct {
	process
	w *World
	m *member

	snap    cluster.Snapshot
	known   bool
	dynamic int // which of the world's policies
	memory  ha.Memory

	seen       seen
	reach      reach
	grounded   bool // reach holds the end of the WAL on disk as it was when the server last began to answer
	watching   bool // the loss of the connection to the server will be told
	broken     bool // it was told
	generation int
	looking    bool
	lookAgain  bool
	due        cluster.Instant // of the next look; 0: not set

	leaseID  int64
	holder   *holder
	lost     bool
	deadline cluster.Instant
	failsafe bool // the deadline rests on the word of all members

	postmaster *server
	ordered    bool
	crash      *ha.Crash
	upstream   string
	survey     *ha.Survey
	compare    *ha.Compare

	task    *task
	outcome *ha.Outcome
	restart *ha.Restart // what an operator has ordered
	reinit  *ha.Reinit
	// reinitAccepted: the replacement of the data has begun, and is not refused any more.
	reinitAccepted bool
	last           ha.Decision

	checkpoint bool
	started    cluster.Instant
	lastTurn   cluster.Instant
	timer      int
	oldLeader  *cluster.Member // as last seen in office, so that it can be asked when its key is gone

	keeper  keeper
	writer  writer
	chores  chores
	knocker knocker
	watch   watch
	raft    uint64 // raft term of the newest linearizable answer to a renewal
	public  cluster.Member
	pledges pledges
	status  published
	ending  bool // told to end
	again   bool // and wanted again
}

// begin starts an agent on the member's host.
func (m *member) begin() {
	w := m.w
	a := &agent{w: w, m: m, checkpoint: true, started: m.now()}
	a.frozen = m.frozen
	a.openPledges()
	a.status.policy = *a.policy()
	m.agent, m.thawed = a, w.now
	w.note(m.name, "agent begins")
	if s := m.server; s.alive() && s.phase != orphaned {
		a.postmaster = s
	}
	a.look()
	a.turn()
	a.keeperOnce()
	a.watchAgain()
	a.knockAgain()
}

// halt ends the agent at once, as a SIGKILL does.
func (m *member) halt() {
	if a := m.agent; a != nil {
		if a.task != nil {
			a.task.abandon()
		}
		a.end()
		m.agent = nil
	}
}

func (a *agent) now() cluster.Instant { return a.m.now() }

func (a *agent) policy() *ha.Policy { return &a.w.policies[a.dynamic] }

func (a *agent) retryTimeout() time.Duration { return min(10*time.Second, a.policy().TTL/2) }

// after waits by the host's clock.
func (a *agent) after(d time.Duration, do func()) { a.w.after(a.m.clock.really(d), &a.process, do) }

// turn decides once, and begins what was decided (agent.turn).
func (a *agent) turn() {
	if a.ending {
		a.shutdownTurn()
		return
	}
	now := a.now()
	a.lastTurn = now
	a.forgetLost()
	if a.task == nil && a.holder == nil {
		a.pledges.claims = false
	}
	v := a.view(now)
	a.takeOrders(&v)
	d, m := ha.Decide(v, a.memory)
	a.w.decided(a, d)
	a.memory, a.outcome, a.last = m, nil, d
	if d.Cancel && a.task != nil {
		a.task.cancel()
	}
	switch k := d.Action.Kind; {
	case k == ha.Exit:
		a.w.exited(a.m)
		return
	case k != ha.None && (a.task == nil || k == ha.Kill):
		a.act(d)
	case k == ha.None && a.task == nil:
		a.maintain()
	}
	a.publish()
	a.timer++
	mine := a.timer
	again := max(d.Again, 10*time.Millisecond)
	if a.holder != nil && !a.lost && now < a.deadline {
		again = min(again, max(a.deadline.Sub(now), time.Millisecond))
	}
	if at := now.Add(again); a.due == 0 || at < a.due {
		a.due = at
	}
	a.after(max(a.due.Sub(now), time.Millisecond), func() {
		if mine == a.timer {
			a.due = 0
			a.look()
			a.turn()
		}
	})
}

// view puts together what Decide may look at.
func (a *agent) view(now cluster.Instant) ha.View {
	me := cluster.Member{Tags: a.m.tags}
	v := ha.View{
		Now: now, Wall: a.w.wall(),
		Me:     ha.Self{Name: a.m.name, MayBootstrap: true, MayLead: me.MayLead(), Started: a.started, ReplicateFrom: ha.ReplicateFrom(a.m.tags)},
		Policy: *a.policy(), Store: a.storeView(), Server: a.serverView(),
		Survey: a.survey, Compare: a.compare, Outcome: a.outcome,
		Lease:  ha.Lease{ID: a.leaseID, Held: a.holder != nil, Lost: a.lost, Deadline: a.deadline, Failsafe: a.failsafe},
		Pledge: a.word(),
	}
	if a.task != nil {
		v.Task = &ha.Task{Kind: a.task.kind, With: a.task.with, Since: a.task.since}
	}
	if h := a.holder; h != nil {
		v.Lease.LeaderRev, v.Lease.TermRev = h.leaderRev, h.termRev
	}
	return v
}

func (a *agent) storeView() ha.Store {
	if !a.known {
		return ha.Store{}
	}
	v := ha.StoreOf(a.snap)
	for i := range v.Members {
		v.Members[i].Haven = true
	}
	return v
}

// takeSnapshot takes the store's state in, unless a newer one was read already.
func (a *agent) takeSnapshot(s cluster.Snapshot) {
	if s.Revision < a.snap.Revision {
		return
	}
	before := a.snap
	a.snap, a.known = s, true
	if s.Config != nil && (before.Config == nil || before.Config.ModRev != s.Config.ModRev) {
		a.dynamic, _ = strconv.Atoi(string(s.Config.Raw))
		if a.m.pause && !a.policy().Pause {
			a.m.thawed = a.w.now
		}
		a.m.pause = a.policy().Pause
	}
	if t := s.Term; t != nil && t.Cause != nil && ha.FaultCause(t.Cause.Code) {
		a.w.history.knew = append(a.w.history.knew, a)
	}
	if a.deposedBy(s.Leader) {
		a.lost = true
	}
}

// deposedBy tells whether the leader key as it is now denies our leadership.
func (a *agent) deposedBy(l *cluster.Leader) bool {
	h, t := a.holder, a.task
	switch {
	case h == nil || l == nil || l.Name == a.m.name && l.ModRev <= h.leaderRev:
		return false
	case t == nil:
		return true
	case t.kind == ha.Acquire:
		return l.Name != a.m.name
	case t.kind == ha.Switch || t.kind == ha.HandOver:
		return l.Name != t.with
	}
	return true
}

// lead takes a leadership into the state; unlead forgets it.
func (a *agent) lead(h holder, deadline cluster.Instant) {
	a.holder, a.lost, a.deadline = &h, false, max(a.deadline, deadline)
	a.arm()
	a.hold(&h)
}

func (a *agent) unlead() {
	a.holder, a.lost, a.deadline = nil, false, 0
	a.hold(nil)
}

// arm tells the guard the deadline.
func (a *agent) arm() {
	if a.deadline > a.m.until {
		a.m.until = a.deadline
		a.w.guard(a.m)
	}
}

func (a *agent) forgetLost() {
	if a.holder == nil || !a.lost || a.task != nil {
		return
	}
	if v := a.serverView(); v.Process == ha.ProcessDown || v.RunningStandby() {
		a.unlead()
	}
}

// sessionLost is told that the server has broken the agent's connection.
func (a *agent) sessionLost() {
	a.broken = a.broken || a.watching
	a.look()
}

// takeExit is told of the end of a postmaster.
func (a *agent) takeExit(s *server, at cluster.Instant) {
	if s != a.postmaster {
		return
	}
	a.postmaster = nil
	a.seen.probe, a.seen.process = nil, ha.ProcessUnknown
	if !a.ordered {
		a.crash = &ha.Crash{Text: "signal 9", At: at, Wall: a.w.wall(), Overdue: a.holder != nil && at >= a.deadline}
	}
	a.look()
	a.turn()
}
