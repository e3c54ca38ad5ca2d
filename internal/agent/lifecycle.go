package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/dcs"
	"github.com/havenha/haven/internal/ha"
	"github.com/havenha/haven/internal/postgres"
)

// settings are those of the server in that role, with the given synchronous_standby_names.
func settings(in input, role, names string) (postgres.Settings, []string) {
	controlled, params, hba, ident, recovery, warnings := in.node.ServerSettings(in.dynamic, role, memberHosts(in.snap)...)
	if in.dynamic.SynchronousMode == config.SyncOff {
		if own, ok := params["synchronous_standby_names"]; ok && names == "" {
			names = own
		}
	}
	delete(params, "synchronous_standby_names")
	return postgres.Settings{Controlled: controlled, Parameters: params, SyncNames: names, HBA: hba, Ident: ident, Recovery: recovery}, warnings
}

// memberHosts are the hosts of all members, so that each may replicate from each.
func memberHosts(s cluster.Snapshot) []string {
	var out []string
	for _, m := range s.Members {
		if host, _, err := net.SplitHostPort(m.Address()); err == nil {
			out = append(out, host)
		}
	}
	return out
}

func fingerprint(s postgres.Settings) string {
	s.SyncNames = ""
	b, _ := json.Marshal(s) // strings, slices and maps of them: cannot fail
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// upstream says how that member is reached for replication, and by which slot.
func (in input) upstream(name string) (*postgres.Upstream, error) {
	m, ok := in.snap.Member(name)
	if !ok || m.Address() == "" {
		return nil, fmt.Errorf("%s has no address in the store yet", name)
	}
	host, port, err := net.SplitHostPort(m.Address())
	if err != nil {
		return nil, fmt.Errorf("address of %s: %w", name, err)
	}
	up := &postgres.Upstream{Name: name, Host: host, Port: port}
	if in.dynamic.UseSlots {
		up.Slot = cluster.SlotName(in.node.Name)
	}
	return up, nil
}

// errNotReserved: nothing was made yet, so that a bootstrap may be tried again, whatever kept etcd from answering. Should
// the key have been written all the same, it is cleared once nobody goes on with it.
var errNotReserved = errors.New("failed to acquire initialize lock")

// bootstrap makes the cluster's first database. A failure leaves initialize absent, and what was made aside.
func (a *Agent) bootstrap(ctx context.Context, in input, e *effects) error {
	if err := a.store.BeginInitialize(ctx); err != nil {
		return fmt.Errorf("bootstrap: %w: %w", errNotReserved, err)
	}
	err := a.found(ctx, in, e)
	if err == nil {
		a.refresh(ctx, e)
		return nil
	}
	// The context may be what ended it; the clean-up has its own.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	return errors.Join(err, a.undoBootstrap(ctx, e))
}

func (a *Agent) undoBootstrap(ctx context.Context, e *effects) error {
	e.process = nil
	if err := a.server.Kill(ctx); err != nil {
		return fmt.Errorf("undo bootstrap: %w", err)
	}
	if d, err := a.server.Inspect(); err == nil && d.Kind == postgres.DiskData {
		aside, err := a.server.MoveAside()
		if err != nil {
			return fmt.Errorf("undo bootstrap: %w", err)
		}
		a.log.Warn("bootstrap failed; what it made was moved aside", "path", aside)
	}
	if err := a.store.CancelInitialize(ctx); err != nil && !errors.Is(err, dcs.ErrConflict) {
		return fmt.Errorf("undo bootstrap: %w", err)
	}
	return nil
}

// foundingMarker stands in the data directory from initdb until the store knows of the new cluster. A database that was
// left in between has no users yet and may not have become the cluster's: it is set aside, never started.
const foundingMarker = "haven.founding"

func (a *Agent) foundingMarked() bool {
	_, err := os.Lstat(filepath.Join(a.server.DataDir(), foundingMarker))
	return err == nil
}

// founded tells that the store knows the cluster by this system identifier, or that what it knows cannot be told.
func (a *Agent) founded(systemID string) bool {
	i := a.st.snap.Initialize
	return !a.st.known || i.Valid() && i.SystemID == systemID
}

// clearFounding sets what an interrupted bootstrap left aside.
func (a *Agent) clearFounding(in input) error {
	if in.seen.disk.Kind != postgres.DiskData || !in.seen.founding {
		return nil
	}
	path, err := a.server.MoveAside()
	if err != nil {
		return err
	}
	a.log.Warn("what an interrupted bootstrap had made was moved aside", "path", path)
	return nil
}

func (a *Agent) found(ctx context.Context, in input, e *effects) error {
	if err := a.clearFounding(in); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	if err := a.server.InitDB(ctx); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	marker := filepath.Join(a.server.DataDir(), foundingMarker)
	if err := os.WriteFile(marker, nil, 0o600); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	raw := config.DefaultDCS(in.node.Format, in.node.Bootstrap)
	d, _, err := config.ParseDynamic(raw, allHaven(in.snap))
	if err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	in.dynamic = d
	s, _ := settings(in, "primary", "")
	if s.HBA == nil && len(in.node.Bootstrap.HBA) > 0 {
		if s.HBA, err = a.extendedHBA(in.node.Bootstrap.HBA); err != nil {
			return fmt.Errorf("bootstrap: %w", err)
		}
	}
	if err := a.startWith(ctx, s, nil, false, e); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	if err := a.server.PostBootstrap(ctx, bootstrapOf(in.node)); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	probe, err := a.server.Probe(ctx)
	if err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	f := dcs.Founding{
		Claim:    dcs.Claim{Name: in.node.Name, Lease: in.lease.ID, TermRev: termRev(in.snap)},
		SystemID: probe.SystemID, Config: raw,
	}
	f.Term = a.nextTerm(in, in.node.Name, cluster.FenceBootstrap, nil)
	f.Term.SystemID, f.Term.State, f.Term.Timeline = probe.SystemID, cluster.TermPromoted, probe.Timeline
	if d.SynchronousMode != config.SyncOff {
		f.Sync = &cluster.Sync{Leader: in.node.Name}
	}
	h, err := a.store.Found(ctx, f)
	if err != nil {
		return fmt.Errorf("bootstrap: record the new cluster: %w", err)
	}
	if err := os.Remove(marker); err != nil {
		a.log.Warn("the mark of the bootstrap could not be removed; it means nothing any more", "error", err)
	}
	e.note("initialized a new cluster, system %s", probe.SystemID)
	if err := a.begun(ctx, h, e); err != nil {
		return err
	}
	event := foundingEvent(f.Term, probe, e.notes)
	if _, _, err := a.store.Write(ctx, h, dcs.Changes{Event: &event}); err != nil {
		a.log.Warn("the founding could not be recorded among the events", "error", err)
	}
	return nil
}

// extendedHBA is initdb's pg_hba.conf with the lines of bootstrap.pg_hba after its own.
func (a *Agent) extendedHBA(lines []string) ([]string, error) {
	b, err := os.ReadFile(filepath.Join(a.server.DataDir(), "pg_hba.conf"))
	if err != nil {
		return nil, err
	}
	return append(strings.Split(strings.TrimSpace(string(b)), "\n"), lines...), nil
}

// unclaim deletes an empty initialize: the member that wrote it died before it had made anything.
func (a *Agent) unclaim(ctx context.Context, in input, e *effects) error {
	err := a.store.CancelInitialize(ctx)
	a.refresh(ctx, e)
	return err
}

func foundingEvent(t cluster.Term, p postgres.Probe, notes []cluster.Evidence) cluster.Event {
	return cluster.Event{
		Term: t.Number, Kind: "bootstrap", NewLeader: t.Holder, Fence: t.Fence, Timeline: t.Timeline, LSN: p.WalLSN, Log: notes,
		Cause:  cluster.Cause{Code: ha.CauseBootstrap, Certainty: cluster.Observed, At: t.Since, Text: "the cluster was made: there was none before"},
		Chosen: t.Holder + " was the first to reserve the key initialize", Loss: "none: there was no data before",
	}
}

func bootstrapOf(n *config.Node) postgres.Bootstrap {
	b := postgres.Bootstrap{PostCommand: n.Bootstrap.PostBootstrap}
	for _, d := range n.Bootstrap.Databases {
		b.Databases = append(b.Databases, postgres.Database{Name: d.Name, Owner: d.Owner, Password: d.Password})
	}
	return b
}

// begun proves a leadership that has just been written, so that it has a deadline.
func (a *Agent) begun(ctx context.Context, h dcs.Holder, e *effects) error {
	e.led = &h
	proof, err := a.store.Renew(ctx, h)
	if err != nil {
		return fmt.Errorf("prove the new leadership: %w", err)
	}
	e.deadline = proof.Began.Add(proof.TTL - a.margin(proof.TTL))
	return nil
}

func termRev(s cluster.Snapshot) int64 {
	if s.Term == nil {
		return 0
	}
	return s.Term.ModRev
}

// startWith writes the configuration and starts the server.
func (a *Agent) startWith(ctx context.Context, s postgres.Settings, up *postgres.Upstream, standby bool, e *effects) error {
	if _, err := a.server.Configure(s, up, standby); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	p, err := a.server.Start(ctx, s)
	e.process = p // a server that is not ready in time lives on
	if err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	name := ""
	if up != nil {
		name = up.Name
	}
	fp := fingerprint(s)
	e.upstream, e.applied = &name, &fp
	return nil
}

// start starts the server as a standby of the given member, of nobody, or as a primary in place. For the last,
// leadership is proven first, and the names that commits wait for are those that /sync records.
func (a *Agent) start(ctx context.Context, in input, e *effects) error {
	if in.action.AsPrimary {
		return a.startPrimary(ctx, in, e)
	}
	s, _ := settings(in, "replica", "")
	var up *postgres.Upstream
	if in.action.Member != "" {
		var err error
		if up, err = in.upstream(in.action.Member); err != nil {
			return err
		}
	}
	return a.startWith(ctx, s, up, true, e)
}

func (a *Agent) startPrimary(ctx context.Context, in input, e *effects) error {
	if in.holder == nil {
		return errors.New("start as primary: no leadership is held")
	}
	if _, err := a.store.Renew(ctx, *in.holder); err != nil {
		return fmt.Errorf("start as primary: leadership could not be proven: %w", err)
	}
	names := ha.NamesFor(policy(in.dynamic, in.node), in.snap.Sync, in.node.Name)
	s, _ := settings(in, "primary", names)
	if err := a.startWith(ctx, s, nil, false, e); err != nil {
		return err
	}
	e.note("started the primary in place")
	return nil
}

// kill ends every process of the server; it returns only when none is left.
func (a *Agent) kill(ctx context.Context, in input, e *effects) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if err := a.server.Kill(ctx); err != nil {
		return err
	}
	if in.former != nil {
		select {
		case <-in.former:
		case <-ctx.Done():
			return fmt.Errorf("the cancelled action has not ended, and may start the server again: %w", ctx.Err())
		}
		if err := a.server.Kill(ctx); err != nil {
			return err
		}
	}
	e.note("ended every process of the server")
	return nil
}

func (a *Agent) stopFast(ctx context.Context, in input, e *effects) error {
	return a.server.Stop(ctx, postgres.StopFast, nil)
}

// clone copies the database of another member into the empty data directory.
func (a *Agent) clone(ctx context.Context, in input, e *effects) error {
	up, err := in.upstream(in.action.Member)
	if err != nil {
		return err
	}
	if err := a.clearFounding(in); err != nil {
		return err
	}
	e.note("copying the database from %s", up.Name)
	if err := a.server.Clone(ctx, *up, a.progress()); err != nil {
		return err
	}
	s, _ := settings(in, "replica", "")
	if _, err := a.server.Configure(s, up, true); err != nil {
		return fmt.Errorf("configure the copy as a standby: %w", err)
	}
	return nil
}

// progress logs how far a copy is, every few seconds.
func (a *Agent) progress() func(done, total int64) {
	last := time.Now()
	return func(done, total int64) {
		if time.Since(last) > 2*time.Second {
			last = time.Now()
			a.log.Info("copying the database", "done_bytes", done, "total_bytes", total)
		}
	}
}

// moveAside puts a data directory out of the way that cannot follow the leader; stillTrue has made sure that it is this
// cluster's, and that the leader, which has the data, is still the same.
func (a *Agent) moveAside(ctx context.Context, in input, e *effects) error {
	if left, err := a.server.Processes(); err != nil || len(left) > 0 {
		return fmt.Errorf("move the data directory aside: %d processes still use it (%v)", len(left), err)
	}
	path, err := a.server.MoveAside()
	if err != nil {
		return err
	}
	a.log.Warn("the data directory was moved aside", "path", path)
	e.note("moved the data directory aside, to %s", path)
	return nil
}

// follow points a running standby at another member.
func (a *Agent) follow(ctx context.Context, in input, e *effects) error {
	up, err := in.upstream(in.action.Member)
	if err != nil {
		return err
	}
	s, _ := settings(in, "replica", "")
	if _, err := a.server.Configure(s, up, true); err != nil {
		return fmt.Errorf("follow %s: %w", up.Name, err)
	}
	if err := a.server.Reload(ctx); err != nil {
		return fmt.Errorf("follow %s: %w", up.Name, err)
	}
	fp := fingerprint(s)
	e.upstream, e.applied = &up.Name, &fp
	e.note("following %s", up.Name)
	return nil
}

// rewind takes back what the leader's history does not contain.
func (a *Agent) rewind(ctx context.Context, in input, e *effects) error {
	up, err := in.upstream(in.action.Member)
	if err != nil {
		return err
	}
	if in.seen.process != ha.ProcessDown {
		if err := a.server.Stop(ctx, postgres.StopFast, nil); err != nil {
			return fmt.Errorf("rewind: %w", err)
		}
	}
	e.note("rewinding to the history of %s", up.Name)
	if err := a.server.Rewind(ctx, *up); err != nil {
		return err
	}
	s, _ := settings(in, "replica", "")
	return a.startWith(ctx, s, up, true, e)
}

// reconfigure brings changed settings into force on a running server.
func (a *Agent) reconfigure(ctx context.Context, in input, e *effects) error {
	p := in.seen.probe
	if p == nil {
		return errors.New("reconfigure: the server does not answer")
	}
	role, names := "replica", ""
	if !p.InRecovery {
		role, names = "primary", p.SyncNames
	}
	s, warnings := settings(in, role, names)
	for _, w := range warnings {
		a.log.Warn(w)
	}
	var up *postgres.Upstream
	if p.InRecovery && in.action.Member != "" {
		var err error
		if up, err = in.upstream(in.action.Member); err != nil {
			return err
		}
	}
	if _, err := a.server.Configure(s, up, p.InRecovery); err != nil {
		return err
	}
	fp := fingerprint(s)
	e.applied = &fp
	return a.server.Reload(ctx)
}
