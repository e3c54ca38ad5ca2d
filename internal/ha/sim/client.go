package sim

import (
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// commit is one transaction of a client. Clients write wherever a server takes it: the worst routing that there is.
type commit struct {
	record   int32
	m        *member
	at       cluster.LSN // where its record begins
	began    time.Duration
	acked    time.Duration // 0: not yet
	waited   bool          // for standbys
	promised bool
}

// writes lets clients commit on this server as long as it takes that.
func (s *server) writes() {
	w := s.m.w
	pause := w.random.between(20*time.Millisecond, 700*time.Millisecond)
	if s.phase == orphaned || w.random.oneIn(4) { // clients that pipeline
		pause = w.random.between(time.Millisecond, 20*time.Millisecond)
	}
	w.after(pause, &s.process, func() {
		if s.phase == dead || s.phase == stopping {
			return
		}
		if s.writable() {
			s.commit()
		}
		s.writes()
	})
}

// commit writes one transaction; it is acknowledged at once, or waits.
func (s *server) commit() {
	w, d := s.m.w, s.m.data
	at := d.end()
	c := &commit{record: d.append(w).id, m: s.m, at: at, began: w.now, waited: len(s.parsed.Names) > 0}
	w.history.commits = append(w.history.commits, c)
	w.counts.Commits++
	if c.waited {
		s.waiters = append(s.waiters, int32(len(w.history.commits)-1))
	} else {
		w.acknowledged(c)
	}
	s.pumpAll()
}

// acknowledge lets go all commits that end at or before a position.
func (s *server) acknowledge(upTo cluster.LSN) {
	w := s.m.w
	n := 0
	for n < len(s.waiters) && w.history.commits[s.waiters[n]].at < upTo {
		w.acknowledged(w.history.commits[s.waiters[n]])
		n++
	}
	s.waiters = s.waiters[n:]
}
