package sim

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// failsafeTimeout bounds each of the two questions to a member (internal/agent).
const failsafeTimeout = 2 * time.Second

var errNoAnswer = errors.New("no answer in time")

// provingTime bounds a proof by the store (agent.provingTime).
func (a *agent) provingTime(ttl time.Duration) time.Duration {
	if a.status.policy.Failsafe {
		return min(max(min(ttl/8, a.deadline.Sub(a.now())/3), 100*time.Millisecond), a.retryTimeout())
	}
	return a.retryTimeout()
}

// withoutStore has leadership proven by the word of all members; otherwise the store's answer counts (keeper.withoutStore).
func (a *agent) withoutStore(lease int64, h *holder, ttl time.Duration, why error, otherwise func()) {
	k := &a.keeper
	denied := errors.Is(why, errConflict) || errors.Is(why, errLeaseGone)
	if denied && !k.failsafe {
		otherwise()
		return
	}
	a.round(ttl, func(deadline cluster.Instant, ok bool) {
		if !ok {
			otherwise()
			return
		}
		k.failsafe = true
		a.w.counts.Rounds++
		tell := func(lease int64) {
			a.told(renewal{lease: lease, renewed: h, deadline: deadline, failsafe: true})
		}
		if !denied {
			tell(lease)
			return
		}
		a.fresh(h.lease, ttl, lease, tell)
	})
}

// fresh is a lease in the place of one that has ended (keeper.fresh).
func (a *agent) fresh(ended int64, ttl time.Duration, old int64, tell func(lease int64)) {
	over := false
	done := func(lease int64) {
		if !over {
			over = true
			tell(lease)
		}
	}
	a.after(ttl/4, func() { done(old) })
	afterOwn := func() {
		a.alive(ended, func(alive bool, err error) {
			if err != nil || alive {
				done(old)
				return
			}
			var id int64
			a.call(operation{try: func(s *store) error { id = s.grant(ttl).id; return nil }}, func(err error) {
				if err != nil {
					done(old)
					return
				}
				if !over {
					a.keeper.lease, a.keeper.asked = id, ttl
				}
				done(id)
			})
		})
	}
	own := a.keeper.lease
	if own == 0 || own == ended {
		afterOwn()
		return
	}
	a.alive(own, func(alive bool, err error) {
		if err == nil && alive {
			done(own)
			return
		}
		afterOwn()
	})
}

// alive keeps a lease alive, and tells whether there is still something to be kept.
func (a *agent) alive(id int64, done func(alive bool, err error)) {
	var alive bool
	a.call(operation{read: true, try: func(s *store) error {
		l := s.lease(id)
		if alive = l != nil; alive {
			s.refresh(l)
		}
		return nil
	}}, func(err error) { done(alive, err) })
}

// round asks all members that the list names for their word (agent.failsafe).
func (a *agent) round(ttl time.Duration, done func(deadline cluster.Instant, ok bool)) {
	s := &a.status
	if !s.policy.Failsafe || s.policy.Pause || s.snap.Failsafe[a.m.name] == "" || s.probe == nil || s.probe.inRecovery {
		done(0, false)
		return
	}
	began := a.now()
	a.askForWords(s.snap, ttl, func(refused int) {
		if a.w.opt.Bugs.AllButOne { // planted: one that is silent does not matter
			refused--
		}
		if a.w.opt.Bugs.RoundFromItsEnd { // planted: the words were given before
			began = a.now()
		}
		done(began.Add(ttl-margin(ttl)), refused <= 0)
	})
}

// askForWords asks all at once, each of them twice if need be, and waits for all answers.
func (a *agent) askForWords(snap cluster.Snapshot, ttl time.Duration, done func(refused int)) {
	list := maps.Clone(snap.Failsafe)
	if list == nil {
		list = map[string]string{}
	}
	if !a.w.opt.Bugs.ListAsSeen { // planted: what is on its way to the list is not asked
		maps.Copy(list, a.failsafeList(snap))
	}
	delete(list, a.m.name)
	asked := slices.Sorted(maps.Keys(list))
	if len(asked) == 0 {
		done(0)
		return
	}
	left, refused := len(asked), 0
	for _, name := range asked {
		end := func(err error) {
			if err != nil {
				refused++
			}
			if left--; left == 0 {
				done(refused)
			}
		}
		a.askForWord(name, ttl, func(err error) {
			if err == nil {
				end(nil)
				return
			}
			a.askForWord(name, ttl, end)
		})
	}
}

func (a *agent) askForWord(of string, ttl time.Duration, done func(error)) {
	w, over := a.w, false
	to := w.members[slices.IndexFunc(w.members, func(m *member) bool { return m.name == of })]
	end := func(err error) {
		if !over {
			over = true
			done(err)
		}
	}
	w.network.carry(a.m.i, to.i, nil, func() {
		back := func(err error) {
			w.network.carry(to.i, a.m.i, &a.process, func() { end(err) })
		}
		b := to.agent
		if b == nil {
			if to.frozen == 0 && !to.down {
				back(errNoAnswer)
			}
			return
		}
		w.after(0, &b.process, func() { back(b.pledge(a.m.name, ttl)) })
	})
	a.after(failsafeTimeout, func() { end(errNoAnswer) })
}

// failsafeList are the members that a leader without the store would have to ask (agent.lists, which keeps those for a while
// whose key has just gone).
func (a *agent) failsafeList(s cluster.Snapshot) map[string]string {
	if !a.policy().Failsafe {
		return map[string]string{}
	}
	out := map[string]string{a.m.name: "http"}
	for _, m := range s.Members {
		out[m.Name] = "http"
	}
	return out
}
