package api

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
)

// Request asks for a switchover or failover. Candidate has the older name member as well.
type Request struct {
	Leader      string `json:"leader,omitempty"`
	Candidate   string `json:"candidate,omitempty"`
	Member      string `json:"member,omitempty"`
	ScheduledAt string `json:"scheduled_at,omitempty"`
}

// verdict is an answer of a check; code 0: nothing is against it.
type verdict struct {
	code int
	text string
}

const (
	actionSwitchover = "switchover"
	actionFailover   = "failover"
)

// readRequest reads a body whose values are text; where it cannot, it has answered.
func readRequest(w http.ResponseWriter, r *http.Request) (Request, bool) {
	body, read := object(w, r)
	if !read {
		return Request{}, false
	}
	field := func(name string) string {
		s, _ := body[name].(string) // null and absent are the same
		return s
	}
	q := Request{Leader: field("leader"), Candidate: field("candidate"), ScheduledAt: field("scheduled_at")}
	if q.Candidate == "" {
		q.Candidate = field("member")
	}
	return q, true
}

// form checks what the request says by itself, in the order of Patroni's checks.
func (q Request) form(action string, paused bool, now time.Time) (at *time.Time, v verdict) {
	switch {
	case action == actionFailover && q.Candidate == "":
		return nil, verdict{400, "Failover could be performed only to a specific candidate"}
	case action == actionSwitchover && q.Leader == "":
		return nil, verdict{400, "Switchover could be performed only from a specific leader"}
	case action == actionFailover && q.ScheduledAt != "":
		return nil, verdict{400, "Failover can't be scheduled"}
	}
	if q.ScheduledAt != "" {
		if paused {
			return nil, verdict{400, "Can't schedule switchover in the paused state"}
		}
		if at, v = scheduled(q.ScheduledAt, actionSwitchover, now); v.code != 0 {
			return nil, v
		}
	}
	switch {
	case paused && q.Candidate == "":
		return nil, verdict{400, "Switchover is possible only to a specific candidate in a paused state"}
	case q.Leader != "" && q.Leader == q.Candidate:
		return nil, verdict{400, "Switchover target and source are the same"}
	}
	return at, verdict{}
}

func scheduled(s, action string, now time.Time) (*time.Time, verdict) {
	t, zoned, valid := ParseTime(s, time.UTC)
	switch {
	case !valid:
		return nil, verdict{422, "Unable to parse scheduled timestamp. It should be in an unambiguous format, e.g. ISO 8601"}
	case !zoned:
		return nil, verdict{400, "Timezone information is mandatory for the scheduled " + action}
	case t.Before(now):
		return nil, verdict{422, "Cannot schedule " + action + " in the past"}
	}
	return &t, verdict{}
}

// possible checks the request against the cluster; empty: nothing is against it.
func (s *Server) possible(ctx context.Context, q Request, action string, snap cluster.Snapshot, d config.Dynamic) string {
	if q.Leader != "" && (snap.Leader == nil || snap.Leader.Name != q.Leader) {
		return "leader name does not match"
	}
	named := d.SynchronousMode == config.SyncOn
	var candidates []cluster.Member
	switch {
	case q.Candidate != "":
		if action == actionSwitchover && named && !snap.Sync.Has(q.Candidate) {
			return "candidate name does not match with sync_standby"
		}
		m, there := snap.Member(q.Candidate)
		if !there {
			return "candidate does not exists"
		}
		candidates = append(candidates, m)
	case named:
		candidates = others(snap, func(m cluster.Member) bool { return snap.Sync.Has(m.Name) })
		if len(candidates) == 0 {
			return action + " is not possible: can not find sync_standby"
		}
	default:
		candidates = others(snap, func(m cluster.Member) bool { return m.APIURL != "" })
		if len(candidates) == 0 {
			return action + " is not possible: cluster does not have members except leader"
		}
	}
	if !s.anyReady(ctx, candidates) {
		return action + " is not possible: no good candidates have been found"
	}
	return ""
}

func others(snap cluster.Snapshot, fits func(cluster.Member) bool) []cluster.Member {
	var out []cluster.Member
	for _, m := range snap.Members {
		if (snap.Leader == nil || m.Name != snap.Leader.Name) && fits(m) {
			out = append(out, m)
		}
	}
	return out
}

// readyWithin is how long one that may lead has to say so. Its agent may have been slow a moment ago, or its server.
const readyWithin = 5 * time.Second

// anyReady asks the members all at once whether one of them answers and may lead.
func (s *Server) anyReady(ctx context.Context, members []cluster.Member) bool {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	var found atomic.Bool
	var asked sync.WaitGroup
	for _, m := range members {
		asked.Add(1)
		go func() {
			defer asked.Done()
			if s.ready(ctx, m) {
				found.Store(true)
				cancel() // one is enough
			}
		}()
	}
	asked.Wait()
	return found.Load()
}

// peerAnswer is what is needed of another member's status document.
type peerAnswer struct {
	Xlog           json.RawMessage `json:"xlog"`
	Tags           map[string]any  `json:"tags"`
	WatchdogFailed bool            `json:"watchdog_failed"`
}

// ready tells whether that member may lead. One whose server runs, as its key says, is asked until it tells of it.
func (s *Server) ready(ctx context.Context, m cluster.Member) bool {
	for {
		ready, told := s.askReady(ctx, m)
		if told || m.State != cluster.StateRunning {
			return ready
		}
		select {
		case <-ctx.Done():
			return false
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// askReady asks one member; told is false where its answer says nothing of its server.
func (s *Server) askReady(ctx context.Context, m cluster.Member) (ready, told bool) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.APIURL, nil)
	if err != nil {
		return false, true
	}
	resp, err := s.opt.Peers.Do(req)
	if err != nil {
		return false, true
	}
	defer func() { _ = resp.Body.Close() }()
	var a peerAnswer
	if json.NewDecoder(http.MaxBytesReader(nil, resp.Body, maxBody)).Decode(&a) != nil {
		return false, true
	}
	if len(a.Xlog) == 0 {
		return false, false
	}
	return cluster.Member{Tags: a.Tags}.MayLead() && !a.WatchdogFailed, true
}
