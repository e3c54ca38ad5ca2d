package sim

import (
	"fmt"
	"strings"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
)

// Options say what world is made. Equal options give equal histories.
type Options struct {
	Seed    uint64
	Members int       // 2 to 5
	Policy  ha.Policy // with which the cluster is made
	Tags    []map[string]any
	// Guard keeps the deadline of a leader whose agent is dead or frozen. Today's product has none: there such a server
	// runs on until an agent looks after it again (docs/invariants.md, 3).
	Guard bool
	// Starved: now and then a walsender reads new synchronous_standby_names up to 200 ms late. Nothing in the shell waits for
	// that, so such a world loses commits now and then.
	Starved bool
	Bugs    Bugs
	Trace   bool // keep the whole trace
}

// Bugs are faults of a wrong shell, planted to see that they are found.
type Bugs struct {
	KeepaliveIsProof bool // a keepalive is taken for leadership
	UnguardedSync    bool // /sync is written without a compare
	NamesFirst       bool // the names are emptied before /sync says so
	RestartedLSN     bool // the position that a restarted standby tells is believed: the end of its WAL on disk is not read
	OrphansIgnored   bool // a dead postmaster counts as a dead server
	WordForgotten    bool // a word that was given does not outlive the agent
	WordUnseen       bool // neither Decide nor the claim looks at the word that was given
	AllButOne        bool // a round counts that one member did not answer
	ListAsSeen       bool // members whose place in the list is not yet known are not asked
	RoundFromItsEnd  bool // a round counts from its end
	LateRecreate     bool // a vanished leader key is created again by a heartbeat, at any time
}

// World is the whole of it: one true time, one source of chance, one queue of events.
type World struct {
	opt      Options
	random   random
	sickness random // of the checks that look for sick servers, so that older stories stay what they were
	now      time.Duration
	queue    queue
	network  network
	store    *store
	members  []*member
	policies []ha.Policy

	records  int32
	nonces   int
	systems  int
	history  history
	counts   Counts
	traps    []trap
	crossed  int  // boundaries between steps so far
	garbled  bool // WAL was taken away: a standby may be ahead of its primary, which a person has to look at
	trace    []string
	failure  *Violation
	settling time.Duration // since when no faults are left; 0: not yet
}

// maxEvents bounds a run: no schedule hangs.
const maxEvents = 400_000

// New makes a world whose members begin with empty disks.
func New(o Options) *World {
	w := &World{opt: o, random: random{o.Seed*2 + 1}, sickness: random{o.Seed*2 + 0x51c}, policies: []ha.Policy{o.Policy}}
	w.network = newNetwork(w, o.Members)
	w.store = newStore(w, o.Members)
	w.counts = newCounts()
	for i := range o.Members {
		m := &member{w: w, i: i, name: string(rune('a' + i)), data: &data{kind: ha.DiskEmpty, upstream: -1}}
		m.clock = clock{start: cluster.Instant(w.random.between(10*time.Second, time.Hour)), ppm: int64(w.random.below(20001)) - 10000}
		if i < len(o.Tags) {
			m.tags = o.Tags[i]
		}
		w.members = append(w.members, m)
	}
	for _, m := range w.members {
		w.after(w.random.between(0, 300*time.Millisecond), nil, func() {
			if m.agent == nil && !m.down {
				m.begin()
			}
		})
	}
	return w
}

// Run lets things happen until a true time, an invariant breaks, or stop says so (nil: never).
func (w *World) Run(until time.Duration, stop func() bool) {
	for len(w.queue.heap) > 0 && w.failure == nil {
		if w.queue.heap[0].at > until {
			break
		}
		e := w.queue.pop()
		w.now = e.at
		if p := e.owner; p != nil {
			if p.gone {
				continue
			}
			if p.frozen > 0 {
				p.backlog = append(p.backlog, e)
				continue
			}
		}
		w.counts.Steps++
		if w.counts.Steps > maxEvents {
			w.broken(0, "the run does not end: %d events", maxEvents)
			return
		}
		e.do()
		w.check()
		if stop != nil && stop() {
			return
		}
	}
	if w.failure == nil {
		w.now = max(w.now, until)
	}
}

// wall is the wall clock, which is only shown.
func (w *World) wall() time.Time { return time.Unix(1_700_000_000, 0).UTC().Add(w.now) }

// note adds a line to the trace.
func (w *World) note(who, format string, args ...any) {
	if w.opt.Trace {
		w.trace = append(w.trace, fmt.Sprintf("%9.3f %-8s %s", w.now.Seconds(), who, fmt.Sprintf(format, args...)))
	}
}

// Trace is what has happened, one line each.
func (w *World) Trace() string { return strings.Join(w.trace, "\n") + "\n" }

// Failure is the first invariant that broke; nil: none.
func (w *World) Failure() *Violation { return w.failure }

// decided counts a decision and notes the ones that act.
func (w *World) decided(a *agent, d ha.Decision) {
	w.counts.decide(d)
	if !w.opt.Trace || d.Action.Kind == ha.None && d.Reason.Code == a.last.Reason.Code {
		return
	}
	text := string(d.Action.Kind)
	switch s := d.Action.Sync; {
	case s != nil && s.Names != nil:
		text += fmt.Sprintf(" names %q", *s.Names)
	case s != nil && s.Record != nil:
		text += " record " + describeSync(s.Record)
	case s != nil:
		text += " delete"
	}
	if d.Action.Member != "" {
		text += " " + d.Action.Member
	}
	w.note(a.m.name, "-> %s (%s)", text, d.Reason.Code)
}

// describe is a policy in a few words.
func (w *World) describe(p ha.Policy) string {
	text := string(p.Sync)
	if p.Strict {
		text += " strict"
	}
	if p.Pause {
		text += " pause"
	}
	if p.Failsafe {
		text += " failsafe"
	}
	return fmt.Sprintf("%s ttl %s", text, p.TTL)
}

func systemID(n int) string { return fmt.Sprintf("70000000000000%05d", n) }

// exited is the end of an agent that must not go on. Its supervisor starts another, once people have mended what was wrong.
func (w *World) exited(m *member) {
	w.note(m.name, "agent exits")
	m.halt()
	if w.settling > 0 {
		w.after(5*time.Second, nil, func() {
			if m.agent == nil {
				m.begin()
			}
		})
	}
}

// ended notes how an action ended.
func (w *World) ended(t *task, err error) {
	if err == nil {
		w.note(t.a.m.name, "   %s done", t.kind)
	}
}

// guard sets the alarm of a member's guard for its deadline.
func (w *World) guard(m *member) {
	until := m.until
	w.after(m.clock.really(until.Sub(m.now()))+time.Millisecond, nil, func() {
		if m.until == until {
			m.watchdog()
		}
	})
}

// watchdog ends a server that may be writable past the deadline, if there is a guard.
func (m *member) watchdog() {
	s := m.server
	if !m.w.opt.Guard || m.frozen > 0 || m.until == 0 || m.now() < m.until || !s.alive() || !s.primary && !s.promoting && m.data.signal || m.paused() {
		return
	}
	m.w.note(m.name, "the guard ends the server")
	m.kill(func() {})
}

// paused tells whether the member, as far as it has heard, is in maintenance mode.
func (m *member) paused() bool { return m.pause }

// policy is the one in the store.
func (w *World) policy() ha.Policy {
	if c := w.store.snap.Config; c != nil {
		n := 0
		for _, d := range c.Raw {
			n = n*10 + int(d-'0')
		}
		return w.policies[n]
	}
	return w.policies[0]
}
