package agent

import (
	"context"
	"time"

	"github.com/havenha/haven/internal/bootclock"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/ha"
	"github.com/havenha/haven/internal/postgres"
)

// Status is what the agent shows of itself. It is never changed after it was published.
type Status struct {
	At       time.Time
	Node     *config.Node
	Member   cluster.Member // the own member key
	Snapshot cluster.Snapshot
	// Known tells whether the store can be read; SeenAt when it last could.
	Known    bool
	SeenAt   time.Time
	Dynamic  config.Dynamic
	Probe    *postgres.Probe // nil: the server does not answer
	SystemID string
	Holds    bool            // it holds the leader key, until Deadline
	Deadline cluster.Instant // on the boot clock of this host
	Reason   ha.Reason
	reach    reach
	Task     *ha.Task
	Crash    *ha.Crash
	LastTurn cluster.Instant
	Problems []string // what is not as it should be, in sentences
}

// Leads tells whether leadership is proven at this moment.
func (s Status) Leads() bool { return s.Holds && bootclock.Now().Before(s.Deadline) }

// Status returns what was last published; before the first turn of the loop, an empty one.
func (a *Agent) Status() Status {
	if s := a.published.Load(); s != nil {
		return *s
	}
	return Status{Node: a.node.Load()}
}

// Fresh is Status with the server asked at this moment.
func (a *Agent) Fresh(ctx context.Context) Status {
	s := a.Status()
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	p, err := a.server.Probe(ctx)
	s.Probe = nil
	if err == nil {
		s.reach.raise(&p)
		s.Probe = &p
		memberPositions(&s.Member, &p)
	}
	return s
}

func (a *Agent) status() Status {
	st := &a.st
	s := Status{
		At: time.Now(), Node: a.node.Load(), Member: a.member(), Snapshot: st.snap, Known: st.known, SeenAt: st.seenAt,
		Dynamic: st.dynamic, Probe: st.seen.probe, Holds: st.holder != nil && !st.lost, Deadline: st.deadline,
		Reason: st.last.Reason, Task: st.task, Crash: st.crash, LastTurn: cluster.Instant(a.lastTurn.Load()),
		SystemID: st.seen.disk.Control.SystemID, reach: st.reach,
	}
	if st.known { // the watch tells within seconds when it breaks
		s.SeenAt = s.At
	}
	if s.Probe != nil {
		s.SystemID = s.Probe.SystemID
	}
	return s
}

func apiScheme(n *config.Node) string {
	if n.RESTAPI.CertFile != "" {
		return "https"
	}
	return "http"
}
