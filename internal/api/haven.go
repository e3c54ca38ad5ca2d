package api

import (
	"net/http"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
)

// Status is the document of GET /haven/status: what a node knows of the cluster and of itself.
type Status struct {
	Name      string       `json:"name"`
	Scope     string       `json:"scope"`
	Version   string       `json:"version"`
	Started   time.Time    `json:"started"` // when this program began to serve
	At        time.Time    `json:"at"`
	HasServer bool         `json:"has_server"`
	Answers   bool         `json:"server_answers"` // its server, when it was asked
	Role      cluster.Role `json:"role"`
	Leads     bool         `json:"leads"`
	// Known tells whether the store could be read; otherwise Cluster is as of SeenAt.
	Known    bool      `json:"store_known"`
	SeenAt   time.Time `json:"store_seen_at"`
	SystemID string    `json:"system_id,omitempty"`
	Reason   ha.Reason `json:"reason"`
	Task     *ha.Task  `json:"task,omitempty"`
	LastTurn time.Time `json:"last_turn"`
	Problems []string  `json:"problems,omitempty"`
	Cluster  Keys      `json:"cluster"`
}

// Keys is a snapshot of the store with the names and revisions that the keys' own values lack.
type Keys struct {
	ClusterID  uint64                `json:"cluster_id"`
	RaftTerm   uint64                `json:"raft_term"`
	Revision   int64                 `json:"revision"`
	Initialize *cluster.Initialize   `json:"initialize,omitempty"`
	Config     *cluster.Config       `json:"config,omitempty"`
	Leader     *cluster.Leader       `json:"leader,omitempty"`
	Members    []MemberKey           `json:"members"`
	Status     *cluster.Status       `json:"status,omitempty"`
	Failover   *cluster.Failover     `json:"failover,omitempty"`
	Sync       *cluster.Sync         `json:"sync,omitempty"`
	History    []cluster.HistoryLine `json:"history"`
	Failsafe   map[string]string     `json:"failsafe,omitempty"`
	Term       *cluster.Term         `json:"term,omitempty"`
	TermRev    int64                 `json:"term_mod_rev,omitempty"`
	Events     []cluster.Event       `json:"events,omitempty"`
}

// MemberKey is a member's key with its name.
type MemberKey struct {
	Name  string         `json:"name"`
	Value cluster.Member `json:"value"`
}

func keysOf(s cluster.Snapshot) Keys {
	k := Keys{
		ClusterID: s.ClusterID, RaftTerm: s.RaftTerm, Revision: s.Revision, Initialize: s.Initialize, Config: s.Config,
		Leader: s.Leader, Members: []MemberKey{}, Status: s.Status, Failover: s.Failover, Sync: s.Sync, History: s.History,
		Failsafe: s.Failsafe, Term: s.Term, Events: s.Events,
	}
	if s.Term != nil {
		k.TermRev = s.Term.ModRev
	}
	for _, m := range s.Members {
		k.Members = append(k.Members, MemberKey{Name: m.Name, Value: m})
	}
	return k
}

// Snapshot is the snapshot that the keys were made from, without leases and revisions of single keys apart from those
// of leader, term and sync.
func (k Keys) Snapshot() cluster.Snapshot {
	s := cluster.Snapshot{
		ClusterID: k.ClusterID, RaftTerm: k.RaftTerm, Revision: k.Revision, Initialize: k.Initialize, Config: k.Config,
		Leader: k.Leader, Status: k.Status, Failover: k.Failover, Sync: k.Sync, History: k.History, Failsafe: k.Failsafe,
		Term: k.Term, Events: k.Events,
	}
	if s.Term != nil {
		s.Term.ModRev = k.TermRev
	}
	for _, m := range k.Members {
		m.Value.Name = m.Name
		s.Members = append(s.Members, m.Value)
	}
	return s
}

// storeTimeout bounds the reading of the store for a status; after it, what was last seen is told.
const storeTimeout = 2 * time.Second

func (s *Server) getHaven(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/haven/status":
	case "/haven/health":
		s.getWellbeing(w, r)
		return
	default:
		s.getHealth(w, r)
		return
	}
	l := s.fresh(r)
	at := time.Now()
	if l.Known {
		snap, err := s.soon(r)
		if l.Known = err == nil; l.Known {
			l.Snapshot, l.SeenAt = snap, at
		}
	}
	document(w, ok, Status{
		Name: l.Name, Scope: l.Scope, Version: l.Version, Started: s.started, At: at, HasServer: l.HasServer, Answers: l.Probe != nil,
		Role: l.role(), Leads: l.isLeader(), Known: l.Known, SeenAt: l.SeenAt, SystemID: l.SystemID, Reason: l.Reason,
		Task: l.Task, LastTurn: l.LastTurn, Problems: l.Problems, Cluster: keysOf(l.Snapshot),
	})
}
