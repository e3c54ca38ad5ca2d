package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/dcs"
)

func (s *Server) postSwitchover(w http.ResponseWriter, r *http.Request) {
	s.change(w, r, actionSwitchover)
}

func (s *Server) postFailover(w http.ResponseWriter, r *http.Request) {
	s.change(w, r, actionFailover)
}

// change checks a request, writes it, and waits for what becomes of it.
func (s *Server) change(w http.ResponseWriter, r *http.Request, action string) {
	q, read := readRequest(w, r)
	if !read {
		return
	}
	snap, read := s.now(w, r)
	if !read {
		return
	}
	d := dynamicOf(snap)
	at, v := q.form(action, d.Pause, time.Now())
	if v.code != 0 {
		text(w, v.code, v.text)
		return
	}
	if action == actionFailover && q.Leader != "" {
		s.log.Warn("a failover that names a leader is a switchover", "leader", q.Leader)
		action = actionSwitchover
	}
	if at == nil {
		if why := s.possible(r.Context(), q, action, snap, d); why != "" {
			text(w, http.StatusPreconditionFailed, why)
			return
		}
	}
	request := cluster.Failover{Leader: q.Leader, Candidate: q.Candidate, ScheduledAt: at}
	if err := s.opt.Store.PutFailover(r.Context(), request, -1); err != nil {
		s.log.Warn("the request was not written", "action", action, "error", err)
		text(w, no, "failed to write failover key into DCS")
		return
	}
	s.opt.Wake()
	if at != nil {
		text(w, http.StatusAccepted, title(action)+" scheduled")
		return
	}
	v = s.await(r.Context(), q, action, snap, max(10*time.Second, d.LoopWait))
	text(w, v.code, v.text)
}

func title(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// await watches the store until the request is fulfilled or dropped, for at most twice the given time. A new leader
// counts once its term is promoted, so that the answer means that writes are possible.
func (s *Server) await(ctx context.Context, q Request, action string, before cluster.Snapshot, half time.Duration) verdict {
	ctx, cancel := context.WithTimeout(ctx, 2*half)
	defer cancel()
	old := ""
	if before.Leader != nil {
		old = before.Leader.Name
	}
	for u := range s.opt.Store.Watch(ctx) {
		if u.Err != nil {
			continue
		}
		l, t := u.Snapshot.Leader, u.Snapshot.Term
		switch {
		case l == nil:
		case l.Name != old && t.Settled(l):
			return done(q, action, l.Name)
		case l.Name == old && u.Snapshot.Revision > before.Revision && u.Snapshot.Failover.Empty():
			return verdict{no, title(action) + " failed"}
		}
	}
	return verdict{no, fmt.Sprintf("%s status unknown after %d seconds; operation may still be in progress", title(action), int((2 * half).Seconds()))}
}

func done(q Request, action, leader string) verdict {
	verb := strings.TrimSuffix(action, "over") + "ed over to"
	if q.Candidate == "" || q.Candidate == leader {
		return verdict{ok, fmt.Sprintf("Successfully %s %q", verb, leader)}
	}
	return verdict{ok, fmt.Sprintf("%s %q instead of %q", title(verb), leader, q.Candidate)}
}

// deleteSwitchover takes back a switchover that waits for its time.
func (s *Server) deleteSwitchover(w http.ResponseWriter, r *http.Request) {
	snap, read := s.now(w, r)
	if !read {
		return
	}
	f := snap.Failover
	if f == nil || f.ScheduledAt == nil {
		text(w, http.StatusNotFound, "no switchover is scheduled")
		return
	}
	err := s.opt.Store.PutFailover(r.Context(), cluster.Failover{}, f.ModRev)
	switch {
	case errors.Is(err, dcs.ErrConflict):
		text(w, http.StatusConflict, "the scheduled switchover changed meanwhile")
	case err != nil:
		text(w, no, "failed to write failover key into DCS")
	default:
		s.opt.Wake()
		text(w, ok, "scheduled switchover deleted")
	}
}
