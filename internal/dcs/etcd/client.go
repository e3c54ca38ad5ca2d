package etcd

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/havenha/haven/internal/dcs"
)

// How long one try of an ordinary call may take: its share of the whole time, within these bounds.
const (
	shortestTry = time.Second
	longestTry  = 2 * time.Second
)

// How long is waited after a round over all endpoints without success: doubled each time, up to the longest.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = time.Second
)

// Client is a dcs.Store on etcd v3, for one cluster's prefix. It is safe for use by several goroutines.
type Client struct {
	opt    Options
	prefix string

	// Renewals have connections of their own, so that a large answer or a slow call never delays them.
	calls, renewals *pool
	fresh           *freshness
	leases          *leases
	proof           lastProof
	discovery       timetable // of the member list
	records         timetable // of the SRV records

	ctx    context.Context
	cancel context.CancelFunc
	owned  sync.WaitGroup
}

var _ dcs.Store = (*Client)(nil)

// Open makes a client. It connects only when it is used, so an etcd that cannot be reached is not an error here; use
// Ping to see whether it can.
func Open(o Options) (*Client, error) {
	o, err := o.normalised()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := &Client{opt: o, prefix: prefix(o.Namespace, o.Scope), fresh: newFreshness(), leases: newLeases(), ctx: ctx, cancel: cancel}
	c.calls, c.renewals = newPool(&c.opt), newPool(&c.opt)
	return c, nil
}

// Close ends all watches and calls and waits for them. Leases are left to run out.
func (c *Client) Close() error {
	c.cancel()
	c.owned.Wait()
	c.calls.close()
	c.renewals.close()
	return nil
}

// call runs fn on the endpoints in turn until one answers, within ctx and RetryTimeout.
func (c *Client) call(ctx context.Context, what string, fn func(context.Context, *link) error) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	began := time.Now()
	failed := &Unreachable{}
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		nodes, err := c.nodes(ctx, c.calls)
		if err != nil {
			failed.note(c.source(), err)
		}
		for _, n := range nodes {
			err := c.try(ctx, n, c.tryTime(len(nodes)), fn)
			if err == nil || final(err) {
				c.calls.good(n)
				return wrap(what, err)
			}
			c.calls.bad(n)
			failed.note(n.endpoint, err)
			if ctx.Err() != nil {
				break
			}
		}
		if !sleep(ctx, pause) {
			failed.Within = time.Since(began)
			return wrap(what, c.ended(ctx, failed))
		}
	}
}

// ended is the error of a call whose time is over.
func (c *Client) ended(ctx context.Context, failed *Unreachable) error {
	switch {
	case c.ctx.Err() != nil:
		return errClosed
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	}
	return failed
}

// bound gives ctx the limits of one call: RetryTimeout, and the client's own end.
func (c *Client) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, c.opt.RetryTimeout)
	stop := context.AfterFunc(c.ctx, cancel)
	return ctx, func() { stop(); cancel() }
}

func (c *Client) try(ctx context.Context, n *node, limit time.Duration, fn func(context.Context, *link) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	l, err := n.open()
	if err != nil {
		return translate(err)
	}
	return translate(fn(ctx, l))
}

func (c *Client) tryTime(endpoints int) time.Duration {
	share := c.opt.RetryTimeout / time.Duration(endpoints)
	return min(max(share, shortestTry), longestTry)
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("etcd: %s: %w", what, err)
}

// sleep waits about d, or until ctx ends; it tells whether it was the former.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d/2 + rand.N(d))
	defer t.Stop()
	select {
	case <-t.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
