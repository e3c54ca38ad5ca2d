package pooled

import (
	"cmp"
	"math/bits"
	"slices"
	"sync/atomic"
	"time"
)

// buckets of a histogram double, from 64 µs on.
const buckets = 20

// Histogram counts durations.
type Histogram struct {
	// Counts[i] is of those below Bound(i), and not below Bound(i-1); the last has no bound.
	Counts [buckets]uint64
	Sum    time.Duration
}

// Bound is the upper end of a bucket.
func Bound(i int) time.Duration { return 64 * time.Microsecond << i }

// Plus is the sum of two.
func (h Histogram) Plus(other Histogram) Histogram {
	for i, n := range other.Counts {
		h.Counts[i] += n
	}
	h.Sum += other.Sum
	return h
}

type histogram struct {
	counts [buckets]atomic.Uint64
	sum    atomic.Int64
}

func (h *histogram) observe(d time.Duration) {
	i := min(bits.Len64(uint64(max(d, 0)/(64*time.Microsecond))), buckets-1)
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}

func (h *histogram) snapshot() (out Histogram) {
	for i := range h.counts {
		out.Counts[i] = h.counts[i].Load()
	}
	out.Sum = time.Duration(h.sum.Load())
	return out
}

// counters are what a lane counts.
type counters struct {
	lendings histogram
	waits    histogram
	past     Traffic // of connections that have ended; guarded by the door
}

// Traffic is what has gone through server connections: bytes from clients and to them, and ReadyForQuery, which ends a statement or a batch of
// them.
type Traffic struct{ Sent, Received, Turns uint64 }

func (t *Traffic) add(o Traffic) {
	t.Sent, t.Received, t.Turns = t.Sent+o.Sent, t.Received+o.Received, t.Turns+o.Turns
}

// traffic is what has gone through this one. The server is locked, or has ended.
func (s *server) traffic() Traffic {
	return Traffic{uint64(s.sent.Load()), uint64(s.received.Load()), s.turns}
}

// Stats is one pool in numbers, in the words of PgBouncer's SHOW POOLS.
type Stats struct {
	Database, User, Mode                     string
	ClientsActive, ClientsWaiting            int
	ServersActive, ServersIdle, ServersLogin int
	ServersClosing                           int
	MaxWait                                  time.Duration
	PoolSize, MaxDBConnections               int
	Lendings, Waits                          Histogram // transactions (or sessions) from the lending of a server to its return; waits for one
	Traffic
	Clients                                    int // logged in
	Testing                                    int // server connections that run a statement of our own
	OpenTransactions, IdleTransactions         int
	LongestTransaction, LongestIdleTransaction time.Duration
	Long                                       []OpenTransaction
}

// OpenTransaction is one that has been open for a second or more.
type OpenTransaction struct {
	Client, Application, Server string
	PID                         uint32 // of the server's process; 0: it is not known
	Open, Silent                time.Duration
}

// long is how old an OpenTransaction is at least.
const long = time.Second

// Totals are, since the door was made, how many waits for a server connection have ended, how many of them by hold_timeout, and how many clients were too many.
func (d *Door) Totals() (waited, timeouts, rejected uint64) {
	return d.waited.Load(), d.timeouts.Load(), d.rejected.Load()
}

// Snapshot are the pools of now, sorted.
func (d *Door) Snapshot() []Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	by := map[*lane]*Stats{}
	for _, l := range d.lanes {
		c := l.pool.Counts(now)
		by[l] = &Stats{
			Database: l.key.Database, User: l.key.User, Mode: d.opt.Mode, ClientsWaiting: c.Waiting, ServersActive: c.Lent, ServersIdle: c.Idle,
			ServersLogin: c.Opening, ServersClosing: c.Closing, MaxWait: c.OldestWait, PoolSize: l.set.Load().DefaultPoolSize,
			MaxDBConnections: l.set.Load().MaxDBConnections, Lendings: l.counted.lendings.snapshot(), Waits: l.counted.waits.snapshot(),
			Traffic: l.counted.past,
		}
	}
	for _, c := range d.clients {
		by[c.lane].Clients++
	}
	for s := range d.servers {
		s.measure(by[s.lane], now)
	}
	var out []Stats
	for _, s := range by {
		s.ClientsActive = max(0, s.Clients-s.ClientsWaiting)
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b Stats) int {
		return cmp.Or(cmp.Compare(a.Database, b.Database), cmp.Compare(a.User, b.User))
	})
	return out
}

// measure adds what a server connection has done, and does at the moment.
func (s *server) measure(to *Stats, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	to.Traffic.add(s.traffic())
	if s.task != nil {
		to.Testing++
	}
	if s.client == nil || s.x.Edge() {
		return
	}
	s.look(now)
	t := OpenTransaction{
		Client: s.client.conn.RemoteAddr().String(), Application: s.door.tracked.value(s.client.params, nameless), Server: s.seat.Server(),
		Open: max(0, now.Sub(s.looked.open)), // another one may have looked since
	}
	if s.key != nil {
		t.PID = s.key.PID
	}
	to.OpenTransactions++
	to.LongestTransaction = max(to.LongestTransaction, t.Open)
	if s.looked.pauses {
		t.Silent = max(0, now.Sub(s.looked.since))
		to.IdleTransactions++
		to.LongestIdleTransaction = max(to.LongestIdleTransaction, t.Silent)
	}
	if t.Open >= long {
		to.Long = append(to.Long, t)
	}
}
