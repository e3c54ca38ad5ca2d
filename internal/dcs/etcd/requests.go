package etcd

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/dcs"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// PutMember writes the own member key on the lease, whatever it held.
func (c *Client) PutMember(ctx context.Context, lease int64, m cluster.Member) error {
	const what = "write the member key"
	if _, ok := memberName(keyMembers + m.Name); !ok || lease == 0 {
		return wrap(what, errors.New("a member key needs a name without a slash, and a lease"))
	}
	v, err := encode(m)
	if err != nil {
		return wrap(what, err)
	}
	_, err = c.commit(ctx, transaction{what: what, writes: []clientv3.Op{c.putLeased(keyMembers+m.Name, v, lease)}})
	return err
}

// DeleteMember removes a member key; an absent one is no error.
func (c *Client) DeleteMember(ctx context.Context, name string) error {
	const what = "delete the member key"
	if _, ok := memberName(keyMembers + name); !ok {
		return wrap(what, errors.New("the name is empty or has a slash"))
	}
	_, err := c.commit(ctx, transaction{what: what, writes: []clientv3.Op{c.remove(keyMembers + name)}})
	return err
}

// BeginInitialize creates the key initialize, empty. Nothing in that value tells whose it is: after a try without an
// answer, an existing key is an error that is not dcs.ErrConflict.
func (c *Client) BeginInitialize(ctx context.Context) error {
	_, err := c.commit(ctx, transaction{
		what:     "begin to initialize",
		compares: []clientv3.Cmp{c.absent(keyInitialize)},
		writes:   []clientv3.Op{c.put(keyInitialize, "")},
	})
	return err
}

// CancelInitialize deletes the key initialize while it is empty. An absent key is no error; one that holds a system
// identifier is dcs.ErrConflict.
func (c *Client) CancelInitialize(ctx context.Context) error {
	const what = "cancel the initialization"
	var conflict bool
	err := c.call(ctx, what, func(ctx context.Context, l *link) error {
		resp, err := l.kv.Txn(ctx).
			If(clientv3.Compare(clientv3.Value(c.key(keyInitialize)), "=", "")).
			Then(c.remove(keyInitialize)).Else(clientv3.OpGet(c.key(keyInitialize))).Commit()
		if err != nil {
			return err
		}
		conflict = !resp.Succeeded && c.collect(resp)[keyInitialize] != nil
		return nil
	})
	if err == nil && conflict {
		return wrap(what, dcs.ErrConflict)
	}
	return err
}

// PutFailover writes a request, or clears it by writing {}: the key itself is never removed (dcs-layout, 2).
func (c *Client) PutFailover(ctx context.Context, f cluster.Failover, seenRev int64) error {
	const what = "write the failover request"
	v := "{}"
	if !f.Empty() {
		var err error
		if v, err = encode(f); err != nil {
			return wrap(what, err)
		}
	}
	return c.replace(ctx, what, keyFailover, v, seenRev)
}

// PutConfig replaces the dynamic configuration.
func (c *Client) PutConfig(ctx context.Context, raw json.RawMessage, seenRev int64) error {
	const what = "write the dynamic configuration"
	v, err := encodeConfig(raw)
	if err != nil {
		return wrap(what, err)
	}
	return c.replace(ctx, what, keyConfig, v, seenRev)
}

// replace writes a key that anybody may write; seenRev 0: it must be absent, -1: whatever it is.
func (c *Client) replace(ctx context.Context, what, name, value string, seenRev int64) error {
	t := transaction{
		what:   what,
		writes: []clientv3.Op{c.put(name, value)},
		reads:  []string{name},
		ours:   func(k keys) bool { return k.is(name, value) },
	}
	if seenRev >= 0 {
		t.compares = []clientv3.Cmp{c.modified(name, seenRev)}
	}
	_, err := c.commit(ctx, t)
	return err
}

// RemoveCluster deletes every key of the cluster. Members that run write theirs again.
func (c *Client) RemoveCluster(ctx context.Context) error {
	return c.call(ctx, "remove the cluster", func(ctx context.Context, l *link) error {
		_, err := l.kv.Delete(ctx, c.prefix, clientv3.WithPrefix())
		return err
	})
}
