package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
)

// Cluster is the document of GET /cluster.
type Cluster struct {
	Members   []Member   `json:"members"`
	Scope     string     `json:"scope"`
	Pause     bool       `json:"pause,omitempty"`
	Scheduled *Scheduled `json:"scheduled_switchover,omitempty"`
}

// Scheduled is a switchover that waits for its time.
type Scheduled struct {
	At   string `json:"at"`
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
}

// The roles of a Member beside those of package cluster.
const (
	RoleLeader        = "leader"
	RoleStandbyLeader = "standby_leader"
	RoleSync          = "sync_standby"
	RoleQuorum        = "quorum_standby"
	RoleReplica       = "replica"
)

// Member is one member as the store shows it. Lags are bytes; a position or lag that is not known is the text unknown.
// The leader has none.
type Member struct {
	Name           string                           `json:"name"`
	Role           string                           `json:"role"`
	State          string                           `json:"state"`
	APIURL         string                           `json:"api_url"`
	Host           string                           `json:"host,omitempty"`
	Port           int                              `json:"port,omitempty"`
	Timeline       cluster.Timeline                 `json:"timeline,omitempty"`
	PendingRestart bool                             `json:"pending_restart,omitempty"`
	PendingReason  map[string]cluster.PendingChange `json:"pending_restart_reason,omitempty"`
	Scheduled      json.RawMessage                  `json:"scheduled_restart,omitempty"`
	Tags           map[string]any                   `json:"tags,omitempty"`
	ReceiveLSN     any                              `json:"receive_lsn,omitempty"`
	ReceiveLag     any                              `json:"receive_lag,omitempty"`
	ReplayLSN      any                              `json:"replay_lsn,omitempty"`
	ReplayLag      any                              `json:"replay_lag,omitempty"`
	LSN            any                              `json:"lsn,omitempty"`
	Lag            any                              `json:"lag,omitempty"`
}

// UnknownText stands for a position or a lag that is not known.
const UnknownText = "unknown"

// Describe tells of a cluster what its keys show.
func Describe(scope string, snap cluster.Snapshot, d config.Dynamic) Cluster {
	c := Cluster{Members: []Member{}, Scope: scope, Pause: d.Pause}
	for _, m := range snap.Members {
		c.Members = append(c.Members, describeMember(m, snap, d))
	}
	if f := snap.Failover; f != nil && f.ScheduledAt != nil {
		c.Scheduled = &Scheduled{At: f.ScheduledAt.Format(cluster.TimeFormat), From: f.Leader, To: f.Candidate}
	}
	return c
}

func describeMember(m cluster.Member, snap cluster.Snapshot, d config.Dynamic) Member {
	out := Member{
		Name: m.Name, Role: RoleOf(m.Name, snap, d), State: string(m.State), APIURL: m.APIURL, Timeline: m.Timeline,
		PendingRestart: m.PendingRestart, PendingReason: m.PendingRestartReason, Scheduled: m.ScheduledRestart, Tags: m.Tags,
	}
	if m.ReplicationState != "" && out.Role != RoleLeader {
		out.State = m.ReplicationState
	}
	if u, err := url.Parse(m.ConnURL); err == nil {
		out.Host = u.Hostname()
		out.Port, _ = strconv.Atoi(u.Port()) // a URL without a port has none to show
	}
	if snap.Leader != nil && m.Name == snap.Leader.Name {
		return out
	}
	receive, replay := m.ReceiveLSN, m.ReplayLSN
	if receive == 0 && replay == 0 { // a release of Patroni that writes one position only
		if m.ReplicationState == "streaming" {
			receive = m.XlogLocation
		} else {
			replay = m.XlogLocation
		}
	}
	out.ReceiveLSN, out.ReceiveLag = position(receive, snap.Status)
	out.ReplayLSN, out.ReplayLag = position(replay, snap.Status)
	out.LSN, out.Lag = position(m.Position(), snap.Status)
	return out
}

// RoleOf is what the store says a member is: leader, standby_leader, sync_standby, quorum_standby or replica.
func RoleOf(name string, snap cluster.Snapshot, d config.Dynamic) string {
	switch {
	case snap.Leader != nil && snap.Leader.Name == name && d.IsStandby():
		return RoleStandbyLeader
	case snap.Leader != nil && snap.Leader.Name == name:
		return RoleLeader
	case d.SynchronousMode == config.SyncQuorum && snap.Sync.Has(name):
		return RoleQuorum
	case d.SynchronousMode == config.SyncOn && snap.Sync.Has(name):
		return RoleSync
	}
	return RoleReplica
}

func position(l cluster.LSN, s *cluster.Status) (lsn, lag any) {
	if l == 0 {
		return UnknownText, UnknownText
	}
	if s == nil || s.Optime == 0 {
		return l.String(), UnknownText
	}
	return l.String(), l.Behind(s.Optime)
}

// now reads the store at this moment; where it cannot be read it has answered.
func (s *Server) now(w http.ResponseWriter, r *http.Request) (cluster.Snapshot, bool) {
	snap, err := s.opt.Store.Snapshot(r.Context())
	if err != nil {
		s.log.Warn("the store cannot be read for a request", "path", r.URL.Path, "error", err)
		errorPage(w, http.StatusServiceUnavailable, "the consensus store cannot be read: "+err.Error())
		return snap, false
	}
	return snap, true
}

// lately is now, or, where the store does not answer within storeTimeout, what was last seen of it: for documents that monitoring reads
// also while etcd is away.
func (s *Server) lately(w http.ResponseWriter, r *http.Request) (cluster.Snapshot, bool) {
	last := s.opt.Source.Status()
	if last.SeenAt.IsZero() {
		return s.now(w, r)
	}
	if snap, err := s.soon(r); err == nil {
		return snap, true
	}
	return last.Snapshot, true
}

// soon reads the store within storeTimeout.
func (s *Server) soon(r *http.Request) (cluster.Snapshot, error) {
	ctx, cancel := context.WithTimeout(r.Context(), storeTimeout)
	defer cancel()
	return s.opt.Store.Snapshot(ctx)
}

// dynamicOf reads the dynamic configuration of a snapshot; without one its defaults hold.
func dynamicOf(snap cluster.Snapshot) config.Dynamic {
	raw := json.RawMessage("{}")
	if snap.Config != nil {
		raw = snap.Config.Raw
	}
	d, _, err := config.ParseDynamic(raw, true)
	if err != nil {
		d, _, _ = config.ParseDynamic(json.RawMessage("{}"), true) // defaults cannot fail
	}
	return d
}

func (s *Server) getCluster(w http.ResponseWriter, r *http.Request) {
	if snap, read := s.now(w, r); read {
		document(w, ok, Describe(s.opt.Source.Status().Scope, snap, dynamicOf(snap)))
	}
}

// getHistory answers with the lines as they stand in the store.
func (s *Server) getHistory(w http.ResponseWriter, r *http.Request) {
	snap, read := s.lately(w, r)
	if !read {
		return
	}
	lines := [][]any{}
	for _, h := range snap.History {
		line := []any{h.Timeline, h.LSN, h.Reason}
		if h.Timestamp != "" || h.NewLeader != "" {
			line = append(line, h.Timestamp)
		}
		if h.NewLeader != "" {
			line = append(line, h.NewLeader)
		}
		lines = append(lines, line)
	}
	document(w, ok, lines)
}

func (s *Server) getFailsafe(w http.ResponseWriter, r *http.Request) {
	snap, read := s.lately(w, r)
	switch {
	case !read:
	case len(snap.Failsafe) == 0:
		errorPage(w, http.StatusBadGateway, "")
	default:
		document(w, ok, snap.Failsafe)
	}
}
