package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// doCluster carries out commands that are no single member's.
func (w *World) doCluster(verb string, rest []string) error {
	s := w.store
	what := strings.Join(rest, " ")
	switch verb {
	case "elect":
		d, err := time.ParseDuration(what)
		if err != nil {
			return err
		}
		s.elect(d)
	case "store":
		if s.noQuorum = 0; what == "down" {
			s.noQuorum = 1
		}
		if what == "up" {
			s.elect(w.random.between(200*time.Millisecond, 2*time.Second))
		}
		w.linksChanged()
	case "lose":
		s.loseReply++
	case "config":
		return w.configure(rest)
	case "switchover", "failover":
		return w.request(verb, rest)
	case "delete":
		return w.deleteKey(what)
	case "revive":
		w.revive()
	case "reconnect":
		w.reconnect()
	case "at": // at STEP of MEMBER [KIND]: COMMAND
		return w.setTrap(rest)
	}
	return nil
}

func (w *World) configure(words []string) error {
	p, err := ReadPolicy(w.policy(), words)
	if err != nil {
		return err
	}
	if w.history.office == nil {
		return nil // there is no cluster yet
	}
	w.policies = append(w.policies, p)
	w.store.putPolicy(len(w.policies) - 1)
	return nil
}

// request is an operator's switchover [from A] to B, or failover to B.
func (w *World) request(verb string, words []string) error {
	f := cluster.Failover{}
	for i := 0; i+1 < len(words); i += 2 {
		switch words[i] {
		case "from":
			f.Leader = words[i+1]
		case "to":
			f.Candidate = words[i+1]
		}
	}
	if l := w.store.snap.Leader; verb == "switchover" && f.Leader == "" {
		if l == nil {
			return nil
		}
		f.Leader = l.Name
	}
	if verb == "failover" {
		w.history.waived = true
	}
	return w.store.putFailover(f, -1)
}

// deleteKey takes a key away by hand; the leader key only under a leader that sees it. Without it the others take the lease
// for ended, so deleting that of a leader whose agent is dead or cut off is an operator's way to two primaries.
func (w *World) deleteKey(name string) error {
	if m := w.member("leader"); name == "leader" && (w.store.snap.Leader == nil || m.agent == nil || m.agent.frozen > 0 || !m.server.writable() || !w.quiet()) {
		return nil
	}
	if w.history.office == nil { // there is no cluster yet
		return nil
	}
	if name == "leader" {
		w.history.deleted = w.now
	}
	w.store.write(func(n *cluster.Snapshot, _ int64) {
		switch name {
		case "leader":
			n.Leader = nil
		case "config":
			n.Config = nil
		case "initialize":
			n.Initialize = nil
		case "failover":
			n.Failover = nil
		}
	})
	return nil
}

func (w *World) setTrap(words []string) error {
	colon := slices.Index(words, ":")
	if colon < 3 || words[1] != "of" {
		return fmt.Errorf("at N of MEMBER [ACTION] : COMMAND")
	}
	n, err := strconv.Atoi(words[0])
	if err != nil || n < 1 {
		return fmt.Errorf("at which step? %q", words[0])
	}
	x := trap{member: -1, left: n, command: words[colon+1:]}
	if m := w.member(words[2]); m != nil {
		x.member = m.i
	}
	if colon > 3 {
		x.kind = words[3]
	}
	w.traps = append(w.traps, x)
	return nil
}
