package agent

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/dcs"
	"github.com/havenha/haven/internal/ha"
	"github.com/havenha/haven/internal/postgres"
)

// fenceVersion is the fencing protocol that this version understands.
const fenceVersion = 1

// patroniVersion is the version of Patroni whose layout and API this member speaks. Other members and tools read it
// (dcs layout, mixed clusters).
const patroniVersion = "4.1.4"

// keyWriter writes the member key, and a leader's status key, beside the loop. Changes of state are written at once,
// mere positions once per loop_wait.
type keyWriter struct {
	a    *Agent
	kick chan struct{}

	mu   sync.Mutex
	want wanted
}

type wanted struct {
	lease  int64
	member cluster.Member
	holder *dcs.Holder
	status *cluster.Status
	// failsafe are the members to be named in /failsafe; nil: as it is.
	failsafe map[string]string
	every    time.Duration
	set      bool
	missing  bool // the store does not show the member key on this lease
}

func newKeyWriter(a *Agent) *keyWriter { return &keyWriter{a: a, kick: make(chan struct{}, 1)} }

func (w *keyWriter) put(next wanted) {
	w.mu.Lock()
	urgent := !w.want.set || next.failsafe != nil && !maps.Equal(next.failsafe, w.want.failsafe) || w.want.lease != next.lease ||
		shape(w.want.member) != shape(next.member) || slotNames(w.want.status) != slotNames(next.status)
	w.want = next
	w.mu.Unlock()
	if urgent {
		select {
		case w.kick <- struct{}{}:
		default:
		}
	}
}

// shape is a member key without its positions.
func shape(m cluster.Member) string {
	m.XlogLocation, m.ReceiveLSN, m.ReplayLSN = 0, 0, 0
	b, _ := json.Marshal(m)
	return string(b)
}

func (w *keyWriter) run(ctx context.Context) {
	var last string
	var lastStatus cluster.Status
	pause := time.Second
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.kick:
		case <-time.After(pause):
		}
		w.mu.Lock()
		want := w.want
		w.mu.Unlock()
		if !want.set || want.lease == 0 {
			continue
		}
		pause = want.every
		if err := w.write(ctx, want, &last, &lastStatus); err != nil {
			pause = min(time.Second, want.every)
		}
	}
}

func (w *keyWriter) write(ctx context.Context, want wanted, last *string, lastStatus *cluster.Status) error {
	b, _ := json.Marshal(want.member)
	key := string(b) + "@" + time.Duration(want.lease).String()
	if key != *last || want.missing {
		err := w.a.store.PutMember(ctx, want.lease, want.member)
		if errors.Is(err, dcs.ErrLeaseGone) {
			w.a.keeper.forget(want.lease)
		}
		if err != nil {
			return err
		}
		*last = key
	}
	if want.holder != nil && want.status != nil && (!sameStatus(*want.status, *lastStatus) || want.failsafe != nil) {
		if want.failsafe != nil {
			w.a.lists.trying(want.failsafe)
		}
		if _, _, err := w.a.store.Write(ctx, *want.holder, dcs.Changes{Status: want.status, Failsafe: want.failsafe}); err != nil {
			return err
		}
		*lastStatus = *want.status
	}
	return nil
}

// flush writes the member key once more, for the last time.
func (w *keyWriter) flush(ctx context.Context, m cluster.Member, lease int64) {
	if lease != 0 {
		_ = w.a.store.PutMember(ctx, lease, m) // the key ends with its lease anyway
	}
}

// publish makes the state visible: to readers in this process, and through the member key to the cluster.
func (a *Agent) publish() {
	s := a.status()
	a.published.Store(&s)
	st := &a.st
	a.noteOffice()
	w := wanted{lease: st.lease.ID, member: s.Member, every: st.dynamic.LoopWait, set: true}
	if key, ok := st.snap.Member(s.Member.Name); st.known && (!ok || key.Lease != st.lease.ID) {
		w.missing = true
	}
	if st.holder != nil && !st.lost && st.task == nil && s.Probe != nil && (!s.Probe.InRecovery || a.leadsStandbys()) {
		h := *st.holder
		w.holder = &h
		w.status = a.chores.keep.status(s.Probe, a.slotCase(false))
		// Until the term is promoted, the store describes who could lead before.
		if l := st.snap.Leader; st.known && l != nil && st.snap.Term.Settled(l) {
			w.failsafe = a.lists.wanted(st.snap, s.Member, st.dynamic.FailsafeMode, st.dynamic.TTL)
		}
	}
	a.writer.put(w)
}

// noteOffice remembers who leads, once that leadership is settled.
func (a *Agent) noteOffice() {
	s := a.st.snap
	if !a.st.known || s.Leader == nil || !s.Term.Settled(s.Leader) {
		return
	}
	m, ok := s.Member(s.Leader.Name)
	if !ok {
		return
	}
	var optime cluster.LSN
	if s.Status != nil {
		optime = s.Status.Optime
	}
	a.st.story.office(m, optime)
}

// member is the own member key as it should be now.
func (a *Agent) member() cluster.Member {
	n, st := a.node.Load(), &a.st
	m := cluster.Member{
		Name: n.Name, Version: patroniVersion, Tags: n.PublishedTags(), Pause: st.dynamic.Pause,
		ConnURL: "postgres://" + n.Postgres.ConnectAddress + "/" + n.Postgres.Database,
		APIURL:  apiScheme(n) + "://" + n.RESTAPI.ConnectAddress + "/patroni",
		Haven:   &cluster.HavenField{Version: a.opt.Version, Fence: fenceVersion},
	}
	if n.Postgres.ProxyAddress != "" {
		m.ProxyURL = "postgres://" + n.Postgres.ProxyAddress + "/" + n.Postgres.Database
	}
	m.ScheduledRestart = st.orders.planned.document()
	running := ha.None
	if st.task != nil {
		running = st.task.Kind
	}
	shown := a.shown()
	server := a.viewOf(shown)
	m.Haven.Health = server.Health(policy(st.dynamic, n))
	if a.watchdogFailed(n, st.dynamic.TTL) {
		m.Haven.Health = ha.HealthUnguarded
	}
	m.State, m.Role = server.Published(running, st.holder != nil, st.memory.StartFailures)
	if running == ha.Bootstrap && n.Bootstrap != nil && n.Bootstrap.Method.Command != "" {
		m.State = cluster.StateBootstrap
	}
	if running == ha.Clone {
		m.Haven.Progress = a.copied.Load().text()
	}
	if p := shown.probe; p != nil {
		memberPositions(&m, p)
	} else {
		m.Timeline = st.seen.disk.Control.Timeline
	}
	if !st.checkpoint && m.Role == cluster.RolePrimary {
		no := false
		m.CheckpointAfterPromote = &no
	}
	return m
}

func memberPositions(m *cluster.Member, p *postgres.Probe) {
	m.Timeline, m.PendingRestart, m.PendingRestartReason = p.Timeline, p.PendingRestart, p.PendingReason
	if !p.InRecovery {
		m.XlogLocation = p.WalLSN
		return
	}
	m.ReceiveLSN, m.ReplayLSN = p.ReceiveLSN, p.ReplayLSN
	m.XlogLocation = max(p.ReceiveLSN, p.ReplayLSN)
	switch {
	case p.ReceiverStatus == "streaming":
		m.ReplicationState = "streaming"
	case p.Restores:
		m.ReplicationState = "in archive recovery"
	}
}
