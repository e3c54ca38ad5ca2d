package proxy

import (
	"context"
	"time"
)

// storm is how long after a change of leader new connections are bounded. Later ones are the ordinary load, which is
// not the proxy's to bound.
const storm = 30 * time.Second

// bucket is a token bucket that hands out turns in order: a burst of a tenth of a second's worth (at least 10) at once,
// the others evenly afterwards. A turn is taken when it has come and not before, so those who leave or give up while they
// wait take none from those behind them.
type bucket struct {
	first chan struct{} // has room for whoever is next; those who wait for it get it in order
	gap   time.Duration // between two turns
	free  time.Time     // when the bucket would be full again; belongs to whoever is next
	burst time.Duration // what a full bucket holds, as time
	until time.Time
}

// newBucket makes a full bucket for rate turns a second.
func newBucket(rate int, now time.Time) *bucket {
	gap := time.Second / time.Duration(rate)
	return &bucket{first: make(chan struct{}, 1), gap: gap, free: now, burst: gap * time.Duration(max(10, rate/10)), until: now.Add(storm)}
}

// take takes a turn, if one has come and nobody waits for it.
func (b *bucket) take(now time.Time) bool {
	if b == nil || now.After(b.until) {
		return true
	}
	select {
	case b.first <- struct{}{}:
	default:
		return false
	}
	defer b.next()
	if b.due(now) > 0 {
		return false
	}
	b.spend(now)
	return true
}

// await takes a turn when it comes, unless ctx ends before. When it has come, look may still end ctx.
func (b *bucket) await(ctx context.Context, look func()) {
	select {
	case b.first <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer b.next()
	sleep(ctx, b.due(time.Now()))
	look()
	if ctx.Err() == nil {
		b.spend(time.Now())
	}
}

// due is how long it is until the next turn.
func (b *bucket) due(now time.Time) time.Duration {
	return max(0, b.free.Sub(now)+b.gap-b.burst)
}

func (b *bucket) spend(now time.Time) {
	if b.free.Before(now) {
		b.free = now
	}
	b.free = b.free.Add(b.gap)
}

func (b *bucket) next() { <-b.first }
