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
	MayWrite bool            // the server may be writable, as far as is known
	// LastLeader is the last leader that the store showed.
	LastLeader string
	Failsafe   bool // leadership rests on the word of all members, or this member has given its own
	Reason     ha.Reason
	reach      reach
	grounded   bool
	Task       *ha.Task
	Crash      *ha.Crash
	LastTurn   cluster.Instant
	Problems   []string // what is not as it should be, in sentences
	Copies     []string // slots of this standby that follow the leader's
	// UnprotectedSince is since when commits have been acknowledged without a standby though synchronous mode is on, as
	// this agent has seen; nil: they are not.
	UnprotectedSince *time.Time
	Figures          Figures
	Guarded          *bool // a living guard holds a deadline that has not passed; nil: there is to be no guard
	WatchdogFailed   bool  // the watchdog is required and cannot be had
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
	if a.processState(a.server.Server()) == ha.ProcessDown { // who answers on its port is somebody else
		s.Probe = nil
		return s
	}
	// Who asks and leaves again must not end the session with the server.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeTimeout)
	defer cancel()
	p, err := a.server.Probe(ctx)
	s.Probe = nil
	// A standby that has just begun to answer may tell less than it has acknowledged, until the end of its WAL is known.
	if err == nil && (!p.InRecovery || s.grounded && !a.sessionLost.Load()) {
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
		MayWrite: a.serverView().MightWrite(), LastLeader: st.memory.LastLeader,
		Failsafe: st.holder != nil && st.failsafe || a.pledges.now().Binds(bootclock.Now()),
		Reason:   st.last.Reason, Task: st.task, Crash: st.crash, LastTurn: cluster.Instant(a.lastTurn.Load()),
		SystemID: st.seen.disk.Control.SystemID, reach: st.reach, grounded: st.grounded,
	}
	if st.known { // the watch tells within seconds when it breaks
		s.SeenAt = s.At
	}
	if s.Probe != nil {
		s.SystemID = s.Probe.SystemID
	}
	a.examine(&s)
	return s
}

func apiScheme(n *config.Node) string {
	if n.RESTAPI.CertFile != "" {
		return "https"
	}
	return "http"
}
