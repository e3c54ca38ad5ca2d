package etcd

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/havenha/haven/internal/bootclock"
	"github.com/havenha/haven/internal/dcs"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// leases remembers the TTL of each lease as etcd granted it or last told it.
type leases struct {
	mu  sync.Mutex
	ttl map[int64]time.Duration
}

func newLeases() *leases { return &leases{ttl: map[int64]time.Duration{}} }

func (l *leases) set(id int64, ttl time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ttl[id] = ttl
}

// get returns zero for a lease that is not known.
func (l *leases) get(id int64) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ttl[id]
}

func (l *leases) forget(id int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.ttl, id)
}

// Grant asks for a lease of ttl, in whole seconds rounded up. etcd may grant more: at least one and a half election
// timeouts. A grant whose answer was lost leaves a lease behind that nobody uses and that runs out by itself.
func (c *Client) Grant(ctx context.Context, ttl time.Duration) (dcs.Lease, error) {
	var lease dcs.Lease
	err := c.call(ctx, "grant a lease", func(ctx context.Context, l *link) error {
		began := bootclock.Now()
		seconds := int64((ttl + time.Second - 1) / time.Second)
		resp, err := l.lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: seconds})
		if err != nil {
			return err
		}
		if resp.Error != "" {
			return errors.New(resp.Error)
		}
		lease = dcs.Lease{ID: resp.ID, TTL: time.Duration(resp.TTL) * time.Second, Began: began}
		return nil
	})
	if err != nil {
		return dcs.Lease{}, err
	}
	c.leases.set(lease.ID, lease.TTL)
	return lease, nil
}

// KeepAlive refreshes a lease. Nothing about leadership follows from it.
func (c *Client) KeepAlive(ctx context.Context, lease int64) error {
	return c.call(ctx, "keep the lease alive", func(ctx context.Context, l *link) error {
		resp, err := keepAlive(ctx, l, lease)
		if err != nil {
			return err
		}
		if err := c.fresh.see(resp.Header); err != nil {
			return err
		}
		if resp.TTL <= 0 {
			c.leases.forget(lease)
			return dcs.ErrLeaseGone
		}
		c.leases.set(lease, time.Duration(resp.TTL)*time.Second)
		return nil
	})
}

// keepAlive sends one keepalive on one endpoint. An answer with a TTL of zero means that the lease is unknown there.
func keepAlive(ctx context.Context, l *link, lease int64) (*pb.LeaseKeepAliveResponse, error) {
	// The stream lives as long as its context.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := l.lease.LeaseKeepAlive(ctx)
	if err != nil {
		return nil, err
	}
	// After a failed Send the reason is what Recv returns.
	_ = stream.Send(&pb.LeaseKeepAliveRequest{ID: lease})
	resp, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	if resp.ID != lease {
		return nil, fmt.Errorf("keepalive of lease %x was answered for lease %x", lease, resp.ID)
	}
	return resp, nil
}

// Revoke ends a lease and with it every key on it. One that has ended already is no error.
func (c *Client) Revoke(ctx context.Context, lease int64) error {
	c.leases.forget(lease)
	return c.call(ctx, "revoke the lease", func(ctx context.Context, l *link) error {
		_, err := l.lease.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: lease})
		if errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseNotFound) {
			return nil
		}
		return err
	})
}
