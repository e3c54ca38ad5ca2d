package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/ha"
)

// The verdicts of a Health. Critical: writes are not possible as configured. Unknown: nobody can tell.
const (
	Healthy  = "healthy"
	Degraded = "degraded"
	Critical = "critical"
	Unknown  = "unknown"
)

// Health is the document of GET /haven/health. What is not known is null or absent, never zero.
type Health struct {
	Verdict string   `json:"verdict"`
	Why     []string `json:"why"`
	Name    string   `json:"name"` // of the node that answers
	Cluster string   `json:"cluster"`
	// At is when the leader looked; From names who did: the leader itself, or store where only the keys tell.
	At          time.Time      `json:"at"`
	From        string         `json:"from"`
	Leader      string         `json:"leader,omitempty"`
	Term        uint64         `json:"term,omitempty"`
	TermState   string         `json:"term_state,omitempty"`
	LeaderSince *time.Time     `json:"leader_since,omitempty"`
	Writes      *bool          `json:"writes_possible"` // as configured; null: not known
	Pause       bool           `json:"pause,omitempty"`
	Sync        SyncHealth     `json:"synchronous"`
	Members     []MemberHealth `json:"members"`
	// Problems are those that the answering node and the leader know of themselves.
	Problems []string `json:"problems"`
}

// SyncHealth is what commits wait for.
type SyncHealth struct {
	Mode    string   `json:"mode"` // off, on, quorum
	Strict  bool     `json:"strict,omitempty"`
	Setting *string  `json:"setting"` // synchronous_standby_names in force; null: not known
	Named   []string `json:"named"`   // in the key sync
	InStep  []string `json:"in_step"` // those that the leader's commits wait for and that stream
	Needed  int      `json:"needed"`  // how many a commit waits for
	// UnprotectedSince is since when commits have been acknowledged without a standby, as the leader's agent has seen;
	// null: they are not, or nobody knows.
	UnprotectedSince *time.Time `json:"unprotected_since"`
}

// MemberHealth is one member. Lag is null for the leader.
type MemberHealth struct {
	Name     string           `json:"name"`
	Role     string           `json:"role"`
	State    string           `json:"state"`
	Timeline cluster.Timeline `json:"timeline,omitempty"`
	Lag      *Lag             `json:"lag"`
}

// Lag is how far a member is behind the leader's flushed WAL, in four parts (pg_stat_replication): what was sent to it,
// written, flushed and replayed there. Each includes the one before it.
type Lag struct {
	Sent   LagPart `json:"sent"`
	Write  LagPart `json:"write"`
	Flush  LagPart `json:"flush"`
	Replay LagPart `json:"replay"`
}

// LagPart is one part of a lag; null: not known.
type LagPart struct {
	Bytes   *uint64  `json:"bytes"`
	Seconds *float64 `json:"seconds,omitempty"`
}

// leaderTimeout bounds the question to the leader by another node.
const leaderTimeout = 1500 * time.Millisecond

// getWellbeing answers 200 where writes are possible as configured, else 503. Only the leader knows how far standbys are
// in four parts, so that every other node asks it; with ?own=true it does not.
func (s *Server) getWellbeing(w http.ResponseWriter, r *http.Request) {
	l := s.fresh(r)
	h := l.wellbeing()
	if leader := l.Snapshot.Leader; leader != nil && leader.Name != l.Name && r.URL.Query().Get("own") != "true" {
		if told, err := s.askLeader(r.Context(), l); err == nil {
			told.Name, told.Problems = l.Name, append(told.Problems, h.Problems...)
			h = told
		} else {
			h.worse(Unknown, fmt.Sprintf("the leader %s does not answer (%v)", leader.Name, err))
		}
	}
	if len(h.Problems) > 0 {
		h.worse(Degraded, h.Problems...)
	}
	document(w, code(h.Writes != nil && *h.Writes), h)
}

func (s *Server) askLeader(ctx context.Context, l Local) (Health, error) {
	var h Health
	m, found := l.Snapshot.Member(l.Snapshot.Leader.Name)
	if !found || m.APIBase() == "" || s.opt.Peers == nil {
		return h, fmt.Errorf("it has no member key")
	}
	ctx, cancel := context.WithTimeout(ctx, leaderTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.APIBase()+"/haven/health?own=true", nil)
	if err != nil {
		return h, err
	}
	resp, err := s.opt.Peers.Do(req)
	if err != nil {
		return h, err
	}
	defer func() { _ = resp.Body.Close() }()
	if err := json.NewDecoder(http.MaxBytesReader(nil, resp.Body, maxBody)).Decode(&h); err != nil || h.Verdict == "" {
		return h, fmt.Errorf("its answer is not one of Haven's")
	}
	if h.Leader != m.Name || h.From != m.Name {
		return h, fmt.Errorf("it does not take itself for the leader")
	}
	return h, nil
}

// wellbeing is the health of the cluster as this node can tell it alone.
func (l Local) wellbeing() Health {
	h := Health{Verdict: Healthy, Why: []string{}, Name: l.Name, Cluster: l.Scope, At: time.Now(), From: "store", Pause: l.Dynamic.Pause,
		Members: []MemberHealth{}, Problems: []string{}, Sync: l.syncHealth()}
	for _, p := range l.Problems {
		h.Problems = append(h.Problems, l.Name+": "+p)
	}
	if l.Snapshot.Leader != nil {
		h.Leader = l.Snapshot.Leader.Name
	}
	if t := l.Snapshot.Term; t.Binds(l.Snapshot.Leader) {
		since := t.Since
		h.Term, h.TermState, h.LeaderSince = t.Number, string(t.State), &since
	}
	for _, m := range Describe(l.Scope, l.Snapshot, l.Dynamic).Members {
		h.Members = append(h.Members, l.memberHealth(m))
	}
	if h.Leader == l.Name && l.HasServer {
		h.From = l.Name
	}
	l.judge(&h)
	return h
}

func (h *Health) worse(verdict string, why ...string) {
	rank := []string{Healthy, Degraded, Unknown, Critical}
	if slices.Index(rank, verdict) > slices.Index(rank, h.Verdict) {
		h.Verdict = verdict
	}
	for _, y := range why {
		if !slices.Contains(h.Why, y) {
			h.Why = append(h.Why, y)
		}
	}
}

func (l Local) syncHealth() SyncHealth {
	s := SyncHealth{Mode: string(l.Dynamic.SynchronousMode), Strict: l.Dynamic.SynchronousModeStrict, Named: []string{}, InStep: []string{}}
	if s.Mode == "" || l.standbyCluster() { // which ignores it
		s.Mode = string(config.SyncOff)
	}
	if l.Snapshot.Sync.Active() {
		s.Named = append(s.Named, l.Snapshot.Sync.Standbys...)
	}
	if l.Probe == nil || l.Probe.InRecovery {
		return s
	}
	setting := l.Probe.SyncNames
	s.Setting, s.Needed, s.UnprotectedSince = &setting, ha.ParseNames(setting).Count, l.UnprotectedSince
	for _, w := range l.Probe.Standbys {
		if w.State == "streaming" && (w.SyncState == "sync" || w.SyncState == "quorum") && !slices.Contains(s.InStep, w.Name) {
			s.InStep = append(s.InStep, w.Name)
		}
	}
	slices.Sort(s.InStep)
	return s
}

func (l Local) memberHealth(m Member) MemberHealth {
	out := MemberHealth{Name: m.Name, Role: m.Role, State: m.State, Timeline: m.Timeline}
	if l.Snapshot.Leader != nil && m.Name == l.Snapshot.Leader.Name {
		return out
	}
	out.Lag = &Lag{}
	if p := l.Probe; p != nil && !p.InRecovery && l.isLeader() {
		for _, w := range p.Standbys {
			if strings.EqualFold(w.Name, m.Name) {
				out.Lag = &Lag{
					Sent: part(w.Sent, p.WalLSN, nil), Write: part(w.Write, p.WalLSN, w.WriteLag),
					Flush: part(w.Flush, p.WalLSN, w.FlushLag), Replay: part(w.Replay, p.WalLSN, w.ReplayLag),
				}
				return out
			}
		}
	}
	// A member that does not stream from the leader, or a node that is not the leader: what the keys say.
	out.Lag.Write.Bytes, out.Lag.Replay.Bytes = keyLag(m.ReceiveLag), keyLag(m.ReplayLag)
	return out
}

func keyLag(lag any) *uint64 {
	if n, known := lag.(uint64); known {
		return &n
	}
	return nil
}

func part(at, leader cluster.LSN, took *time.Duration) LagPart {
	var p LagPart
	if at != 0 && leader != 0 {
		n := at.Behind(leader)
		p.Bytes = &n
	}
	if took != nil {
		s := took.Seconds()
		p.Seconds = &s
	}
	return p
}

// judge settles verdict and writes.
func (l Local) judge(h *Health) {
	possible := func(yes bool) { h.Writes = &yes }
	switch {
	case !l.sees():
		h.worse(Unknown, l.Name+" cannot read etcd")
	case h.Leader == "":
		possible(false)
		h.worse(Critical, "no member leads")
	}
	if h.Pause {
		h.worse(Degraded, "maintenance mode is on: a failed leader is not replaced")
	}
	if h.From == l.Name {
		l.judgeOwn(h, possible)
	}
	for _, m := range h.Members {
		if m.Name != h.Leader && m.State != "streaming" && m.State != "in archive recovery" {
			h.worse(Degraded, m.Name+" does not replicate: "+m.State)
		}
	}
}

// judgeOwn judges what only the leader itself knows.
func (l Local) judgeOwn(h *Health, possible func(bool)) {
	s := h.Sync
	wants := s.Mode != string(config.SyncOff)
	switch {
	case !l.checks(url.Values{}).leader:
		possible(false)
		h.worse(Critical, l.Name+" holds the leader key, and "+l.unready())
	case l.standbyCluster():
		possible(true)
	case len(s.InStep) < s.Needed:
		possible(false)
		h.worse(Critical, fmt.Sprintf("commits wait for %d standby(s), and %d of those that count stream", s.Needed, len(s.InStep)))
	case wants && s.Needed == 0 && s.Strict:
		possible(false)
		h.worse(Critical, "synchronous_mode_strict is on, and commits do not wait for a standby")
	default:
		possible(true)
	}
	if wants && s.Needed == 0 && l.isLeader() {
		why := "commits are acknowledged without a standby"
		if s.UnprotectedSince != nil {
			why += ", at least since " + s.UnprotectedSince.UTC().Format("2006-01-02 15:04:05 MST")
		}
		h.worse(Degraded, why)
	}
}

// unready is why a leader is no writable primary.
func (l Local) unready() string {
	switch {
	case l.Probe == nil:
		return "its server does not answer"
	case !l.Leads:
		return "its leadership is not proven at this moment"
	case l.Probe.InRecovery:
		return "its server is still a standby"
	}
	return "its term is not promoted yet"
}
