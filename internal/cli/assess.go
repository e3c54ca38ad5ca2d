package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/havenha/haven/internal/api"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
)

// verdict is how a cluster is.
type verdict string

const (
	healthy  verdict = "healthy"
	degraded verdict = "degraded"
	critical verdict = "critical"
	unknown  verdict = "unknown"
)

func (v verdict) code() int {
	return map[verdict]int{healthy: ExitOK, degraded: ExitDegraded, critical: ExitCritical, unknown: ExitUnknown}[v]
}

// assessment is what haven status says. Its JSON names are stable; a null is not known.
type assessment struct {
	Verdict  verdict        `json:"verdict"`
	Cluster  string         `json:"cluster"`
	Leader   string         `json:"leader,omitempty"`
	Since    *time.Time     `json:"since,omitempty"`
	Term     uint64         `json:"term,omitempty"`
	Timeline uint32         `json:"timeline,omitempty"`
	Writes   writes         `json:"writes"`
	Votes    *votes         `json:"votes"`
	Data     int            `json:"data_failure_tolerance"` // standbys that may take over
	Failover plan           `json:"failover"`
	Sync     string         `json:"synchronous_mode"`
	SyncSet  []string       `json:"synchronous_standbys"`
	Members  []memberStatus `json:"members"`
	Last     *cluster.Event `json:"last_change,omitempty"`
	Why      []string       `json:"why"`
	Next     []string       `json:"next"`
	AsOf     time.Time      `json:"as_of"`
	From     string         `json:"from"`
}

// writes is what the leader's own health check said.
type writes struct {
	State string  `json:"state"` // ok, no, unknown, elsewhere (a standby cluster)
	Took  float64 `json:"seconds,omitempty"`
	Why   string  `json:"why,omitempty"`
}

// votes is how many members of etcd answered.
type votes struct {
	Members   int `json:"members"`
	Answering int `json:"answering"`
	Tolerance int `json:"failure_tolerance"`
}

// memberStatus is one member. Lags are bytes; null is not known, and on the leader there is none.
type memberStatus struct {
	Name       string  `json:"name"`
	Role       string  `json:"role"`
	State      string  `json:"state"`
	Progress   string  `json:"progress,omitempty"` // of a copy that is being made
	Timeline   uint32  `json:"timeline,omitempty"`
	ReceiveLag *uint64 `json:"receive_lag"`
	ReplayLag  *uint64 `json:"replay_lag"`
	Eligible   string  `json:"eligible"` // yes, no, unknown; empty on the leader
	Why        string  `json:"why,omitempty"`
}

// assess judges a picture; w and v are what was asked beside it (v nil: not known).
func assess(p picture, w writes, v *votes) assessment {
	a := assessment{
		Verdict: healthy, Cluster: p.scope, Leader: p.leader(), Writes: w, Votes: v, Sync: string(p.dynamic.SynchronousMode),
		SyncSet: []string{}, Members: []memberStatus{}, Why: []string{}, Next: []string{}, AsOf: p.asOf, From: p.from,
	}
	if p.dynamic.IsStandby() { // synchronous mode has no effect, and nobody writes here
		a.Sync = string(config.SyncOff)
		if a.Writes.State == "ok" {
			a.Writes.State = "elsewhere"
		}
	}
	if p.snap.Sync.Active() && len(p.snap.Sync.Standbys) > 0 {
		a.SyncSet = p.snap.Sync.Standbys
	}
	if t := p.snap.Term; t.Binds(p.snap.Leader) {
		since := t.Since
		a.Since, a.Term, a.Timeline = &since, t.Number, uint32(t.Timeline)
	}
	if n := len(p.snap.Events); n > 0 {
		a.Last = &p.snap.Events[n-1]
	}
	a.members(p)
	a.Failover = planFor(p, "")
	a.judgeLeader(p)
	a.judgeRest(p)
	if p.stale {
		a.worse(unknown, p.from+" cannot read etcd, so this may be out of date", "make etcd reachable: without it nobody can lead for longer than the ttl")
		a.Verdict = unknown
	}
	return a
}

// worse lowers the verdict and says why, and what to do.
func (a *assessment) worse(v verdict, why, next string) {
	rank := []verdict{healthy, degraded, unknown, critical}
	if slices.Index(rank, v) > slices.Index(rank, a.Verdict) {
		a.Verdict = v
	}
	a.Why = append(a.Why, why)
	if next != "" && !slices.Contains(a.Next, next) {
		a.Next = append(a.Next, next)
	}
}

func (a *assessment) members(p picture) {
	for _, m := range api.Describe(p.scope, p.snap, p.dynamic).Members {
		s := memberStatus{Name: m.Name, Role: m.Role, State: m.State, Progress: progressOf(p, m.Name), Timeline: uint32(m.Timeline), ReceiveLag: bytesOf(m.ReceiveLag), ReplayLag: bytesOf(m.ReplayLag)}
		if m.Name != a.Leader {
			full, _ := p.snap.Member(m.Name)
			s.Eligible, s.Why = eligible(p, full)
			if s.Eligible == "yes" {
				a.Data++
			}
		}
		a.Members = append(a.Members, s)
	}
}

func bytesOf(lag any) *uint64 {
	if n, known := lag.(uint64); known {
		return &n
	}
	return nil
}

// eligible tells whether a member would take over if the leader failed now: yes, no or unknown, and why.
func eligible(p picture, m cluster.Member) (answer, why string) {
	status := p.snap.Status
	synced := p.snap.Sync.Active() && len(p.snap.Sync.Standbys) > 0
	switch {
	case !m.MayLead():
		return "no", "tagged nofailover"
	case m.State != cluster.StateRunning:
		return "no", or(string(m.State), "its state is not known")
	case synced && !p.snap.Sync.Has(m.Name):
		return "no", "not synchronous"
	case m.Position() == 0 || status == nil || status.Optime == 0:
		return "unknown", "its position is not known"
	case p.dynamic.SynchronousMode == config.SyncOff && m.Position().Behind(status.Optime) > uint64(p.dynamic.MaximumLagOnFailover):
		return "no", "lag > " + size(uint64(p.dynamic.MaximumLagOnFailover))
	}
	if synced {
		return "yes", "synchronous"
	}
	return "yes", ""
}

func (a *assessment) judgeLeader(p picture) {
	t := p.snap.Term
	_, there := p.snap.Member(a.Leader)
	switch {
	case len(p.snap.Members) == 0 && a.Leader == "":
		a.worse(critical, "no member has registered in cluster "+p.scope, "start the members: haven run FILE; or is the scope right? (patronictl list "+p.scope+")")
	case a.Leader == "" && p.dynamic.Pause:
		a.worse(critical, "no member leads, and maintenance mode is on: nobody takes over by itself", "haven failover --candidate MEMBER, or end maintenance mode")
	case a.Leader == "":
		a.worse(critical, "no member leads", blockedNext(a.Members))
	case t.Binds(p.snap.Leader) && t.State == cluster.TermClaimed:
		a.worse(critical, a.Leader+" has taken over and does not accept writes yet", "wait a moment: haven status --watch")
	case !there:
		a.worse(degraded, a.Leader+" leads, but its member key is gone: its agent may be down", "look at haven on "+a.Leader)
	}
	if a.Leader == "" {
		return
	}
	switch a.Writes.State {
	case "no":
		a.worse(critical, a.Leader+" holds the leader key, and its server is not a writable primary: "+a.Writes.Why, "haven status --watch; the log of "+a.Leader)
	case "unknown":
		a.worse(degraded, "whether writes are possible is not known: "+a.Writes.Why, "")
	}
}

func blockedNext(members []memberStatus) string {
	var names []string
	for _, m := range members {
		if m.Eligible == "yes" {
			names = append(names, m.Name)
		}
	}
	if len(names) > 0 {
		return "wait: " + strings.Join(names, ", ") + " may take over"
	}
	return "no member is eligible, see the reasons below; haven failover --candidate MEMBER overrides them and may lose data"
}

func (a *assessment) judgeRest(p picture) {
	for _, m := range a.Members {
		if a.Leader != "" && m.Name != a.Leader && m.State != "streaming" && m.State != "in archive recovery" {
			a.worse(degraded, fmt.Sprintf("%s does not replicate: %s", m.Name, or(m.State, "its state is not known")), lookAt(m))
		}
	}
	if p.dynamic.Pause {
		a.worse(degraded, "maintenance mode is on: a failed leader is not replaced", "haven resume, when the work is done")
	}
	if a.Sync != string(config.SyncOff) && len(a.SyncSet) == 0 && a.Leader != "" {
		effect := "commits do not wait for any"
		if p.dynamic.SynchronousModeStrict {
			effect = "commits wait until there is one"
		}
		a.worse(degraded, "no standby is synchronous: "+effect, "a standby has to stream: haven status --watch")
	}
	for _, name := range a.SyncSet {
		if _, there := p.snap.Member(name); !there {
			a.worse(degraded, "the synchronous standby "+name+" is gone", "look at haven on "+name)
		}
	}
	if a.Data == 0 && a.Leader != "" {
		a.worse(degraded, "no standby could take over", "")
	}
	switch {
	case a.Votes == nil:
	case a.Votes.Tolerance < 1:
		a.worse(degraded, fmt.Sprintf("no member of etcd may fail (%d of %d answer)", a.Votes.Answering, a.Votes.Members), "run three members of etcd, or bring back those that are gone")
	case a.Votes.Answering < a.Votes.Members:
		a.worse(degraded, fmt.Sprintf("%d of %d members of etcd do not answer", a.Votes.Members-a.Votes.Answering, a.Votes.Members), "look at etcd there")
	}
}

// lookAt is what to do about a member that does not replicate.
func lookAt(m memberStatus) string {
	switch cluster.State(m.State) {
	case cluster.StateStarting, cluster.StateRestarting, cluster.StateStopping, cluster.StateCreatingReplica, cluster.StateRunning:
		return "wait a moment: haven status --watch; if it stays so, the log of " + m.Name
	}
	return "the log of " + m.Name
}

// headline is the first line: the verdict, and what one wants to know first.
func (a assessment) headline(sep string) string {
	parts := []string{"cluster " + a.Cluster}
	switch {
	case a.Leader == "":
		parts = append(parts, "NO LEADER", "writes are not possible")
	default:
		parts = append(parts, a.Leader+" leads", a.Writes.text())
	}
	if a.Leader != "" {
		parts = append(parts, "survives "+a.tolerance(), "failover now: "+a.Failover.short())
	}
	return strings.Join(parts, sep)
}

func (w writes) text() string {
	switch w.State {
	case "ok":
		return fmt.Sprintf("writes ok (%d ms)", int(w.Took*1000))
	case "no":
		return "writes are NOT possible"
	case "elsewhere":
		return "a standby of another cluster, where writes go"
	}
	return "writes ?"
}

// tolerance is how many more failures the whole survives: the least of votes and data.
func (a assessment) tolerance() string {
	n, more := a.Data, ""
	if a.Votes == nil {
		more = " (votes: ?)"
	} else {
		n = min(n, max(0, a.Votes.Tolerance))
	}
	if n == 1 {
		return "1 more failure" + more
	}
	return fmt.Sprintf("%d more failures%s", n, more)
}
