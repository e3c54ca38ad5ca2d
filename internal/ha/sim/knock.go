package sim

import (
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
)

// knocker tries to open new connections to the server (agent.knocker).
type knocker struct {
	server *server // that the tries were made on
	knocks ha.Knocks
	due    cluster.Instant
}

// answersKnocks tells whether a new connection is answered, with a refusal perhaps.
func (s *server) answersKnocks() bool { return s.frozen == 0 && !s.hung }

// knockAgain makes a try, now and then again, as long as the agent lives.
func (a *agent) knockAgain() {
	k, s := &a.knocker, a.postmaster
	limit, failing, answered := ha.KnockTimes(a.policy().HungAfter)
	if a.policy().HungAfter == 0 || s == nil || !s.alive() || s.phase == orphaned {
		a.knockLater(time.Second)
		return
	}
	if k.server != s {
		*k = knocker{server: s, due: a.now()}
	}
	try, takes := ha.Knock{Due: k.due, Began: a.now()}, a.w.sickness.between(time.Millisecond, 20*time.Millisecond)
	var look func(left time.Duration)
	look = func(left time.Duration) {
		try.Answered = s.answersKnocks()
		if !try.Answered && left > 0 && s.phase < orphaned {
			wait := min(left, 100*time.Millisecond)
			a.after(wait, func() { look(left - wait) })
			return
		}
		try.Ended, try.Text = a.now(), "timeout"
		k.knocks.Note(try, limit)
		pause := answered
		if !try.Answered {
			pause = failing
		}
		a.knockLater(pause)
	}
	a.after(takes, func() { look(limit - takes) })
}

func (a *agent) knockLater(pause time.Duration) {
	a.knocker.due = a.now().Add(pause)
	a.after(pause, a.knockAgain)
}

// knocks are those of the present server.
func (a *agent) knocks() ha.Knocks {
	if a.knocker.server == nil || a.knocker.server != a.postmaster {
		return ha.Knocks{}
	}
	return a.knocker.knocks
}
