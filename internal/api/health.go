package api

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/havenha/haven/internal/cluster"
)

const (
	ok = http.StatusOK
	no = http.StatusServiceUnavailable
)

func (s *Server) getHealth(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), probeTimeout)
	defer cancel()
	l := s.opt.Source.Fresh(ctx)
	document(w, s.health(l, r), l.document())
}

// getPatroni is the status document with code 200, whatever the state is.
func (s *Server) getPatroni(w http.ResponseWriter, r *http.Request) {
	l := s.fresh(r)
	if l.HasServer && l.Probe == nil && l.Member.State == cluster.StateRunning {
		l = s.fresh(r)
	}
	document(w, ok, l.document())
}

func (s *Server) fresh(r *http.Request) Local {
	ctx, cancel := context.WithTimeout(r.Context(), probeTimeout)
	defer cancel()
	return s.opt.Source.Fresh(ctx)
}

// checks are the codes from which those of the paths are made.
type checks struct{ leader, primary, standbyLeader, replica bool }

func (l Local) checks(q url.Values) checks {
	var c checks
	c.leader = l.isLeader()
	c.primary = c.leader && !l.standbyCluster()
	c.standbyLeader = c.leader && l.standbyCluster()
	if l.Dynamic.Pause && !l.sees() && l.Probe != nil { // nobody changes anything: the server's role is all there is
		c.primary = !l.Probe.InRecovery
		c.standbyLeader = l.role() == cluster.RoleStandbyLeader
		c.leader = c.primary || c.standbyLeader
	}
	c.replica = l.HasServer && l.running() && l.Probe.InRecovery && !c.standbyLeader && !l.Member.Tag("noloadbalance") &&
		l.within(q.Get("lag")) && (!q.Has("replication_state") || q.Get("replication_state") == l.replicationState())
	return c
}

// health is the code of a path; the first rule that matches wins (Patroni's documentation, REST API, health checks).
func (s *Server) health(l Local, r *http.Request) int {
	q := r.URL.Query()
	path := r.URL.Path
	c := l.checks(q)
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(path, w) {
				return true
			}
		}
		return false
	}
	var good bool
	switch {
	case has("standby_leader", "standby-leader"):
		return code(c.standbyLeader)
	case has("leader"):
		return code(c.leader)
	case path == "/" || path == "" || has("master", "primary", "read-write"):
		return code(c.primary)
	case has("replica"):
		good = c.replica
	case has("read-only") && !has("sync", "quorum"):
		good = c.primary || c.standbyLeader || c.replica
	case has("health"):
		good = l.running()
	default:
		good = l.sees() && l.kind(strings.TrimPrefix(path, "/"), c)
	}
	return code(good && l.tagged(q))
}

// kind is the check of a path that asks which kind of standby this is.
func (l Local) kind(path string, c checks) bool {
	named, quorum := l.synchronous()
	switch path {
	case "sync", "synchronous":
		return c.replica && named && !quorum
	case "quorum":
		return c.replica && named && quorum
	case "async", "asynchronous":
		return c.replica && !named
	case "read-only-sync", "read-only-synchronous":
		return c.leader || c.replica && named && !quorum
	case "read-only-quorum":
		return c.leader || c.replica && named && quorum
	}
	return false
}

func code(good bool) int {
	if good {
		return ok
	}
	return no
}

// within tells whether the replayed position is close enough to the leader's; a limit that cannot be read is none.
func (l Local) within(lag string) bool {
	limit, given := ParseBytes(lag)
	if !given || l.Probe == nil {
		return true
	}
	return l.Probe.ReplayLSN.Behind(l.leaderPosition()) <= limit
}

// leaderPosition is how far the leader's WAL is known to go.
func (l Local) leaderPosition() cluster.LSN {
	var known cluster.LSN
	if l.Snapshot.Status != nil {
		known = l.Snapshot.Status.Optime
	}
	if l.Probe != nil {
		known = max(known, l.Probe.ReceiveLSN, l.Probe.ReceiverEnd)
	}
	return known
}

// tagged tells whether every tag that is asked for is set to that value.
func (l Local) tagged(q url.Values) bool {
	for key, want := range q {
		name, isTag := strings.CutPrefix(key, "tag_")
		if !isTag {
			continue
		}
		have, set := l.Tags[name]
		if !set || tagText(have) != want[0] {
			return false
		}
	}
	return true
}
