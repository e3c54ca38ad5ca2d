package sim

import (
	"errors"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
)

// bootstrapSteps make the cluster's first database.
func (a *agent) bootstrapSteps(t *task) []step {
	return []step{reserve, initdb, launch, found, proveNew, afterwards}
}

// undoSteps clear away what a bootstrap has made that failed after its reservation.
func undoSteps() []step {
	return []step{killAll, func(t *task) {
		m := t.a.m
		t.e.started = nil
		if m.data.kind == ha.DiskData {
			t.a.w.destroys(t, nil)
			*m.data = data{kind: ha.DiskEmpty, upstream: -1}
		}
		t.next(nil)
	}, func(t *task) {
		resume := t.answer()
		t.a.call(operation{try: func(s *store) error { return s.cancelInitialize() }}, func(err error) {
			if errors.Is(err, errConflict) {
				err = nil
			}
			resume(err)
		})
	}}
}

// mayBeFounded tells whether the store may know of the new cluster, so that what was made is its only data.
func (t *task) mayBeFounded(err error) bool {
	return t.asked && (t.holder != nil || !errors.Is(err, errConflict))
}

func reserve(t *task) {
	resume := t.answer()
	t.a.call(operation{try: func(s *store) error { return s.beginInitialize() }}, func(err error) {
		if err != nil {
			err = errNotReserved
		}
		resume(err)
	})
}

func initdb(t *task) {
	m := t.a.m
	*m.data = data{kind: ha.DiskUnfinished, upstream: -1}
	resume := t.answer()
	t.a.after(t.a.w.random.between(200*time.Millisecond, time.Second), func() {
		m.w.systems++
		*m.data = data{kind: ha.DiskData, system: systemID(m.w.systems), tl: 1, controlTL: 1, state: shutDown, founding: true, upstream: -1}
		m.data.append(m.w)
		resume(nil)
	})
}

func found(t *task) {
	a, m := t.a, t.a.m
	w := a.w
	t.asked = true
	term := t.nextTerm(m.name, cluster.FenceBootstrap)
	term.State, term.Timeline = cluster.TermPromoted, 1
	var h holder
	system := m.data.system
	more := func(n *cluster.Snapshot, rev int64) {
		n.Initialize = &cluster.Initialize{SystemID: system, ModRev: rev}
		if n.Config == nil {
			n.Config = &cluster.Config{Raw: []byte("0"), ModRev: rev}
		}
		if w.policies[0].Sync != ha.SyncOff {
			n.Sync = &cluster.Sync{Leader: m.name, ModRev: rev}
		}
	}
	t.ask(operation{
		try: func(s *store) (err error) {
			if i := s.snap.Initialize; i == nil || i.SystemID != "" || w.policies[0].Sync != ha.SyncOff && s.snap.Sync != nil {
				return errConflict
			}
			h, err = s.claim(m.name, t.leaseID, termRev(t.snap), term, more)
			return err
		},
		ours: func(s *store) (ok bool) { h, ok = s.claimed(m.name, t.leaseID, term.Nonce); return ok },
	}, false, func(err error) {
		if err == nil {
			t.holder, t.e.led = &h, &h
		}
	})
}
