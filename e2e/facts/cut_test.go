package facts

import (
	"errors"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/postgres/pgtest"
	"golang.org/x/sys/unix"
)

func cutFacts() []fact {
	return []fact{
		{
			"cut", "an empty primary_conninfo, a reload and SIGTERM to the receiver cut a standby off for good, and no commit that waits for it is acknowledged afterwards",
			"a standby without upstream streams from nobody (`internal/postgres/configure.go`)", cut,
		},
		{
			"reload-is-no-cut", "the same without SIGTERM does not end the receiver while replay is paused: it goes on acknowledging",
			"a cut counts once the receiver's process is gone, never from a reload", reloadIsNoCut,
		},
	}
}

// pointNowhere empties primary_conninfo and sees the change in force.
func (s *server) pointNowhere() {
	s.r.Helper()
	_, err := s.Configure(s.set, nil, true)
	pgtest.Must(s.r, err)
	pgtest.Must(s.r, s.Reload(pgtest.Context(s.r)))
}

// endReceiver ends the receiver by a signal; it returns when that was sent and when the process was gone. With idle replay
// the reload alone may have ended it.
func (s *server) endReceiver(pid int) (sent, gone time.Time) {
	s.r.Helper()
	sent = time.Now()
	if err := unix.Kill(pid, unix.SIGTERM); !errors.Is(err, unix.ESRCH) {
		pgtest.Must(s.r, err)
	}
	return sent, s.r.awaitGone(pid)
}

// pauseReplay pauses replay and waits until it stands still while more is received: before, it was only asked to.
func (s *server) pauseReplay() {
	s.r.Helper()
	s.sql("SELECT pg_wal_replay_pause()")
	var replayed cluster.LSN
	pgtest.Eventually(s.r, "replay stands still", func() error {
		before := replayed
		p := s.probe()
		if replayed = p.ReplayLSN; replayed != before || p.ReceiveLSN <= replayed {
			time.Sleep(50 * time.Millisecond)
			return errGoesOn
		}
		return nil
	})
}

func (s *server) receiver() int {
	s.r.Helper()
	p := s.probe()
	if p.ReceiverPID == 0 {
		s.r.Fatalf("%s has no receiver", s.self)
	}
	return p.ReceiverPID
}

func cut(r *run) {
	a, b := r.pair()
	c := a.clients(asking, asking)
	pid := b.receiver()
	began := time.Now()
	b.pointNowhere()
	_, gone := b.endReceiver(pid)
	r.figure("receiver gone after", "ms", ms(gone.Sub(began)))
	mayNotReturn(r, b, c)
	r.figure("last acknowledgement after", "ms", ms(c.last().Sub(began)))
	pgtest.Must(r, a.Kill(pgtest.Context(r)))
	c.wait()
	pgtest.Must(r, b.Promote(pgtest.Context(r)))
	c.mustBeIn(b)
}

// mayNotReturn sees that the receiver stays away, and that nothing is acknowledged.
func mayNotReturn(r *run, b *server, c *clients) {
	r.Helper()
	// An answer that was on its way at the cut may still be read.
	acked := -1
	pgtest.Eventually(r, "the acknowledgements end", func() error {
		before := acked
		acked = c.count()
		time.Sleep(100 * time.Millisecond)
		if before != acked {
			return errGoesOn
		}
		return nil
	})
	r.never("the receiver came back, or a commit was acknowledged after the cut", time.Second, func() bool {
		return b.probe().ReceiverPID != 0 || c.count() != acked
	})
}

func reloadIsNoCut(r *run) {
	a, b := r.pair()
	c := a.clients(asking, asking)
	pid := b.receiver()
	b.pauseReplay()
	b.pointNowhere()
	pgtest.Eventually(r, "the empty primary_conninfo is in force", func() error {
		if b.sql("SHOW primary_conninfo") != "" {
			return errGoesOn
		}
		return nil
	})
	before := c.count()
	r.never("the receiver ended by the reload alone", time.Second, func() bool { return unix.Kill(pid, 0) != nil })
	after := c.count()
	if after == before {
		r.Error("nothing was acknowledged after the reload")
	}
	r.figure("acknowledged in a second after the reload", "commits", float64(after-before))
	sent, gone := b.endReceiver(pid)
	r.figure("receiver gone after SIGTERM", "ms", ms(gone.Sub(sent)))
	mayNotReturn(r, b, c)
}
