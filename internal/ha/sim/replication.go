package sim

import (
	"slices"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
)

// stream is one walsender with its walreceiver.
type stream struct {
	up, down *server
	sent     int // records, on their way or there
	flushed  int // records, as the walsender knows
	names    ha.Names
	caughtUp bool
	garbled  bool // the standby holds other records of the same timeline: it waits for ever (safety: H10)
	closed   bool
}

// connectSoon lets a standby try to stream from its upstream.
func (s *server) connectSoon(wait time.Duration) {
	s.attempt++
	mine := s.attempt
	w := s.m.w
	w.after(wait+w.random.between(time.Millisecond, 8*time.Millisecond), &s.process, func() {
		if mine == s.attempt {
			s.connect()
		}
	})
}

func (s *server) connect() {
	d, w := s.m.data, s.m.w
	if s.primary || s.promoting || s.replaying || s.receiver != nil || s.phase != running || d.upstream < 0 {
		return
	}
	m := w.members[d.upstream]
	up := m.server
	if up == nil || up.phase != running || !up.ready || up.frozen > 0 || !w.network.both(s.m.i, m.i) || d.mayStream(m.data) != "" || d.end() < m.data.floor || m == s.m {
		s.connectSoon(w.random.between(time.Second, 5*time.Second))
		return
	}
	st := &stream{up: up, down: s, sent: len(d.wal), flushed: len(d.wal), names: up.parsed, garbled: !d.sameSoFar(m.data)}
	s.receiver = st
	up.senders = append(up.senders, st)
	st.pump()
	if !st.garbled {
		s.received = true
		has := len(d.wal)
		w.network.hold(s.m.i, m.i, &up.process, func() { st.acked(has) })
	}
	s.m.wake()
}

// refollow makes a running standby turn to what its configuration says.
func (s *server) refollow() {
	if s.receiver != nil && s.receiver.up.m.i != s.m.data.upstream {
		s.receiver.close()
	}
	s.connectSoon(0)
}

func (s *server) pumpAll() {
	for _, st := range s.senders {
		st.pump()
	}
}

// pump sends what is new.
func (st *stream) pump() {
	up, down := st.up, st.down
	n := len(up.m.data.wal)
	if st.closed || st.garbled || st.sent >= n {
		return
	}
	st.sent = n
	wal, history, tl := up.m.data.wal[:n], up.m.data.history, up.m.data.tl
	up.m.w.network.hold(up.m.i, down.m.i, &down.process, func() { st.receive(wal, history, tl, n) })
}

// receive writes and flushes; messages that overtook each other are put in order by TCP.
func (st *stream) receive(wal []record, history []cluster.HistoryLine, tl cluster.Timeline, n int) {
	s := st.down
	w := s.m.w
	if st.closed || s.receiver != st {
		return
	}
	if s.m.full == "wal" { // the receiver ends, and is tried again
		st.close()
		return
	}
	flush := w.random.between(100*time.Microsecond, 3*time.Millisecond)
	if w.random.oneIn(50) {
		flush += w.random.between(10*time.Millisecond, 300*time.Millisecond)
	}
	w.after(flush, &s.process, func() {
		if s.receiver != st || st.closed {
			return
		}
		if n > len(s.m.data.wal) {
			d, was := s.m.data, s.m.data.tl
			d.follows(wal, history, tl, n)
			if d.tl != was {
				w.after(w.random.between(time.Second, 20*time.Second), &s.process, func() { d.recoveryTL = d.tl })
			}
			s.replayed = s.m.data.end()
			s.pumpAll()
		}
		w.counts.Deliveries++
		w.network.hold(s.m.i, st.up.m.i, &st.up.process, func() { st.acked(n) })
	})
}

// acked is the walsender's word that the standby has flushed so much.
func (st *stream) acked(n int) {
	if st.closed {
		return
	}
	st.flushed = max(st.flushed, n)
	st.caughtUp = true
	if slices.Contains(st.names.Names, st.down.m.name) { // only a walsender of a synchronous standby wakes anybody
		st.up.release(st.names)
	}
}

// release wakes the commits that the names, as one walsender knows them, let go (syncrep.c).
func (s *server) release(names ha.Names) {
	if len(s.waiters) == 0 || len(names.Names) == 0 {
		return
	}
	var flushed []int
	for _, name := range names.Names {
		for _, st := range s.senders {
			if st.down.m.name == name && st.caughtUp {
				flushed = append(flushed, st.flushed)
				break
			}
		}
		if !names.Any && len(flushed) == names.Count {
			break
		}
	}
	if names.Count < 1 || len(flushed) < names.Count {
		return
	}
	slices.Sort(flushed)
	s.acknowledge(firstLSN + cluster.LSN(flushed[len(flushed)-names.Count]))
}

// close ends a stream for both sides.
func (st *stream) close() {
	if st.closed {
		return
	}
	st.closed = true
	st.up.senders = slices.DeleteFunc(st.up.senders, func(o *stream) bool { return o == st })
	if st.down.receiver == st {
		st.down.receiver = nil
		if st.down.alive() {
			st.down.connectSoon(st.up.m.w.random.between(50*time.Millisecond, 5*time.Second))
		}
	}
}

// endOf tells the other side that this one is gone, if the network carries that.
func (st *stream) endOf(s *server) {
	w := s.m.w
	if s == st.up {
		st.up.senders = slices.DeleteFunc(st.up.senders, func(o *stream) bool { return o == st })
		w.network.hold(s.m.i, st.down.m.i, &st.down.process, st.close)
		return
	}
	st.down.receiver = nil
	w.network.hold(s.m.i, st.up.m.i, &st.up.process, st.close)
}

// timeOut ends streams over a link that stays cut (wal_sender_timeout, wal_receiver_timeout).
func (w *World) timeOut(a, b int) {
	w.after(w.random.between(5*time.Second, 30*time.Second), nil, func() {
		if w.network.both(a, b) {
			return
		}
		for _, m := range w.members {
			if s := m.server; s.alive() && s.receiver != nil {
				if up := s.receiver.up.m.i; m.i == a && up == b || m.i == b && up == a {
					s.receiver.close()
				}
			}
		}
	})
}

// syncState is what pg_stat_replication says of a stream.
func (st *stream) syncState() string {
	names := st.up.parsed
	i := slices.Index(names.Names, st.down.m.name)
	switch {
	case i < 0:
		return "async"
	case names.Any:
		return "quorum"
	}
	return "sync"
}
