package etcd

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/havenha/haven/internal/cluster"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// image is what the prefix holds, by the keys' names below it, at one revision.
type image struct {
	header *pb.ResponseHeader
	keys   map[string]*mvccpb.KeyValue
}

// Snapshot reads the whole prefix linearizably.
func (c *Client) Snapshot(ctx context.Context) (cluster.Snapshot, error) {
	var im image
	err := c.call(ctx, "read the cluster's keys", func(ctx context.Context, l *link) (err error) {
		im, err = c.read(ctx, l)
		return err
	})
	if err != nil {
		return cluster.Snapshot{}, err
	}
	c.discover()
	return im.snapshot(), nil
}

// read asks one endpoint, linearizably: etcd's default for a range.
func (c *Client) read(ctx context.Context, l *link) (image, error) {
	resp, err := l.kv.Get(ctx, c.prefix, clientv3.WithPrefix())
	if err != nil {
		return image{}, err
	}
	if err := c.fresh.see(resp.Header); err != nil {
		return image{}, err
	}
	im := image{header: resp.Header, keys: make(map[string]*mvccpb.KeyValue, len(resp.Kvs))}
	for _, kv := range resp.Kvs {
		im.keys[strings.TrimPrefix(string(kv.Key), c.prefix)] = kv
	}
	return im, nil
}

// snapshot decodes all keys anew, so that a reader may keep it.
func (im image) snapshot() cluster.Snapshot {
	s := cluster.Snapshot{
		ClusterID: im.header.GetClusterId(),
		RaftTerm:  im.header.GetRaftTerm(),
		Revision:  im.header.GetRevision(),
	}
	for name, kv := range im.keys {
		if m, ok := memberName(name); ok {
			s.Members = append(s.Members, decodeMember(m, kv.Value, kv.Lease, kv.ModRevision))
		} else if n, ok := eventTerm(name); ok {
			if e, ok := decodeEvent(n, kv.Value); ok {
				s.Events = append(s.Events, e)
			}
		} else {
			decodeSingle(&s, name, kv)
		}
	}
	if kv := im.keys[keyLegacyOptime]; kv != nil && s.Status == nil {
		s.Status = &cluster.Status{Optime: decodeLSN(kv.Value), ModRev: kv.ModRevision}
	}
	slices.SortFunc(s.Members, func(a, b cluster.Member) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(s.Events, func(a, b cluster.Event) int { return cmp.Compare(a.Term, b.Term) })
	return s
}

func decodeSingle(s *cluster.Snapshot, name string, kv *mvccpb.KeyValue) {
	switch name {
	case keyInitialize:
		s.Initialize = &cluster.Initialize{SystemID: string(kv.Value), ModRev: kv.ModRevision}
	case keyConfig:
		s.Config = decodeConfig(kv.Value, kv.ModRevision)
	case keyLeader:
		s.Leader = &cluster.Leader{Name: string(kv.Value), Lease: kv.Lease, CreateRev: kv.CreateRevision, ModRev: kv.ModRevision}
	case keyStatus:
		s.Status = decodeStatus(kv.Value, kv.ModRevision)
	case keyFailover:
		s.Failover = decodeFailover(kv.Value, kv.ModRevision)
	case keySync:
		s.Sync = decodeSync(kv.Value, kv.ModRevision)
	case keyHistory:
		s.History = decodeHistory(kv.Value)
	case keyFailsafe:
		s.Failsafe = decodeFailsafe(kv.Value)
	case keyTerm:
		s.Term = decodeTerm(kv.Value, kv.ModRevision)
	case keyHold:
		s.Hold = decodeHold(kv.Value, kv.ModRevision)
	}
}
