package app

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/havenha/haven/internal/api"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/dcs"
	"github.com/havenha/haven/internal/disk"
	"github.com/havenha/haven/internal/proxy"
)

// onlooker is the REST API's source on a node without a store, whose proxy alone learns the cluster, from members' REST APIs.
type onlooker struct {
	opt   Options
	disk  *disk.Watch
	proxy *proxy.Proxy
}

// Status knows no keys; what its proxy learns counts as having seen them.
func (o onlooker) Status() api.Local {
	l := api.Local{
		Name: o.opt.Node.Name, Scope: o.opt.Node.Scope, Version: o.opt.Version, LastTurn: time.Now(),
		Problems: o.disk.Problems(), Samples: diskSamples(o.disk.Report()),
	}
	switch s := o.proxy.Snapshot(); {
	case s.Store.Known:
		l.SeenAt = s.At
	case s.Leader.State != proxy.NotSeen:
		l.SeenAt = s.Store.Since
	}
	return l
}

// Fresh is Status: there is no server to ask.
func (o onlooker) Fresh(context.Context) api.Local { return o.Status() }

// errNoStore is the error of whatever needs the cluster's keys.
var errNoStore = errors.New("this node has no etcd, since its proxy asks REST APIs (proxy.discover: rest): ask a member")

// noStore stands for the keys on a node without a store.
type noStore struct{}

// Snapshot fails.
func (noStore) Snapshot(context.Context) (cluster.Snapshot, error) {
	return cluster.Snapshot{}, errNoStore
}

// Watch delivers the error, once.
func (noStore) Watch(ctx context.Context) <-chan dcs.Update {
	out := make(chan dcs.Update, 1)
	out <- dcs.Update{Err: errNoStore}
	context.AfterFunc(ctx, func() { close(out) })
	return out
}

// PutFailover fails.
func (noStore) PutFailover(context.Context, cluster.Failover, int64) error { return errNoStore }

// PutConfig fails.
func (noStore) PutConfig(context.Context, json.RawMessage, int64) error { return errNoStore }

// keys are the cluster's keys.
func (n *Node) keys() api.Store {
	if n.store == nil {
		return noStore{}
	}
	return n.store
}
