package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/havenha/haven/internal/dcs"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// transaction is one guarded write. It may be sent again while its outcome is unknown: what changes who leads, the term or /sync makes its
// own compares fail, and then the keys tell whether it was our own earlier try that changed them, in this call or in one before. What else a
// leader writes (status, history) may be made twice, and the earlier try then stands as long as until the next.
type transaction struct {
	what     string
	compares []clientv3.Cmp
	writes   []clientv3.Op
	// reads are keys that are read where a compare fails, for ours.
	reads []string
	// ours tells whether the keys are as this transaction leaves them, so that an earlier try has written them. Nil: that cannot be told.
	ours func(keys) bool
}

// keys is what was read, by name below the prefix; absent keys are missing.
type keys map[string]*mvccpb.KeyValue

func (k keys) is(name, value string) bool { return k[name] != nil && string(k[name].Value) == value }

// rev is the modification revision of a key; zero if it is absent.
func (k keys) rev(name string) int64 {
	if k[name] == nil {
		return 0
	}
	return k[name].ModRevision
}

// outcome is a transaction that was made.
type outcome struct {
	// rev is its revision; zero if it was found by reading it back.
	rev  int64
	read keys
}

// revOf is the revision of a key that the transaction wrote.
func (o outcome) revOf(name string) int64 {
	if o.rev != 0 {
		return o.rev
	}
	return o.read.rev(name)
}

// commit makes a transaction, or returns dcs.ErrConflict if a compare failed.
func (c *Client) commit(ctx context.Context, t transaction) (outcome, error) {
	var out outcome
	unsure := false
	err := c.call(ctx, t.what, func(ctx context.Context, l *link) error {
		resp, err := l.kv.Txn(ctx).If(t.compares...).Then(t.writes...).Else(c.gets(t.reads)...).Commit()
		if err != nil {
			unsure = unsure || !unsent(translate(err))
			return err
		}
		if resp.Succeeded {
			out = outcome{rev: resp.Header.Revision}
			return nil
		}
		if out = (outcome{read: c.collect(resp)}); t.ours != nil && t.ours(out.read) {
			return nil
		}
		if unsure && t.ours == nil {
			return errUncertain
		}
		return dcs.ErrConflict
	})
	switch {
	case err == nil:
		return out, nil
	case unsure && !errors.Is(err, dcs.ErrConflict):
		return outcome{}, fmt.Errorf("%w: %w", dcs.ErrUnknown, err)
	}
	return outcome{}, err
}

func (c *Client) gets(names []string) []clientv3.Op {
	var ops []clientv3.Op
	for _, n := range names {
		ops = append(ops, clientv3.OpGet(c.key(n)))
	}
	return ops
}

func (c *Client) collect(resp *clientv3.TxnResponse) keys {
	found := keys{}
	for _, r := range resp.Responses {
		for _, kv := range r.GetResponseRange().GetKvs() {
			found[strings.TrimPrefix(string(kv.Key), c.prefix)] = kv
		}
	}
	return found
}

// leaderIs compares the leader key's modification revision: any write to it, by anybody, changes that.
func (c *Client) leaderIs(h dcs.Holder) clientv3.Cmp { return c.modified(keyLeader, h.LeaderRev) }

// modified compares a key's modification revision; zero means absent.
func (c *Client) modified(name string, rev int64) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(c.key(name)), "=", rev)
}

func (c *Client) absent(name string) clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(c.key(name)), "=", 0)
}

func (c *Client) put(name, value string) clientv3.Op { return clientv3.OpPut(c.key(name), value) }

func (c *Client) putLeased(name, value string, lease int64) clientv3.Op {
	return clientv3.OpPut(c.key(name), value, clientv3.WithLease(clientv3.LeaseID(lease)))
}

func (c *Client) remove(name string) clientv3.Op { return clientv3.OpDelete(c.key(name)) }
