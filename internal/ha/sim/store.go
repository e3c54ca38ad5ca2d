package sim

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// What a store call may end with; anything but a conflict or an ended lease is unknown.
var (
	errConflict  = errors.New("the store changed meanwhile")
	errLeaseGone = errors.New("the lease has ended")
	errUnknown   = errors.New("the store did not answer in time")
)

// store is etcd as its clients see it: one linearizable map, leases, and times in which nobody is served.
type store struct {
	w         *World
	snap      cluster.Snapshot // replaced by each write, never changed in place
	leases    []*lease         // by id
	ids       int64
	raft      uint64
	electing  int     // elections under way
	noQuorum  int     // reasons why there is no majority
	deposed   []int   // by member: the endpoint that it talks to is a deposed etcd leader
	loseReply int     // so many answers to writes get lost
	rate      float64 // of the etcd leader's clock
}

type lease struct {
	id      int64
	ttl     time.Duration
	expires time.Duration // true time
}

func newStore(w *World, members int) *store {
	return &store{w: w, raft: 2, ids: 100, deposed: make([]int, members), rate: 1 + float64(w.random.below(20001)-10000)/1e6}
}

func (s *store) serves() bool { return s.electing == 0 && s.noQuorum == 0 }

// write makes one transaction.
func (s *store) write(change func(n *cluster.Snapshot, rev int64)) int64 {
	n := s.snap
	n.Revision++
	change(&n, n.Revision)
	s.snap = n
	s.w.storeChanged()
	return n.Revision
}

func (s *store) lease(id int64) *lease {
	for _, l := range s.leases {
		if l.id == id {
			return l
		}
	}
	return nil
}

func (s *store) grant(ttl time.Duration) *lease {
	s.ids++
	l := &lease{id: s.ids, ttl: (ttl + time.Second - 1).Truncate(time.Second)}
	s.leases = append(s.leases, l)
	s.refresh(l)
	s.watchLease(l)
	return l
}

func (s *store) refresh(l *lease) {
	l.expires = s.w.now + time.Duration(float64(l.ttl)*s.rate)
}

// watchLease ends the lease when its time is over, as soon as there is an etcd leader to do so.
func (s *store) watchLease(l *lease) {
	wait := l.expires - s.w.now + s.w.random.between(0, 500*time.Millisecond)
	s.w.after(wait, nil, func() {
		switch {
		case s.lease(l.id) == nil:
		case s.w.now < l.expires:
			s.watchLease(l)
		case !s.serves():
			l.expires = max(l.expires, s.w.now+100*time.Millisecond)
			s.watchLease(l)
		default:
			s.revoke(l.id)
		}
	})
}

func (s *store) revoke(id int64) {
	s.leases = slices.DeleteFunc(s.leases, func(l *lease) bool { return l.id == id })
	if !s.hangs(id) {
		return
	}
	s.w.note("etcd", "lease %d ends", id)
	s.write(func(n *cluster.Snapshot, _ int64) {
		if n.Leader != nil && n.Leader.Lease == id {
			n.Leader = nil
		}
		n.Members = slices.DeleteFunc(slices.Clone(n.Members), func(m cluster.Member) bool { return m.Lease == id })
	})
}

func (s *store) hangs(id int64) bool {
	return s.snap.Leader != nil && s.snap.Leader.Lease == id || slices.ContainsFunc(s.snap.Members, func(m cluster.Member) bool { return m.Lease == id })
}

// elect lets the etcd members choose a new leader: for a while nobody is served, and then all leases begin anew.
func (s *store) elect(lasts time.Duration) {
	s.electing++
	s.w.note("etcd", "election")
	s.w.linksChanged()
	s.w.after(lasts, nil, func() {
		s.electing--
		s.raft++
		for _, l := range s.leases {
			s.refresh(l)
		}
		s.w.linksChanged()
	})
}

// holder is what a leader knows of its own leadership.
type holder struct {
	lease              int64
	leaderRev, termRev int64
}

func (s *store) leaderRev() int64 {
	if s.snap.Leader == nil {
		return 0
	}
	return s.snap.Leader.ModRev
}

func termRev(s cluster.Snapshot) int64 {
	if s.Term == nil {
		return 0
	}
	return s.Term.ModRev
}

func syncRev(s cluster.Snapshot) int64 {
	if s.Sync == nil {
		return 0
	}
	return s.Sync.ModRev
}

// claim takes the leader key where it is absent, with the next term (dcs.Store.Acquire and, with more, Found).
func (s *store) claim(name string, lease, seenTerm int64, t cluster.Term, more func(n *cluster.Snapshot, rev int64)) (holder, error) {
	if s.snap.Leader != nil || termRev(s.snap) != seenTerm {
		return holder{}, errConflict
	}
	if s.lease(lease) == nil {
		return holder{}, errLeaseGone
	}
	rev := s.write(func(n *cluster.Snapshot, rev int64) {
		n.Leader = &cluster.Leader{Name: name, Lease: lease, CreateRev: rev, ModRev: rev}
		t.ModRev = rev
		n.Term = &t
		if more != nil {
			more(n, rev)
		}
	})
	s.w.note("etcd", "%s takes the leader key, term %d", name, t.Number)
	return holder{lease, rev, rev}, nil
}

// claimed tells whether that claim stands, though its answer was lost.
func (s *store) claimed(name string, lease int64, nonce string) (holder, bool) {
	l, t := s.snap.Leader, s.snap.Term
	if l == nil || t == nil || l.Name != name || l.Lease != lease || t.Nonce != nonce || l.ModRev != t.ModRev {
		return holder{}, false
	}
	return holder{lease, l.ModRev, t.ModRev}, true
}

// changes are a leader's writes, as in dcs.Changes.
type changes struct {
	by         string
	optime     cluster.LSN
	history    []cluster.HistoryLine
	initialize string
	config     string
	term       *cluster.Term
	sync       *cluster.Sync
	deleteSync bool
	seenSync   int64
	failsafe   map[string]string
}

func (c changes) touchesSync() bool { return c.sync != nil || c.deleteSync }

// change makes a leader's writes; guarded is false in the model of a shell that forgets the compare.
func (s *store) change(h holder, c changes, guarded bool) (holder, error) {
	switch {
	case !guarded:
	case s.leaderRev() != h.leaderRev, c.term != nil && termRev(s.snap) != h.termRev, c.touchesSync() && syncRev(s.snap) != c.seenSync:
		return h, errConflict
	}
	if c.touchesSync() {
		s.w.writesSync(c.by)
	}
	if c.failsafe != nil {
		s.w.boundary(&task{a: s.w.member("leader").agent, kind: writesList})
		s.w.note("etcd", "/failsafe names %s", strings.Join(slices.Sorted(maps.Keys(c.failsafe)), ", "))
	}
	rev := s.write(func(n *cluster.Snapshot, rev int64) { c.apply(n, rev) })
	if c.deleteSync {
		s.w.history.forget()
	}
	if c.term != nil {
		h.termRev = rev
	}
	return h, nil
}

func (c changes) apply(n *cluster.Snapshot, rev int64) {
	if c.optime != 0 {
		n.Status = &cluster.Status{Optime: c.optime, ModRev: rev}
	}
	if c.failsafe != nil {
		n.Failsafe = c.failsafe
	}
	if c.history != nil {
		n.History = c.history
	}
	if c.initialize != "" {
		n.Initialize = &cluster.Initialize{SystemID: c.initialize, ModRev: rev}
	}
	if c.config != "" && n.Config == nil {
		n.Config = &cluster.Config{Raw: []byte(c.config), ModRev: rev}
	}
	if c.term != nil {
		t := *c.term
		t.ModRev = rev
		n.Term = &t
	}
	if c.deleteSync {
		n.Sync = nil
	} else if c.sync != nil {
		v := *c.sync
		v.ModRev = rev
		n.Sync = &v
	}
}

// changed tells whether that write stands, though its answer was lost.
func (s *store) changed(h holder, c changes) (holder, bool) {
	if s.leaderRev() != h.leaderRev {
		return h, false
	}
	if t := c.term; t != nil {
		if s.snap.Term == nil || s.snap.Term.Nonce != t.Nonce || s.snap.Term.State != t.State {
			return h, false
		}
		h.termRev = s.snap.Term.ModRev
	}
	switch now := s.snap.Sync; {
	case c.deleteSync && now != nil:
		return h, false
	case c.sync != nil && (now == nil || now.Leader != c.sync.Leader || now.Quorum != c.sync.Quorum || !slices.Equal(now.Standbys, c.sync.Standbys)):
		return h, false
	}
	return h, true
}

func (s *store) release(h holder, optime cluster.LSN) error {
	if s.leaderRev() != h.leaderRev {
		return errConflict
	}
	s.w.note("etcd", "leader key released")
	s.write(func(n *cluster.Snapshot, rev int64) {
		changes{optime: optime}.apply(n, rev)
		n.Leader = nil
	})
	return nil
}

// handover gives the leader key to another member whose member key still hangs on that lease.
type handover struct {
	to          string
	lease       int64
	term        cluster.Term
	optime      cluster.LSN
	failoverRev int64
}

func (s *store) handOver(h holder, o handover) error {
	m, ok := s.snap.Member(o.to)
	f := s.snap.Failover
	switch {
	case s.leaderRev() != h.leaderRev, termRev(s.snap) != h.termRev, !ok || m.Lease != o.lease:
		return errConflict
	case o.failoverRev != 0 && (f == nil || f.ModRev != o.failoverRev):
		return errConflict
	}
	s.w.note("etcd", "leadership goes to %s, term %d", o.to, o.term.Number)
	s.write(func(n *cluster.Snapshot, rev int64) {
		changes{optime: o.optime, term: &o.term}.apply(n, rev)
		n.Leader = &cluster.Leader{Name: o.to, Lease: o.lease, CreateRev: n.Leader.CreateRev, ModRev: rev}
		if o.failoverRev != 0 {
			n.Failover = &cluster.Failover{ModRev: rev}
		}
	})
	return nil
}

func (s *store) putMember(id int64, m cluster.Member) error {
	if s.lease(id) == nil {
		return errLeaseGone
	}
	s.write(func(n *cluster.Snapshot, rev int64) {
		m.Lease, m.ModRev = id, rev
		list := slices.Clone(n.Members)
		i, ok := slices.BinarySearchFunc(list, m.Name, func(a cluster.Member, name string) int {
			return compareNames(a.Name, name)
		})
		if ok {
			list[i] = m
		} else {
			list = slices.Insert(list, i, m)
		}
		n.Members = list
	})
	return nil
}

func compareNames(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (s *store) putFailover(f cluster.Failover, seen int64) error {
	if now := s.snap.Failover; seen >= 0 && (now == nil && seen != 0 || now != nil && now.ModRev != seen) {
		return errConflict
	}
	s.write(func(n *cluster.Snapshot, rev int64) {
		f.ModRev = rev
		n.Failover = &f
	})
	return nil
}

// putPolicy makes one of the world's policies the dynamic configuration.
func (s *store) putPolicy(number int) {
	s.w.note("operator", "configuration %s", s.w.describe(s.w.policies[number]))
	s.write(func(n *cluster.Snapshot, rev int64) {
		n.Config = &cluster.Config{Raw: []byte(strconv.Itoa(number)), ModRev: rev}
	})
}

func (s *store) beginInitialize() error {
	if s.snap.Initialize != nil {
		return errConflict
	}
	s.write(func(n *cluster.Snapshot, rev int64) { n.Initialize = &cluster.Initialize{ModRev: rev} })
	return nil
}

func (s *store) cancelInitialize() error {
	i := s.snap.Initialize
	if i == nil {
		return nil
	}
	if i.SystemID != "" {
		return errConflict
	}
	s.write(func(n *cluster.Snapshot, _ int64) { n.Initialize = nil })
	return nil
}

func describeSync(s *cluster.Sync) string {
	if s == nil {
		return "-"
	}
	return fmt.Sprintf("%s:%v/%d", s.Leader, s.Standbys, s.Quorum)
}
