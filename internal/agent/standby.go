package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/dcs"
	"github.com/havenha/haven/internal/ha"
	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/durable"
)

// remote is the upstream of another cluster that this one is a standby of. Without a host it is an archive only.
func (in input) remote(name string) (*postgres.Upstream, error) {
	far, ok := in.dynamic.Standby()
	if !ok {
		return nil, errors.New("this cluster is a standby of no other any more")
	}
	return &postgres.Upstream{Name: name, Host: far.Host, Port: far.Port, Slot: far.SlotName}, nil
}

// dialled is the upstream to stream from: none where it is an archive only.
func dialled(up *postgres.Upstream) *postgres.Upstream {
	if up == nil || up.Host == "" {
		return nil
	}
	return up
}

// leadsStandbys tells that this member leads a cluster that is a standby of another.
func (a *Agent) leadsStandbys() bool {
	return a.st.holder != nil && !a.st.lost && ha.Remote(a.st.upstream)
}

// reached is how far a server's WAL goes: what a primary has flushed, or a standby received and replayed.
func reached(p *postgres.Probe) cluster.LSN {
	if p.InRecovery {
		return max(p.ReceiveLSN, p.ReplayLSN)
	}
	return p.WalLSN
}

// foundStandby makes the first database of a cluster that is a standby of another: a copy, of which this member is the standby leader.
// The term stays claimed: nobody is promoted.
func (a *Agent) foundStandby(ctx context.Context, in input, e *effects) error {
	raw := config.DefaultDCS(in.node.Format, in.node.Bootstrap)
	in.action.Member = policy(in.dynamic, in.node).Remote
	up, err := in.remote(in.action.Member)
	if err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	methods := remoteMethods(in, dialled(up))
	if len(methods) == 0 {
		return errors.New("bootstrap: standby_cluster names neither a host to copy the database from, nor in create_replica_methods a method with no_leader")
	}
	if err := a.clearFounding(in); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	e.note("copying the database of the remote cluster %s", strings.TrimPrefix(in.action.Member, ha.RemotePrefix))
	if err := a.copyBy(ctx, in, methods, dialled(up), e); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	if err := a.removeMark(); err != nil {
		return fmt.Errorf("bootstrap: remove the copied mark of promotions: %w", err)
	}
	marker := filepath.Join(a.server.DataDir(), foundingMarker)
	if _, err := durable.Replace(marker, []byte("the copy is made, the cluster is not recorded yet\n"), 0o600, a.ownLikeData); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	s, _ := settings(in, "replica", "")
	if err := a.startWith(ctx, s, up, true, e); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	probe, err := a.server.Probe(ctx)
	if err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	f := dcs.Founding{Claim: dcs.Claim{Name: in.node.Name, Lease: in.lease.ID, TermRev: termRev(in.snap)}, SystemID: probe.SystemID, Config: raw}
	f.Term = a.nextTerm(in, in.node.Name, cluster.FenceBootstrap, nil)
	f.Term.SystemID, f.Term.Timeline = probe.SystemID, probe.Timeline
	return a.recordFounding(ctx, in, f, probe, e)
}

// recordFounding makes a new cluster known, and its leader its own.
func (a *Agent) recordFounding(ctx context.Context, in input, f dcs.Founding, probe postgres.Probe, e *effects) error {
	h, err := a.store.Found(ctx, f)
	switch {
	case errors.Is(err, dcs.ErrConflict):
		return fmt.Errorf("bootstrap: record the new cluster: %w", err)
	case err != nil:
		return fmt.Errorf("bootstrap: record the new cluster: %w: %w", errMayBeFounded, err)
	}
	e.note("initialized a new cluster, system %s", probe.SystemID)
	if err := a.begun(ctx, h, e); err != nil {
		return fmt.Errorf("bootstrap: %w: %w", errMayBeFounded, err)
	}
	event := foundingEvent(f.Term, probe, e.notes)
	changes := dcs.Changes{Event: &event}
	if probe.Timeline > 1 { // restored from another cluster's backup
		changes.History = a.history(in, probe.Timeline)
	}
	if _, _, err := a.store.Write(ctx, h, changes); err != nil {
		a.log.Warn("the founding could not be recorded among the events", "error", err)
	}
	return nil
}
