package api

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/dcs"
	"github.com/havenha/haven/internal/ha"
	"github.com/havenha/haven/internal/postgres"
)

// Local is what this node knows of itself.
type Local struct {
	Name, Scope, Version string
	// HasServer is false on a node without a database; Member, Probe, Reason and Task are empty there.
	HasServer bool
	Member    cluster.Member // the own member key
	Snapshot  cluster.Snapshot
	// Known tells whether the store can be read, SeenAt when it last could.
	Known   bool
	SeenAt  time.Time
	Dynamic config.Dynamic
	Probe   *postgres.Probe // nil: the server does not answer
	// ServerVersion is PostgreSQL's, for instance 150018; 0: not known.
	ServerVersion int
	// Leads tells whether leadership is proven at this moment.
	Leads    bool
	SystemID string
	Tags     map[string]any
	Reason   ha.Reason
	Task     *ha.Task
	LastTurn time.Time // of the agent's loop; zero: none yet
	Problems []string
	// UnprotectedSince is since when this leader has acknowledged commits without a standby, though synchronous mode is
	// on; nil: it has not, or the node does not lead.
	UnprotectedSince *time.Time
	Failsafe         bool // leadership rests on the word of all members, or this member has given its own
	WatchdogFailed   bool // a watchdog is required and cannot be had
	// Samples are of the metrics that OwnMetrics names, beside those that the rest of Local tells.
	Samples []Sample
}

// Source tells what the node knows of itself.
type Source interface {
	// Status is what was last published. It never blocks.
	Status() Local
	// Fresh is Status with the server asked at this moment; Probe is nil if it does not answer.
	Fresh(ctx context.Context) Local
}

// Operator carries out an operator's orders on this member. An ha.Refusal as error says why nothing was done.
type Operator interface {
	// Restart returns when the restart is over; ha.ErrStillStarting: the server lives, but was not ready in time.
	Restart(ctx context.Context, r ha.Restart) error
	// ScheduleRestart returns ha.ErrAlreadyScheduled if a restart waits for its time already.
	ScheduleRestart(ctx context.Context, r ha.Restart, at time.Time) error
	// UnscheduleRestart tells whether there was one to take back.
	UnscheduleRestart(ctx context.Context) (bool, error)
	// Reinitialize returns when the replacement of the data has begun.
	Reinitialize(ctx context.Context, r ha.Reinit, force bool) error
}

// Store is what is needed of a dcs.Store.
type Store interface {
	Snapshot(ctx context.Context) (cluster.Snapshot, error)
	Watch(ctx context.Context) <-chan dcs.Update
	PutFailover(ctx context.Context, f cluster.Failover, seenRev int64) error
	PutConfig(ctx context.Context, raw json.RawMessage, seenRev int64) error
}

// Options are what a Server is made from.
type Options struct {
	Node   *config.RESTAPI
	Source Source
	Store  Store
	// Wake makes the agent look at the store at once.
	Wake func()
	// Operator carries out what is asked of this member; nil on a node without a database.
	Operator Operator
	// Pledge gives this member's word not to take leadership to a leader that cannot reach the store: ha.ErrFailsafeOff,
	// ha.ErrPledgeRefused. nil: there is no database.
	Pledge func(to string, ttl time.Duration) (cluster.LSN, error)
	// Reload reads the node's configuration again.
	Reload func() error
	// Upgrade has the node go on as the program that now stands where its own did; an error says why not, and nothing has changed.
	Upgrade func(ctx context.Context) error
	// Peers asks other members' REST APIs.
	Peers   *http.Client
	Log     *slog.Logger
	Version string
	// Facts answers POST /haven/facts: what the node finds when it examines itself. Nil: it cannot.
	Facts FactsFunc
}

// FactsFunc examines the node for the request's body. authenticated tells that the asker has shown a password or a
// certificate: only then may anything that rests on secrets be told. An error is of the request.
type FactsFunc func(ctx context.Context, body []byte, authenticated bool) (any, error)

// probeTimeout bounds the question to the own server that a check asks.
const probeTimeout = 2 * time.Second

// defaultTTL holds while the dynamic configuration was never read (Patroni's default).
const defaultTTL = 30 * time.Second

func (l Local) ttl() time.Duration {
	if l.Dynamic.TTL <= 0 {
		return defaultTTL
	}
	return l.Dynamic.TTL
}

// sees tells whether the store's state may still be believed: it can be read, or could within the last ttl, or
// failsafe mode stands in for it (Patroni).
func (l Local) sees() bool {
	return l.Known || l.Failsafe || !l.SeenAt.IsZero() && time.Since(l.SeenAt) < l.ttl()
}

func (l Local) standbyCluster() bool { return l.Dynamic.IsStandby() }

// isLeader tells whether the node leads and its server does what a leader's does.
func (l Local) isLeader() bool {
	if !l.Leads || l.Probe == nil {
		return false
	}
	return l.standbyCluster() && l.Probe.InRecovery || !l.Probe.InRecovery && l.Snapshot.Term.Settled(l.Snapshot.Leader)
}

func (l Local) running() bool {
	return !l.HasServer || l.Member.State == cluster.StateRunning && l.Probe != nil
}

// synchronous tells whether /sync names this standby; quorum, whether that is in quorum mode.
func (l Local) synchronous() (named, quorum bool) {
	s := l.Snapshot.Sync
	named = s.Active() && s.Leader != l.Name && s.Has(l.Name)
	return named, l.Dynamic.SynchronousMode == config.SyncQuorum
}

// role is what the server does right now, else what the member key says.
func (l Local) role() cluster.Role {
	switch {
	case !l.HasServer:
		return roleCoordinator
	case l.Probe == nil:
		return l.Member.Role
	case !l.Probe.InRecovery:
		return cluster.RolePrimary
	case l.standbyCluster() && l.Member.Role == cluster.RoleStandbyLeader:
		return cluster.RoleStandbyLeader
	}
	return cluster.RoleReplica
}

// roleCoordinator is the role of a node without a database.
const roleCoordinator cluster.Role = "coordinator"

// replicationState is how a standby gets its WAL, in Patroni's words; empty: not known, or no standby.
func (l Local) replicationState() string {
	switch {
	case l.Probe == nil || !l.Probe.InRecovery:
		return ""
	case l.Probe.ReceiverStatus == "streaming":
		return "streaming"
	case l.Probe.Restores:
		return "in archive recovery"
	}
	return ""
}
