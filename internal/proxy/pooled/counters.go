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
}

func (c *counters) done(began time.Time) { c.lendings.observe(time.Since(began)) }

// Stats is one pool in numbers, in the words of PgBouncer's SHOW POOLS.
type Stats struct {
	Database, User, Mode                       string
	ClientsActive, ClientsWaiting              int
	ServersActive, ServersIdle, ServersLogin   int
	ServersClosing                             int
	MaxWait                                    time.Duration
	PoolSize                                   int
	Lendings, Waits                            Histogram // transactions (or sessions) from the request of a server to its return; waits for one
	Clients                                    int       // logged in
	OpenTransactions, IdleTransactions         int
	LongestTransaction, LongestIdleTransaction time.Duration
}

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
			Lendings: l.counted.lendings.snapshot(), Waits: l.counted.waits.snapshot(),
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

// measure adds what a server connection does at the moment.
func (s *server) measure(to *Stats, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.client == nil || s.x.Edge() {
		return
	}
	took := now.Sub(s.client.began)
	to.OpenTransactions++
	to.LongestTransaction = max(to.LongestTransaction, took)
	if !s.x.Owes() {
		to.IdleTransactions++
		to.LongestIdleTransaction = max(to.LongestIdleTransaction, took)
	}
}
