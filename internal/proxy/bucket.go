package proxy

import "time"

// storm is how long after a change of leader new connections are bounded. Later ones are the ordinary load, which is
// not the proxy's to bound.
const storm = 30 * time.Second

// bucket is a token bucket that hands out turns in order: a burst of a tenth of a second's worth (at least 10) at once,
// the others evenly afterwards.
type bucket struct {
	gap   time.Duration // between two turns
	free  time.Time     // when the bucket, emptied by those who have a turn, would be full again
	burst time.Duration // what a full bucket holds, as time
	until time.Time
}

// newBucket makes a full bucket for rate turns a second.
func newBucket(rate int, now time.Time) *bucket {
	gap := time.Second / time.Duration(rate)
	return &bucket{gap: gap, free: now, burst: gap * time.Duration(max(10, rate/10)), until: now.Add(storm)}
}

// turn takes the next turn and says how long it is until then.
func (b *bucket) turn(now time.Time) time.Duration {
	if b == nil || now.After(b.until) {
		return 0
	}
	if b.free.Before(now) {
		b.free = now
	}
	b.free = b.free.Add(b.gap)
	return max(0, b.free.Sub(now)-b.burst)
}
