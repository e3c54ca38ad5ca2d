package proxy

import (
	"context"
	"time"

	"github.com/havenha/haven/internal/config"
)

// tally is what a listener counts of one server.
type tally struct {
	pending, open int
	total, errors uint64
	in, out       int64 // bytes of ended sessions: from clients, to clients
	state         State
	since         time.Time
	bucket        *bucket
}

// ledger is what the board holds for one listener. The board's mutex guards all of it.
type ledger struct {
	config  config.Listener
	rule    rule
	tallies map[string]*tally
	waiters map[*waiter]struct{}
	closed  bool
	// held connections had to wait, timeouts waited in vain, rejected found too many waiting, cut sessions were reset.
	held, timeouts, rejected, cut uint64
}

// waiter is a connection that waits.
type waiter struct {
	since  time.Time
	client stream
	end    context.CancelCauseFunc
}

func newLedger(c config.Listener) *ledger {
	l := &ledger{tallies: map[string]*tally{}, waiters: map[*waiter]struct{}{}}
	l.configure(c)
	return l
}

func (l *ledger) configure(c config.Listener) {
	l.config = c
	l.rule = rule{replica: c.Target == "replica", maxLag: c.MaxLag, fallback: c.Fallback == "primary"}
}

func (l *ledger) tally(server string) *tally {
	t := l.tallies[server]
	if t == nil {
		t = &tally{}
		l.tallies[server] = t
	}
	return t
}

func (l *ledger) loads() map[string]load {
	out := make(map[string]load, len(l.tallies))
	for name, t := range l.tallies {
		out[name] = load{open: t.open + t.pending, total: t.total}
	}
	return out
}

// throttle bounds new connections to each server from now on, for a while.
func (l *ledger) throttle(now time.Time) {
	for _, t := range l.tallies {
		t.bucket = nil
	}
	if l.config.Admit <= 0 {
		return
	}
	for _, t := range l.tallies {
		t.bucket = newBucket(l.config.Admit, now)
	}
}

// note keeps since when each server has been what it is.
func (l *ledger) note(v view, now time.Time) {
	for _, s := range v.servers {
		t := l.tally(s.name)
		if j := judge(v, l.rule, s); j.state != t.state {
			t.state, t.since = j.state, now
		}
	}
}
