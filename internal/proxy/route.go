package proxy

import (
	"fmt"

	"github.com/havenha/haven/internal/cluster"
)

// State is what a server is worth to a listener.
type State string

// The states. Only Admitted and Ready servers get sessions, and Unsure ones if there is nothing else.
const (
	Admitted    State = "admitted"     // the primary, by its own word
	Checking    State = "checking"     // holds the leader key, has not yet said that it is writable
	Ready       State = "ready"        // a replica that gets sessions
	Standby     State = "standby"      // a replica, where a primary is wanted
	Leading     State = "leading"      // the leader, where a replica is wanted
	Lagging     State = "lagging"      // too far behind
	Unsure      State = "unsure"       // a replica whose lag is unknown
	Detached    State = "detached"     // a replica that does not stream
	Excluded    State = "excluded"     // noloadbalance
	Down        State = "down"         // its server does not run
	Unreachable State = "unreachable"  // could not be connected to
	Unresolved  State = "unresolved"   // its name has no address
	Refused     State = "refused"      // is no replica by its own word
	NoLeader    State = "no leader"    // of a cluster: nobody leads
	NotSeen     State = "not seen yet" // of a cluster: no picture so far
)

// view is all that a routing decision looks at.
type view struct {
	seen bool // a picture was ever had
	picture
	admitted bool   // the leadership in the picture is admitted
	why      string // why it is not
	// broken says why a server cannot be connected to at the moment.
	broken map[string]broken
}

type broken struct {
	state State
	why   string
}

// rule is the part of a listener's configuration that routing looks at.
type rule struct {
	replica  bool // wants a replica rather than the primary
	maxLag   int64
	fallback bool // the primary, when there is no replica
}

// load is how much a server has of a listener's sessions.
type load struct {
	open  int    // now, and those being connected
	total uint64 // ever
}

// choice is a routing decision: a server, or why there is none.
type choice struct {
	server  string
	primary bool // it is used as the primary: the session belongs to the leadership
	why     string
}

// verdict is what one server is worth, and why.
type verdict struct {
	state State
	why   string
}

// route chooses the server for a new session. It is pure.
func route(v view, r rule, loads map[string]load) choice {
	if !v.seen {
		return choice{why: "the cluster was not seen yet"}
	}
	if !r.replica {
		return primary(v)
	}
	if name, ok := lightest(v, r, loads, Ready); ok {
		return choice{server: name}
	}
	if !r.fallback {
		return choice{why: "no replica may be used"}
	}
	if c := primary(v); c.server != "" {
		return c
	}
	// Nothing else: a replica whose lag nobody knows is better than none.
	if name, ok := lightest(v, r, loads, Unsure); ok {
		return choice{server: name}
	}
	return choice{why: "no replica may be used, and no primary is admitted"}
}

func primary(v view) choice {
	if v.leader == nil {
		return choice{why: "the cluster has no leader"}
	}
	s, ok := v.find(v.leader.holder)
	if !ok {
		return choice{why: "the leader " + v.leader.holder + " has no member key"}
	}
	if j := judge(v, rule{}, s); j.state != Admitted {
		return choice{why: s.name + ": " + j.why}
	}
	return choice{server: s.name, primary: true}
}

// unfit are the servers that route chooses in no case, while it chooses others. settled tells whether a server has been in its state for
// a while: lags are known as of two moments, so one that keeps up may seem to lag for some seconds. It is pure.
func unfit(v view, r rule, settled func(server string) bool) map[string]bool {
	c := route(v, r, nil)
	chosen, ok := v.find(c.server)
	if !ok {
		return nil
	}
	out, best := map[string]bool{}, judge(v, r, chosen).state
	for _, s := range v.servers {
		switch state := judge(v, r, s).state; {
		case state == best && c.primary == s.leads:
		case state == Unreachable, state == Unresolved: // that is said of new connections
		case state == Excluded, settled(s.name) && settled(chosen.name):
			out[s.name] = true
		}
	}
	return out
}

// lightest is the server of that state with the fewest sessions; among equals, the one that had the fewest so far, so
// that short sessions go around.
func lightest(v view, r rule, loads map[string]load, state State) (name string, ok bool) {
	var best load
	for _, s := range v.servers {
		if judge(v, r, s).state != state {
			continue
		}
		l := loads[s.name]
		if !ok || l.open < best.open || l.open == best.open && l.total < best.total {
			name, best, ok = s.name, l, true
		}
	}
	return name, ok
}

// judge says what a server is worth to a listener with that rule.
func judge(v view, r rule, s server) verdict {
	if s.leads {
		return judgeLeader(v, r, s)
	}
	if !r.replica {
		return verdict{Standby, "does not lead"}
	}
	return judgeReplica(v, r, s)
}

func judgeLeader(v view, r rule, s server) verdict {
	switch b, isBroken := v.broken[s.name]; {
	case isBroken && b.state == Unresolved:
		return verdict(b)
	case v.admitted && r.replica && !r.fallback:
		return verdict{Leading, "is the primary"}
	case v.admitted:
		return verdict{Admitted, "says that it is writable"}
	}
	return verdict{Checking, v.why}
}

func judgeReplica(v view, r rule, s server) verdict {
	if b, ok := v.broken[s.name]; ok {
		return verdict(b)
	}
	switch {
	case s.excluded:
		return verdict{Excluded, "has the tag noloadbalance"}
	case s.state != cluster.StateRunning:
		return verdict{Down, fmt.Sprintf("its server is %q", s.state)}
	case s.refused != "":
		return verdict{Refused, s.refused}
	// While nobody leads there is nobody to stream from.
	case !s.streaming && v.admitted:
		return verdict{Detached, "does not stream"}
	case s.lag < 0:
		return verdict{Unsure, "its lag is unknown"}
	case s.lag > r.maxLag:
		return verdict{Lagging, fmt.Sprintf("lags %s, more than %s", bytesText(s.lag), bytesText(r.maxLag))}
	}
	return verdict{Ready, fmt.Sprintf("lags %s", bytesText(s.lag))}
}

// bytesText renders a size for people, in steps of 1024.
func bytesText(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n), ""
	for _, unit = range []string{"kB", "MB", "GB", "TB"} {
		if f /= 1024; f < 1024 {
			break
		}
	}
	if f == float64(int64(f)) {
		return fmt.Sprintf("%d %s", int64(f), unit)
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}
