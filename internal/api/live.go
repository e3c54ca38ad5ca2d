package api

import (
	"net/http"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// getLiveness is 200 while the agent's loop turns: within ttl on a primary, within twice that elsewhere.
func (s *Server) getLiveness(w http.ResponseWriter, _ *http.Request) {
	l := s.opt.Source.Status()
	limit := l.ttl()
	if l.Member.State != cluster.StateRunning || !l.Member.Is(cluster.RolePrimary) {
		limit *= 2
	}
	w.WriteHeader(code(l.Dynamic.Pause || time.Since(l.LastTurn.Add(l.Dynamic.LoopWait)) < limit))
}

// getReadiness is 200 for the leader, and for a standby that streams and is close behind it.
func (s *Server) getReadiness(w http.ResponseWriter, r *http.Request) {
	l := s.fresh(r)
	if !l.HasServer {
		w.WriteHeader(code(l.sees()))
		return
	}
	if l.isLeader() {
		w.WriteHeader(ok)
		return
	}
	q := r.URL.Query()
	limit, given := ParseBytes(q.Get("lag"))
	if !given {
		limit = uint64(max(0, l.Dynamic.MaximumLagOnFailover))
	}
	if !l.running() || l.replicationState() != "streaming" || !l.sees() && l.Probe.ReceiverEnd == 0 {
		w.WriteHeader(no)
		return
	}
	position := l.Probe.ReplayLSN
	if q.Get("mode") == "write" {
		position = max(position, l.Probe.ReceiveLSN)
	}
	w.WriteHeader(code(position.Behind(l.leaderPosition()) <= limit))
}
