package cli

import (
	"fmt"
	"strings"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
)

// plan is what would happen if leadership changed now. Verdict is SAFE, LOSSY, BLOCKED or UNKNOWN.
type plan struct {
	Verdict   string   `json:"verdict"`
	Candidate string   `json:"candidate,omitempty"`
	Loss      string   `json:"loss"`
	Blockers  []string `json:"blockers,omitempty"`
	Warnings  []string `json:"warnings,omitempty"`
	// Behind is how many bytes of WAL the candidate lacked when positions were last recorded; nil: not known, or none by
	// construction.
	Behind *uint64 `json:"behind_bytes,omitempty"`
}

const (
	planSafe    = "SAFE"
	planLossy   = "LOSSY"
	planBlocked = "BLOCKED"
	planUnknown = "UNKNOWN"
)

func (p plan) short() string {
	switch p.Verdict {
	case planSafe:
		return "SAFE, loses 0 B"
	case planBlocked:
		return "BLOCKED: " + strings.Join(p.Blockers, ", ")
	case planLossy:
		return fmt.Sprintf("LOSSY, %s was %s behind", p.Candidate, size(*p.Behind))
	}
	return "UNKNOWN, no position of " + p.Candidate
}

// planFor is the plan of an unplanned failover, to the candidate or, where that is empty, to the best member.
func planFor(p picture, candidate string) plan {
	m, found := best(p, candidate)
	if !found {
		return plan{Verdict: planBlocked, Loss: "nothing happens", Blockers: []string{"no standby is eligible"}}
	}
	out := plan{Candidate: m.Name}
	if answer, why := eligible(p, m); answer != "yes" {
		out.Warnings = append(out.Warnings, m.Name+": "+why)
	}
	status := p.snap.Status
	switch {
	case p.snap.Sync.Active() && p.snap.Sync.Has(m.Name):
		out.Verdict, out.Loss = planSafe, fmt.Sprintf("0 B: %s holds every commit that waited for the synchronous set", m.Name)
	case m.Position() == 0 || status == nil || status.Optime == 0:
		out.Verdict, out.Loss = planUnknown, "what would be lost is not known: no position of "+m.Name
	default:
		behind := m.Position().Behind(status.Optime)
		out.Verdict, out.Behind = planLossy, &behind
		out.Loss = fmt.Sprintf("%s was %s behind when both were last recorded; replication is asynchronous, so what came after may be lost as well", m.Name, size(behind))
	}
	return out
}

// planSwitchover is the plan of a planned change: the old leader stops in order, so that nothing is lost.
func planSwitchover(p picture, candidate string) plan {
	m, found := best(p, candidate)
	if !found {
		return plan{Verdict: planBlocked, Loss: "nothing happens", Blockers: []string{"no standby is eligible"}}
	}
	out := plan{Verdict: planSafe, Candidate: m.Name, Loss: fmt.Sprintf("0 B: %s stops in order, and %s has all of its WAL before it takes over", p.leader(), m.Name)}
	if m.ReplicationState != "streaming" {
		out.Verdict, out.Blockers = planBlocked, []string{m.Name + " does not stream from " + p.leader()}
		out.Loss = "nothing happens"
	}
	if lag := bytesBehind(p, m); lag > 16<<20 {
		out.Warnings = append(out.Warnings, fmt.Sprintf("%s is %s behind: the switchover waits for it", m.Name, size(lag)))
	}
	return out
}

func bytesBehind(p picture, m cluster.Member) uint64 {
	if p.snap.Status == nil {
		return 0
	}
	return m.ReplayLSN.Behind(p.snap.Status.Optime)
}

// best is the named member, or the eligible one that would be chosen: synchronous first, then the furthest.
func best(p picture, name string) (cluster.Member, bool) {
	if name != "" {
		return p.snap.Member(name)
	}
	var out cluster.Member
	found := false
	for _, m := range p.snap.Members {
		if m.Name == p.leader() {
			continue
		}
		if answer, _ := eligible(p, m); answer == "no" {
			continue
		}
		further := m.Position() > out.Position() || m.Position() == out.Position() && m.Priority() > out.Priority()
		if !found || further {
			out, found = m, true
		}
	}
	return out, found
}

// text renders the plan of an action.
func (p plan) text(action string, pic picture) string {
	rows := [][]string{
		{"candidate", or(p.Candidate, "none") + syncMark(pic, p.Candidate)}, {"verdict", p.Verdict}, {"data loss", p.Loss},
	}
	if p.Verdict != planBlocked {
		rows = append(rows, []string{"order", order(action, pic, p.Candidate)})
	}
	rows = append(rows, []string{"blockers", or(strings.Join(p.Blockers, "; "), "none")}, []string{"warnings", or(strings.Join(p.Warnings, "; "), "none")})
	return aligned(rows)
}

func syncMark(p picture, name string) string {
	if p.dynamic.SynchronousMode != config.SyncOff && p.snap.Sync.Has(name) {
		return " (synchronous)"
	}
	return ""
}

func order(action string, p picture, candidate string) string {
	leader := p.leader()
	if leader == "" {
		return fmt.Sprintf("1 %s takes the leader key  2 %s is promoted  3 the others follow it", candidate, candidate)
	}
	first := "1 " + leader + " stops in order, after its last WAL was sent"
	if action == "failover" {
		first = "1 " + leader + " stops, whether or not its last WAL was received"
	}
	return fmt.Sprintf("%s  2 %s takes the leader key  3 %s is promoted  4 the others, and %s, follow it", first, candidate, candidate, leader)
}
