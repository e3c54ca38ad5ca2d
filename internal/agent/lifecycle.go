package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/havenha/haven/internal/bootclock"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/dcs"
	"github.com/havenha/haven/internal/ha"
	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/durable"
)

// settings are those of the server in that role, with the given synchronous_standby_names.
func settings(in input, role, names string) (postgres.Settings, []string) {
	far, leadsStandbys := in.dynamic.Standby()
	if leadsStandbys = leadsStandbys && ha.Remote(in.action.Member); leadsStandbys {
		role = "standby_leader"
	}
	controlled, params, hba, ident, recovery, warnings := in.node.ServerSettings(in.dynamic, role, memberHosts(in.snap)...)
	if in.dynamic.SynchronousMode == config.SyncOff {
		if own, ok := params["synchronous_standby_names"]; ok && names == "" {
			names = own
		}
	}
	delete(params, "synchronous_standby_names")
	if leadsStandbys {
		recovery = maps.Clone(recovery)
		if recovery == nil {
			recovery = map[string]string{}
		}
		maps.Copy(recovery, far.Recovery)
	}
	return postgres.Settings{CustomConf: in.node.PostgresWith(in.dynamic).CustomConf, Controlled: controlled, Parameters: params, SyncNames: names, HBA: hba, Ident: ident, Recovery: recovery}, warnings
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
	if ha.Remote(name) {
		return in.remote(name)
	}
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
	if err == nil || errors.Is(err, errMayBeFounded) {
		a.refresh(ctx, e)
		return err
	}
	// The context may be what ended it; the clean-up has its own.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
	defer cancel()
	return errors.Join(err, a.undoBootstrap(ctx, e))
}

// errMayBeFounded: the store may know of the new cluster, so that what was made is its only data. It stays; if the store
// does not know of it after all, the mark of the founding says that it may be set aside.
var errMayBeFounded = errors.New("it is not known whether the new cluster was recorded")

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

// clearFounded removes the mark of a founding that the store knows of. It must not stay: a database would be taken for
// an unfinished one should the identifier ever be gone from the store.
func (a *Agent) clearFounded(s seen) {
	if !s.founding || !a.st.known || !a.founded(s.disk.Control.SystemID) {
		return
	}
	if _, err := durable.Remove(filepath.Join(a.server.DataDir(), foundingMarker)); err != nil {
		a.log.Warn("the mark of the bootstrap could not be removed", "error", err)
	}
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
	if _, standby := in.dynamic.Standby(); standby {
		return a.foundStandby(ctx, in, e)
	}
	if err := a.clearFounding(in); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	method := restoring(in.node)
	if err := a.makeDatabase(ctx, method); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	marker := filepath.Join(a.server.DataDir(), foundingMarker)
	if _, err := durable.Replace(marker, []byte("the database is made, the cluster is not recorded yet\n"), 0o600, a.ownLikeData); err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	raw := config.DefaultDCS(in.node.Format, in.node.Bootstrap)
	d, _, err := config.ParseDynamic(raw, allHaven(in.snap))
	if err != nil {
		return fmt.Errorf("bootstrap: %w", err)
	}
	in.dynamic = d
	s, _ := settings(in, "primary", "")
	if err := a.startFounded(ctx, in, s, method, e); err != nil {
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
	return a.recordFounding(ctx, in, f, probe, e)
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

// begun proves a leadership that has just been written, so that it has a deadline.
func (a *Agent) begun(ctx context.Context, h dcs.Holder, e *effects) error {
	e.led = &h
	_, deadline, err := a.prove(ctx, h)
	if err != nil {
		return fmt.Errorf("prove the new leadership: %w", err)
	}
	e.deadline = deadline
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
	if _, err := a.server.Configure(s, dialled(up), standby); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return a.startBy(ctx, a.server.Start, s, up, e)
}

// startBy starts the server by one of the ways to do so.
func (a *Agent) startBy(ctx context.Context, start func(context.Context, postgres.Settings) (*postgres.Server, error), s postgres.Settings, up *postgres.Upstream, e *effects) error {
	p, err := start(ctx, s)
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
	a.settleMark()
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
	if _, _, err := a.prove(ctx, *in.holder); err != nil {
		return fmt.Errorf("start as primary: leadership could not be proven: %w", err)
	}
	names := ha.NamesFor(policy(in.dynamic, in.node), in.snap.Sync, in.node.Name)
	s, _ := settings(in, "primary", names)
	if _, err := a.server.Configure(s, nil, false); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	start := a.server.StartArmed
	if a.paused.Load() { // nothing is guarded
		start = a.server.Start
	}
	if err := a.startBy(ctx, start, s, nil, e); err != nil {
		return err
	}
	e.note("started the primary in place")
	return nil
}

// lastWords is how long sessions have to end by themselves after their postmaster has (AwaitOrphans). They were seen to need some
// milliseconds; one in the middle of a statement needs longer, and is not waited for.
const lastWords = 50 * time.Millisecond

// kill ends every process of the server; it returns only when none is left.
func (a *Agent) kill(ctx context.Context, in input, e *effects) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	a.warden.ending.CompareAndSwap(0, int64(bootclock.Now()))
	if in.seen.process == ha.ProcessOrphans && !in.lost {
		a.server.AwaitOrphans(ctx, lastWords)
	}
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
	a.warden.ending.Store(0)
	e.note("ended every process of the server")
	return nil
}

func (a *Agent) stopFast(ctx context.Context, in input, e *effects) error {
	return a.stopBounded(ctx, in)
}

// clone copies the database of another member, or of a backup, into the empty data directory.
func (a *Agent) clone(ctx context.Context, in input, e *effects) error {
	var up *postgres.Upstream
	if in.action.Member != "" {
		var err error
		if up, err = in.upstream(in.action.Member); err != nil {
			return err
		}
		e.note("copying the database from %s", up.Name)
	}
	if err := a.clearFounding(in); err != nil {
		return err
	}
	if err := a.copyBy(ctx, in, copyMethods(in), up, e); err != nil {
		return err
	}
	if err := a.removeMark(); err != nil {
		return fmt.Errorf("remove the copied mark of promotions: %w", err)
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
	a.copied.Store(nil)
	return func(done, total int64) {
		if time.Since(last) > 2*time.Second {
			last = time.Now()
			a.copied.Store(&copied{done, total})
			a.Wake()
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

// follow points a running standby at another member, or at none.
func (a *Agent) follow(ctx context.Context, in input, e *effects) error {
	name := in.action.Member
	var up *postgres.Upstream // nil: the archive only
	if name != "" {
		var err error
		if up, err = in.upstream(name); err != nil {
			return err
		}
	}
	a.dropPending()
	s, _ := settings(in, "replica", "")
	var unknown string
	e.upstream = &unknown // if what follows is cut short, the server's own word counts
	if _, err := a.server.Configure(s, dialled(up), true); err != nil {
		return fmt.Errorf("follow %q: %w", name, err)
	}
	if err := a.server.Reload(ctx); err != nil {
		return fmt.Errorf("follow %q: %w", name, err)
	}
	fp := fingerprint(s)
	e.upstream, e.applied, e.reloaded = &name, &fp, true
	e.note("following %q", name)
	return nil
}

// rewind takes back what the leader's history does not contain.
func (a *Agent) rewind(ctx context.Context, in input, e *effects) error {
	up, err := in.upstream(in.action.Member)
	if err != nil {
		return unbegun{err}
	}
	if in.seen.process != ha.ProcessDown {
		a.beforeStop(ctx, in)
		if err := a.server.Stop(ctx, postgres.StopFast, nil); err != nil {
			return fmt.Errorf("rewind: %w", err)
		}
	}
	e.note("rewinding to the history of %s", up.Name)
	if err := a.server.Rewind(ctx, *up); err != nil {
		return err
	}
	if err := a.removeMark(); err != nil {
		return fmt.Errorf("remove the mark of promotions that were rewound: %w", err)
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
	if _, err := a.server.Configure(s, dialled(up), p.InRecovery); err != nil {
		return err
	}
	fp := fingerprint(s)
	if err := a.server.Reload(ctx); err != nil {
		return err
	}
	e.applied, e.reloaded = &fp, true
	return nil
}
