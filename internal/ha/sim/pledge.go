package sim

import (
	"errors"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
)

var errPledged = errors.New("this member has given its word")

// word is a member's word to a leader without the store, as it stands on its disk (agent.pledgeFile).
type word struct {
	ha.Pledge
	boot int // of the host, that Until is of
	ttl  time.Duration
}

// pledges hold an agent's word (agent.pledges).
type pledges struct {
	given  ha.Pledge
	claims bool // an attempt at leadership is under way, or has succeeded
}

// published is what an agent's other activities know of its loop: the state as the last turn left it (agent.Status).
type published struct {
	policy ha.Policy
	holds  bool
	probe  *probe
	snap   cluster.Snapshot
	writes bool   // the server may be writable
	last   string // the last leader that the store showed
}

// openPledges reads the word that an earlier agent gave.
func (a *agent) openPledges() {
	w := a.m.word
	if a.w.opt.Bugs.WordForgotten { // planted: nobody reads it
		return
	}
	a.pledges.given = w.Pledge
	if w.boot != a.m.boots && w.To != "" {
		a.pledges.given.Until = a.now().Add(w.ttl)
	}
}

// word is what the loop looks at before it decides.
func (a *agent) word() ha.Pledge {
	if a.w.opt.Bugs.WordUnseen { // planted: neither the decision nor the action looks
		return ha.Pledge{}
	}
	return a.pledges.given
}

// claim begins an attempt at leadership, unless a word is in force.
func (a *agent) claim() error {
	if a.word().Binds(a.now()) {
		return errPledged
	}
	a.pledges.claims = !a.w.opt.Bugs.WordUnseen
	return nil
}

// pledge gives the word, or says why not (agent.Agent.Pledge).
func (a *agent) pledge(to string, ttl time.Duration) error {
	s := &a.status
	switch {
	case !s.policy.Failsafe:
		return ha.ErrFailsafeOff
	case s.holds, s.writes, !ha.Follows(s.snap, s.last, to), a.pledges.claims:
		return ha.ErrPledgeRefused
	}
	now := a.now()
	p := ha.Pledge{To: to, Until: max(a.pledges.given.Until, now.Add(max(ttl, s.policy.TTL)))}
	a.m.word = word{Pledge: p, boot: a.m.boots, ttl: p.Until.Sub(now)}
	a.pledges.given = p
	a.w.counts.Words++
	a.look()
	return nil
}
