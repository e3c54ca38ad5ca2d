package etcd

import (
	"context"
	"strings"

	"github.com/havenha/haven/internal/dcs"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Write makes a leader's changes in one transaction that compares the leader key, and the keys whose revision is known.
func (c *Client) Write(ctx context.Context, h dcs.Holder, ch dcs.Changes) (dcs.Holder, int64, error) {
	w := leaderWrite{client: c, t: transaction{
		what: "write as leader", compares: []clientv3.Cmp{c.leaderIs(h)}, reads: []string{keyLeader},
	}, expect: map[string]string{}}
	w.plain(ch)
	w.hold(h, ch)
	w.term(h, ch)
	w.sync(ch)
	if err := w.event(ctx, ch); err != nil {
		return h, 0, err
	}
	if w.err != nil {
		return h, 0, wrap(w.t.what, w.err)
	}
	w.t.ours = func(k keys) bool { return k.rev(keyLeader) == h.LeaderRev && w.stands(k) }
	out, err := c.commit(ctx, w.t)
	if err != nil {
		return h, 0, err
	}
	var syncRev int64
	if ch.Sync != nil && !ch.Sync.Delete {
		syncRev = out.revOf(keySync)
	}
	if ch.Term != nil {
		h.TermRev = out.revOf(keyTerm)
	}
	return h, syncRev, nil
}

// leaderWrite gathers the operations of one Write.
type leaderWrite struct {
	client *Client
	t      transaction
	// expect holds the values of the compared keys as the write leaves them; an empty one: absent.
	expect map[string]string
	err    error
}

// encoded writes a value under a name, unless an earlier part has failed.
func (w *leaderWrite) encoded(name string, v string, err error) {
	if err != nil && w.err == nil {
		w.err = err
	}
	w.t.writes = append(w.t.writes, w.client.put(name, v))
}

// compared makes the write of a key depend on its revision, and recognisable afterwards.
func (w *leaderWrite) compared(name string, rev int64, value string) {
	w.t.compares = append(w.t.compares, w.client.modified(name, rev))
	w.t.reads = append(w.t.reads, name)
	w.expect[name] = value
}

func (w *leaderWrite) stands(k keys) bool {
	for name, value := range w.expect {
		if value == "" && k[name] != nil || value != "" && !k.is(name, value) {
			return false
		}
	}
	return true
}

func (w *leaderWrite) plain(ch dcs.Changes) {
	if ch.Status != nil {
		v, err := encode(ch.Status)
		w.encoded(keyStatus, v, err)
	}
	if ch.History != nil {
		v, err := encodeHistory(ch.History)
		w.encoded(keyHistory, v, err)
	}
	if ch.Failsafe != nil {
		v, err := encode(ch.Failsafe)
		w.encoded(keyFailsafe, v, err)
	}
	if ch.Initialize != nil {
		w.encoded(keyInitialize, *ch.Initialize, nil)
	}
	if ch.Config != nil {
		v, err := encodeConfig(ch.Config)
		if err != nil && w.err == nil {
			w.err = err
		}
		c := w.client
		w.t.writes = append(w.t.writes,
			clientv3.OpTxn([]clientv3.Cmp{c.absent(keyConfig)}, []clientv3.Op{c.put(keyConfig, v)}, nil))
	}
}

func (w *leaderWrite) hold(h dcs.Holder, ch dcs.Changes) {
	if ch.Hold == nil {
		return
	}
	if ch.Hold.Seconds == 0 {
		w.t.writes = append(w.t.writes, w.client.remove(keyHold))
		return
	}
	v, err := encode(ch.Hold)
	if err != nil && w.err == nil {
		w.err = err
	}
	w.t.writes = append(w.t.writes, w.client.putLeased(keyHold, v, h.Lease))
}

func (w *leaderWrite) term(h dcs.Holder, ch dcs.Changes) {
	if ch.Term == nil {
		return
	}
	v, err := encode(ch.Term)
	w.compared(keyTerm, h.TermRev, v)
	w.encoded(keyTerm, v, err)
}

func (w *leaderWrite) sync(ch dcs.Changes) {
	s := ch.Sync
	switch {
	case s == nil:
	case s.Delete:
		w.compared(keySync, s.SeenRev, "")
		w.t.writes = append(w.t.writes, w.client.remove(keySync))
	default:
		v, err := encodeSync(s.Sync)
		w.compared(keySync, s.SeenRev, v)
		w.encoded(keySync, v, err)
	}
}

// event writes an event and removes the oldest, so that keepEvents remain.
func (w *leaderWrite) event(ctx context.Context, ch dcs.Changes) error {
	if ch.Event == nil {
		return nil
	}
	c := w.client
	name := eventKey(ch.Event.Term)
	v, err := encode(ch.Event)
	w.encoded(name, v, err)
	var oldest string
	err = c.call(ctx, "list events", func(ctx context.Context, l *link) error {
		resp, err := l.kv.Get(ctx, c.key(keyEvents), clientv3.WithPrefix(), clientv3.WithKeysOnly())
		if err != nil {
			return err
		}
		oldest = ""
		if others := len(resp.Kvs); others >= keepEvents {
			// The new one is the hundredth: of the others, the last ninety-nine stay.
			oldest = strings.TrimPrefix(string(resp.Kvs[others-keepEvents+1].Key), c.prefix)
		}
		return nil
	})
	if err == nil && oldest != "" && oldest <= name {
		w.t.writes = append(w.t.writes, clientv3.OpDelete(c.key(keyEvents), clientv3.WithRange(c.key(oldest))))
	}
	return err
}
