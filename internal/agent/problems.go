package agent

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/postgres"
	"golang.org/x/sys/unix"
)

// heldBack is how much WAL an unused slot may hold back before that is a problem.
const heldBack = 1 << 30

// examine adds to a status what the agent has counted, and what is not as it should be.
func (a *Agent) examine(s *Status) {
	a.noteProtection(s)
	a.noteStrict(s)
	a.examineGuard(s)
	s.Figures = a.figures.copy()
	s.Figures.JournalDropped = a.opt.Journal.Dropped()
	if p := a.opt.Journal.Problem(); p != "" {
		s.Problems = append(s.Problems, fmt.Sprintf("the journal cannot be written, and decisions go unrecorded: %s", p))
	}
	if s.Probe != nil {
		s.Copies = a.chores.keep.copied
		s.Problems = append(s.Problems, slotProblems(s.Probe, s.Copies)...)
		s.Problems = append(s.Problems, a.chores.keep.problems(s.Probe)...)
	}
	if n := a.st.memory.StartFailures; n > 0 && a.st.startError != nil {
		s.Problems = append(s.Problems, fmt.Sprintf("the server does not start, %d times in a row: %s", n, strings.ReplaceAll(a.st.startError.Error(), "\n", " | ")))
	}
	for _, tell := range a.opt.Troubles {
		s.Problems = append(s.Problems, tell()...)
	}
}

// examineGuard tells whether what ends the server at the deadline is in place.
func (a *Agent) examineGuard(s *Status) {
	s.Guarded = a.warden.guarded()
	s.WatchdogFailed = a.watchdogFailed(s.Node, s.Dynamic.TTL)
	if s.WatchdogFailed {
		s.Problems = append(s.Problems, fmt.Sprintf("the watchdog %s is required and cannot be had, so this member does not lead: load its driver (modprobe softdog), or let it be optional", s.Node.Watchdog.Device))
	}
	if s.Guarded != nil && !*s.Guarded && s.Leads() && !s.Dynamic.Pause {
		s.Problems = append(s.Problems, "the guard does not hold the server: were the agent to die now, nobody would end the server at its deadline; another guard is being started")
	}
}

// watchdogFailed tells that a watchdog is required and cannot be had: the guard could not open it lately, or it cannot be written to.
func (a *Agent) watchdogFailed(n *config.Node, ttl time.Duration) bool {
	w := n.Watchdog
	return w.Mode == config.WatchdogRequired && (a.warden.unfit(ttl) || unix.Access(w.Device, unix.W_OK) != nil)
}

// noteProtection remembers since when a leader has acknowledged commits without a standby though it should not.
func (a *Agent) noteProtection(s *Status) {
	st := &a.st
	p := s.Probe
	if p == nil { // not known: what was seen before goes on
		return
	}
	bare := s.Holds && !p.InRecovery && s.Dynamic.SynchronousMode != config.SyncOff && p.SyncNames == ""
	switch {
	case !bare:
		st.unprotected = time.Time{}
	case st.unprotected.IsZero():
		st.unprotected = s.At
	}
	if bare {
		since := st.unprotected
		s.UnprotectedSince = &since
	}
}

// noteStrict tells once of commits that wait in the strict mode because no standby is left, in Patroni's words.
func (a *Agent) noteStrict(s *Status) {
	p := s.Probe
	if p == nil {
		return
	}
	alone := s.Holds && !p.InRecovery && s.Dynamic.SynchronousMode != config.SyncOff && s.Dynamic.SynchronousModeStrict && len(a.serverView().Standbys) == 0
	if alone && !a.st.strictAlone {
		a.log.Warn("No active replication connections from Patroni members and synchronous_mode_strict is requested. Commits wait until a synchronous standby is back")
	}
	a.st.strictAlone = alone
}

// slotProblems tells of slots that nobody uses and that hold back WAL, or have lost it (pg_replication_slots.wal_status);
// of a standby's copies the leader tells.
func slotProblems(p *postgres.Probe, copies []string) []string {
	at := max(p.WalLSN, p.ReplayLSN)
	var out []string
	for _, s := range p.Slots {
		drop := fmt.Sprintf("SELECT pg_drop_replication_slot('%s')", s.Name)
		held := s.RestartLSN.Behind(at)
		switch {
		case s.Active || s.Temporary || slices.Contains(copies, s.Name):
		case s.WalStatus == "lost":
			out = append(out, fmt.Sprintf("slot %s has lost the WAL that it needs: its standby has to be copied anew; if nobody needs the slot: %s", s.Name, drop))
		case s.RestartLSN != 0 && (held > heldBack || s.WalStatus == "unreserved"):
			out = append(out, fmt.Sprintf("slot %s is not used and holds back %.1f GiB of WAL: start what uses it, or if nobody needs it: %s", s.Name, gib(s.RestartLSN, at), drop))
		}
	}
	return out
}

func gib(from, to cluster.LSN) float64 { return float64(from.Behind(to)) / (1 << 30) }
