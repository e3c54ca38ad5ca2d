package sim

import (
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
)

// probeTimeout bounds one question to the local server.
const probeTimeout = 2 * time.Second

// seen is what one look at the local server showed.
type seen struct {
	at      cluster.Instant
	disk    data // without its WAL
	process ha.Process
	replay  string
	probe   *probe
	end     *reach // of a standby's WAL on disk; nil: it was not looked for
}

// probe is what a running server told of itself.
type probe struct {
	inRecovery bool
	system     string
	timeline   cluster.Timeline
	wal        cluster.LSN // of a primary
	receive    cluster.LSN
	replay     cluster.LSN
	streaming  bool
	upstream   string
	names      string
	standbys   []ha.Standby
	waiting    bool
}

func (p *probe) position() cluster.LSN {
	if p.inRecovery {
		return max(p.receive, p.replay)
	}
	return p.wal
}

func (s *server) probe() *probe {
	d := s.m.data
	p := &probe{inRecovery: !s.primary, system: d.system, names: s.names, timeline: d.tl}
	if s.primary {
		p.wal = d.end()
		for _, st := range s.senders {
			o := ha.Standby{Name: st.down.m.name, State: "catchup", SyncState: st.syncState(), Flush: firstLSN + cluster.LSN(st.flushed)}
			if st.caughtUp && !st.garbled {
				o.State = "streaming"
			}
			p.standbys = append(p.standbys, o)
		}
		return p
	}
	p.replay, p.waiting = s.replayed, !s.replaying && s.receiver == nil
	if s.received {
		p.receive = d.end()
	}
	if st := s.receiver; st != nil {
		p.streaming, p.upstream = !st.garbled, st.up.m.name
	} else {
		p.timeline = max(d.controlTL, d.recoveryTL)
	}
	return p
}

// look begins a look at the local server, unless one is on its way: then another follows it.
func (a *agent) look() {
	if a.looking {
		a.lookAgain = true
		return
	}
	a.looking = true
	generation := a.generation
	if a.broken {
		a.broken, a.watching, a.grounded = false, false, false
	}
	a.see(a.postmaster, !a.grounded, func(s seen) {
		a.looking = false
		if generation == a.generation {
			a.takeSeen(s)
		}
		if a.lookAgain || generation != a.generation {
			a.lookAgain = false
			a.look()
		}
		a.turn()
	})
}

// see looks at disk, processes and server, in this order; each part is as old as the time it took. ground asks for the end
// of a standby's WAL as well.
func (a *agent) see(p *server, ground bool, done func(seen)) {
	r := &a.w.random
	s := seen{at: a.now(), disk: *a.m.data}
	s.disk.wal = nil
	s.process, s.replay = a.processState(p), a.m.recovery()
	if s.process != ha.ProcessUp {
		a.after(r.between(time.Millisecond, 4*time.Millisecond), func() { done(s) })
		return
	}
	a.ask(p, r.between(time.Millisecond, 6*time.Millisecond), func(answer *probe) {
		s.probe = answer
		if d := a.m.data; ground && answer != nil && answer.inRecovery && !a.w.opt.Bugs.RestartedLSN && d.kind == ha.DiskData && !d.torn {
			s.end = &reach{d.tl, d.end()}
		}
		done(s)
	})
}

// ask asks the local server; nil: it did not answer.
func (a *agent) ask(p *server, takes time.Duration, done func(*probe)) {
	if a.w.random.oneIn(200) {
		takes += a.w.random.between(50*time.Millisecond, 1500*time.Millisecond)
	}
	answered := false
	if p.frozen > 0 || p.phase == dead {
		takes = probeTimeout
	}
	a.after(min(takes, probeTimeout), func() {
		if p.frozen == 0 && p.ready && (p.phase == running || p.phase == stopping && !p.primary) {
			answered = true
		}
		if !answered {
			done(nil)
			return
		}
		answer := p.probe()
		a.after(a.w.random.between(200*time.Microsecond, 2*time.Millisecond), func() { done(answer) })
	})
}

func (a *agent) processState(p *server) ha.Process {
	s := a.m.server
	if p != nil && p.phase != orphaned && p.phase != dead {
		return ha.ProcessUp
	}
	if s.alive() && !(a.w.opt.Bugs.OrphansIgnored && s.phase == orphaned) {
		return ha.ProcessOrphans
	}
	return ha.ProcessDown
}

func (a *agent) takeSeen(s seen) {
	if s.end != nil {
		a.reach.timeline, a.reach.wal = max(a.reach.timeline, s.end.timeline), max(a.reach.wal, s.end.wal)
	}
	a.grounded = s.end != nil || s.probe != nil && (a.grounded || !s.probe.inRecovery)
	a.reach.raise(s.probe)
	a.seen = s
	p := s.probe
	if p == nil {
		return
	}
	a.watching = true
	if a.founded(s.disk.system) {
		a.m.data.founding = false
	}
	if !p.inRecovery && s.disk.controlTL < p.timeline {
		a.checkpoint = false
	}
	if p.inRecovery && p.streaming && (a.task == nil || a.task.kind != ha.Promote) {
		a.m.data.mark.Pending = 0 // agent.dropPending
	}
	if a.upstream == "" && p.inRecovery && p.upstream != "" {
		a.upstream = p.upstream
	}
}

// reach is how far the WAL of this data directory is known to go (agent.reach).
type reach struct {
	timeline cluster.Timeline
	wal      cluster.LSN
}

func (r *reach) raise(p *probe) {
	if p == nil {
		return
	}
	r.timeline = max(r.timeline, p.timeline)
	if !p.inRecovery {
		r.wal = max(r.wal, p.wal)
		return
	}
	r.wal = max(r.wal, p.receive, p.replay)
	p.timeline, p.receive = r.timeline, r.wal
}

// founded tells that the store knows the cluster by this system identifier.
func (a *agent) founded(system string) bool {
	i := a.snap.Initialize
	return a.known && i.Valid() && i.SystemID == system
}

func (a *agent) serverView() ha.Server {
	s := &a.seen
	v := ha.Server{Disk: ha.DiskUnknown, Process: s.process, Crash: a.crash, Upstream: a.upstream, Knocks: a.knocks(), Room: a.m.room(), Recovery: s.replay}
	if v.Process == "" {
		v.Process = ha.ProcessUnknown
	}
	if s.at != 0 {
		a.diskView(&v, &s.disk)
	}
	if p := s.probe; p != nil {
		v.Probed, v.ProbedAt, v.InRecovery = true, s.at, p.inRecovery
		v.SystemID, v.Timeline, v.SyncNames = p.system, p.timeline, p.names
		v.Replayed, v.Waiting = p.replay, p.waiting
		v.WAL, v.Streaming = p.position(), p.inRecovery && p.streaming
		for _, o := range p.standbys {
			if _, ok := a.snap.Member(o.Name); ok {
				v.Standbys = append(v.Standbys, o)
			}
		}
	}
	return v
}

func (a *agent) diskView(v *ha.Server, d *data) {
	v.Disk = d.kind
	if d.kind != ha.DiskData {
		return
	}
	v.SystemID, v.DiskTimeline = d.system, d.controlTL
	v.WasPrimary, v.Torn, v.CleanStop = d.wasPrimary(), d.torn, d.clean()
	v.Promoted = d.mark.Any()
	if d.founding && a.known && !a.founded(d.system) {
		v.Disk = ha.DiskUnfinished
	}
}
