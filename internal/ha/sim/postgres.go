package sim

import (
	"slices"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
)

// phase is how far the processes of a server are.
type phase int

const (
	starting phase = iota
	running
	stopping
	orphaned // the postmaster is dead, its children are not
	dead
)

// server is one run of PostgreSQL on a member's data directory.
type server struct {
	process
	m     *member
	phase phase
	ready bool // it accepts connections
	hung  bool // it answers no new ones, while old sessions go on

	primary   bool // out of recovery
	promoting bool
	replayed  cluster.LSN
	replaying bool // of the local WAL, before it streams
	received  bool // pg_last_wal_receive_lsn() is not NULL

	names    string // in force for sessions
	parsed   ha.Names
	waiters  []int32 // commits, oldest first
	senders  []*stream
	receiver *stream
	attempt  int // of the receiver to connect
}

func (s *server) alive() bool { return s != nil && s.phase != dead }

// writable tells whether the server takes commits now. Orphaned backends do, and whoever promotes has not finished.
func (s *server) writable() bool {
	return s.alive() && s.primary && s.ready && (s.phase == running || s.phase == orphaned)
}

// launch starts a server; ended is told (with a reason) if it ends at once, ready when it accepts connections.
func (m *member) launch(done func(err error)) *server {
	w := m.w
	s := &server{m: m, replayed: m.data.end()}
	s.frozen = m.frozen
	m.server = s
	takes := w.random.between(30*time.Millisecond, 600*time.Millisecond)
	if w.random.oneIn(12) {
		takes += w.random.between(time.Second, 6*time.Second)
	}
	w.note(m.name, "server starts, standby %v", m.data.signal)
	w.after(takes, &s.process, func() {
		if err := m.refusal(); err != nil {
			s.postmasterGone(0)
			done(err)
			return
		}
		if m.data.stuck && m.data.signal { // it never becomes consistent, and answers nobody
			return
		}
		s.begin()
		done(nil)
	})
	return s
}

// refusal is why a server does not start here; nil: it does.
func (m *member) refusal() error {
	switch {
	case m.portTaken > 0:
		return errUnread
	case m.startFails > 0, m.full == "wal", m.data.kind != ha.DiskData, m.data.torn:
		return errStart
	}
	return nil
}

// begin is the moment in which connections are accepted.
func (s *server) begin() {
	w, d := s.m.w, s.m.data
	s.phase, s.ready = running, true
	s.names = d.names
	s.parsed = ha.ParseNames(s.names)
	if !d.signal {
		d.state = inProduction
		if !s.primary {
			s.primary = true
			s.writes()
		}
		return
	}
	d.state = inRecovery
	if w.random.oneIn(3) { // consistent, but not at the end of its WAL: it tells less than it holds (safety: H2)
		s.replaying = true
		s.replayed -= min(cluster.LSN(w.random.below(30)), s.replayed-firstLSN)
		w.after(w.random.between(200*time.Millisecond, 20*time.Second), &s.process, s.caughtUp)
		return
	}
	s.connectSoon(0)
}

func (s *server) caughtUp() {
	if s.replaying {
		s.replaying, s.replayed = false, s.m.data.end()
		s.connectSoon(0)
	}
}

// postmasterGone ends the postmaster; its children live on for a while.
func (s *server) postmasterGone(orphans time.Duration) {
	if s.phase == dead || s.phase == orphaned {
		return
	}
	s.phase = orphaned
	s.m.noticeExit(s)
	if orphans == 0 {
		s.die()
		return
	}
	s.m.w.after(orphans, nil, s.die)
}

// die ends every process of the server.
func (s *server) die() {
	if s.phase == dead {
		return
	}
	noticed := s.phase == orphaned
	s.phase, s.ready = dead, false
	s.end()
	s.waiters = nil
	for _, st := range slices.Clone(s.senders) {
		st.endOf(s)
	}
	if s.receiver != nil {
		s.receiver.endOf(s)
	}
	if !noticed {
		s.m.noticeExit(s)
	}
}

// crash is a death of the postmaster that nobody ordered. How long its children live on was measured: milliseconds as a
// rule, seconds with clients that pipeline (safety: H3, H4).
func (s *server) crash() {
	r := &s.m.w.random
	lives := r.between(2*time.Millisecond, 30*time.Millisecond)
	if r.oneIn(2) && s.primary {
		lives = r.between(100*time.Millisecond, 4*time.Second)
	}
	s.m.w.note(s.m.name, "the postmaster dies; its children live on for %s", lives)
	s.postmasterGone(lives)
}

// recoverInPlace is what the death of a backend leads to (restart_after_crash): the postmaster ends all other processes and
// begins recovery anew. Its agent loses the session, and finds a server that may tell less than it holds.
func (s *server) recoverInPlace() {
	w := s.m.w
	if s.phase != running || s.promoting {
		return
	}
	w.note(s.m.name, "a backend dies: the server recovers in place")
	s.phase, s.ready, s.received, s.waiters = starting, false, false, nil
	for _, st := range slices.Clone(s.senders) {
		st.endOf(s)
	}
	if s.receiver != nil {
		s.receiver.endOf(s)
	}
	if a := s.m.agent; a != nil {
		w.after(w.random.between(500*time.Microsecond, 5*time.Millisecond), &a.process, a.sessionLost)
	}
	takes := w.random.between(5*time.Millisecond, 500*time.Millisecond)
	if long := (&random{w.opt.Seed ^ uint64(w.now)}); long.oneIn(3) { // drawn apart, so that other schedules are what they were
		takes += long.between(time.Second, 20*time.Second)
	}
	w.after(takes, &s.process, func() {
		if s.phase == starting {
			s.replayed, s.replaying = s.m.data.end(), false
			s.begin()
		}
	})
}

// promote ends recovery, once all received WAL is replayed.
func (s *server) promote() {
	if s.promoting || s.primary {
		return
	}
	s.promoting = true
	r := &s.m.w.random
	takes := r.between(15*time.Millisecond, 60*time.Millisecond)
	if r.oneIn(10) {
		takes += r.between(500*time.Millisecond, 4*time.Second)
	}
	if s.receiver != nil {
		s.receiver.close()
	}
	s.m.w.after(takes, &s.process, func() {
		if s.phase != running {
			s.promoting = false
			return
		}
		d := s.m.data
		d.branch(s.m.w)
		d.signal, d.state = false, inProduction
		s.primary, s.promoting, s.replaying = true, false, false
		s.replayed = d.end()
		s.m.w.promoted(s.m)
		s.writes()
	})
}

// setNames rewrites the configuration and reloads; inForce is told when new sessions see the value.
func (s *server) setNames(value string, inForce func()) {
	w := s.m.w
	s.m.data.names = value
	w.after(w.random.between(time.Millisecond, 10*time.Millisecond), &s.process, func() {
		if s.names != value {
			w.note(s.m.name, "synchronous_standby_names = %q", value)
		}
		s.names, s.parsed = value, ha.ParseNames(value)
		if value == "" { // the checkpointer wakes all that wait, without a word (safety: H11)
			s.acknowledge(s.m.data.end())
		}
		for _, st := range s.senders {
			w.after(w.lag(), &s.process, func() {
				st.names = s.parsed
				s.release(st.names)
			})
		}
		w.after(5*time.Millisecond, &s.process, inForce)
	})
}

// lag is how late a walsender reads a changed configuration. One that gets no processor reads it much later, and meanwhile
// goes by the old names.
func (w *World) lag() time.Duration {
	if w.opt.Starved && w.random.oneIn(20) {
		return w.random.between(5*time.Millisecond, 200*time.Millisecond)
	}
	return w.random.between(0, 3*time.Millisecond)
}

// stopFast is an orderly shutdown: no more commits, a checkpoint, all of the WAL to every standby that answers. shut is
// told when the control file says so, gone when the last process has ended.
func (s *server) stopFast(shut, gone func()) {
	w := s.m.w
	if s.phase != running && s.phase != starting {
		w.after(5*time.Millisecond, nil, func() { s.die(); shut(); gone() })
		return
	}
	s.phase = stopping
	s.waiters = nil // sessions are terminated: they never learn what became of their commit
	w.after(w.random.between(10*time.Millisecond, 40*time.Millisecond), &s.process, func() {
		d := s.m.data
		if !s.primary {
			d.state, d.controlTL = shutDownInRecovery, d.tl
			s.die()
			shut()
			gone()
			return
		}
		d.append(w)
		d.state, d.controlTL = shutDown, d.tl
		shut()
		s.pumpAll()
		s.awaitSenders(w.now+time.Minute, gone)
	})
}

// awaitSenders ends the server when every standby has all of its WAL, or never answers again.
func (s *server) awaitSenders(until time.Duration, gone func()) {
	behind := slices.ContainsFunc(s.senders, func(st *stream) bool { return st.flushed < len(s.m.data.wal) && !st.garbled })
	if behind && s.m.w.now < until {
		s.m.w.after(5*time.Millisecond, &s.process, func() { s.awaitSenders(until, gone) })
		return
	}
	s.die()
	gone()
}

// kill is SIGKILL to every process, verified; it also ends frozen ones.
func (m *member) kill(done func()) {
	m.w.after(m.w.random.between(2*time.Millisecond, 25*time.Millisecond), nil, func() {
		if m.server != nil {
			m.server.die()
		}
		done()
	})
}

// checkpoint brings the control file to the present timeline.
func (s *server) checkpoint(done func()) {
	s.m.w.after(s.m.w.random.between(10*time.Millisecond, 300*time.Millisecond), &s.process, func() {
		s.m.data.controlTL = s.m.data.tl
		done()
	})
}
