package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/havenha/haven/internal/bootclock"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/dcs"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// shortestRenewal is the least that one try of a renewal may take: an fsync and two round trips on a busy host.
	shortestRenewal = 200 * time.Millisecond
	// unknownTTL stands for the TTL of a lease that this process has neither been granted nor refreshed.
	unknownTTL = 10 * time.Second
	// renewalPause is waited after a round over all endpoints: an etcd election takes about a second.
	renewalPause = 50 * time.Millisecond
)

// lastProof is the epoch of the newest linearizable answer to a renewal.
type lastProof struct {
	mu sync.Mutex
	epoch
}

func (p *lastProof) get() epoch {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.epoch
}

func (p *lastProof) set(e epoch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.epoch = e
}

// Renew proves leadership, trying the endpoints in turn until one proves it, ctx or RetryTimeout ends. One try lasts at
// most a tenth of the lease, and at least 200 ms; after one that took so long, the next may take twice as long, up to a third of the
// lease: a store that is slow has to be waited for longer, or it would never prove anything.
//
// A deposed etcd leader was seen to answer keepalives after a freeze, with the raft term from before it (etcd 3.4.23).
// So the keepalive counts only if the transactions before and after it, which go through a quorum, and the keepalive
// itself carry one raft term: then no other etcd leader can have ended the lease in between.
func (c *Client) Renew(ctx context.Context, h dcs.Holder) (dcs.Renewal, error) {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	began := time.Now()
	failed := &Unreachable{}
	limit, longest := c.renewalTime(h.Lease)
	for {
		nodes, err := c.nodes(ctx, c.renewals)
		if err != nil {
			failed.note(c.source(), err)
		}
		for _, n := range nodes {
			var r dcs.Renewal
			tried := time.Now()
			err := c.try(ctx, n, limit, func(ctx context.Context, l *link) (err error) {
				r, err = c.renewOn(ctx, l, h)
				return err
			})
			if err == nil || final(err) {
				c.renewals.good(n)
				return r, wrap("renew leadership", err)
			}
			c.renewals.bad(n)
			if time.Since(tried) >= limit { // it was slow, and did not refuse
				limit = min(2*limit, longest)
			}
			failed.note(n.endpoint, err)
			if ctx.Err() != nil {
				break
			}
		}
		if !sleep(ctx, renewalPause) {
			failed.Within = time.Since(began)
			return dcs.Renewal{}, wrap("renew leadership", c.ended(ctx, failed))
		}
	}
}

// renewalTime is how long one try may take, at first and at most.
func (c *Client) renewalTime(lease int64) (first, longest time.Duration) {
	ttl := c.leases.get(lease)
	if ttl == 0 {
		ttl = unknownTTL
	}
	first = max(ttl/10, shortestRenewal)
	return first, max(ttl/3, first)
}

// renewOn is one try on one endpoint.
func (c *Client) renewOn(ctx context.Context, l *link, h dcs.Holder) (dcs.Renewal, error) {
	before := c.proof.get()
	if before == (epoch{}) {
		e, err := c.confirm(ctx, l, h)
		if err != nil {
			return dcs.Renewal{}, err
		}
		before = e
	}
	began := bootclock.Now()
	alive, err := keepAlive(ctx, l, h.Lease)
	if err != nil && !errors.Is(translate(err), dcs.ErrLeaseGone) {
		return dcs.Renewal{}, err
	}
	after, confirmErr := c.confirm(ctx, l, h)
	if confirmErr != nil {
		return dcs.Renewal{}, confirmErr
	}
	if err != nil || alive.TTL <= 0 {
		// The leader key still stands on the lease, yet the lease is said to have ended: it is about to vanish.
		return dcs.Renewal{}, dcs.ErrLeaseGone
	}
	during := epochOf(alive.Header)
	if before != during || during != after {
		return dcs.Renewal{}, fmt.Errorf("etcd's leader changed during the renewal (cluster and raft term %x/%d, %x/%d, %x/%d)",
			before.cluster, before.term, during.cluster, during.term, after.cluster, after.term)
	}
	return c.renewed(h.Lease, began, time.Duration(alive.TTL)*time.Second), nil
}

func (c *Client) renewed(lease int64, began cluster.Instant, ttl time.Duration) dcs.Renewal {
	c.leases.set(lease, ttl)
	return dcs.Renewal{Began: began, TTL: ttl}
}

// confirm compares the leader key and the term, linearizably, and writes nothing. Both branches read the leader key:
// etcd takes a transaction without a linearizable range for a serializable one and answers it from its own memory.
func (c *Client) confirm(ctx context.Context, l *link, h dcs.Holder) (epoch, error) {
	read := clientv3.OpGet(c.key(keyLeader))
	resp, err := l.kv.Txn(ctx).
		If(c.leaderIs(h), clientv3.Compare(clientv3.LeaseValue(c.key(keyLeader)), "=", h.Lease), c.modified(keyTerm, h.TermRev)).
		Then(read).Else(read).Commit()
	if err != nil {
		return epoch{}, err
	}
	if err := c.fresh.see(resp.Header); err != nil {
		return epoch{}, err
	}
	if !resp.Succeeded {
		c.proof.set(epoch{})
		return epoch{}, dcs.ErrConflict
	}
	e := epochOf(resp.Header)
	c.proof.set(e)
	return e, nil
}
