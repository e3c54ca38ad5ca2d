package etcd

import (
	"fmt"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// epoch is under which leadership of which etcd cluster an answer was given.
type epoch struct {
	cluster, term uint64
}

func epochOf(h *pb.ResponseHeader) epoch {
	return epoch{cluster: h.GetClusterId(), term: h.GetRaftTerm()}
}

// freshness remembers the highest raft term seen of each etcd cluster. A member that answers with a lower one has not
// heard of the newest election: what it says is old.
type freshness struct {
	mu      sync.Mutex
	highest map[uint64]uint64
}

func newFreshness() *freshness { return &freshness{highest: map[uint64]uint64{}} }

// see returns errStale if the answer is from an older raft term than one seen before.
func (f *freshness) see(h *pb.ResponseHeader) error {
	e := epochOf(h)
	f.mu.Lock()
	defer f.mu.Unlock()
	if was := f.highest[e.cluster]; e.term < was {
		return fmt.Errorf("%w: it answers from raft term %d, term %d was seen", errStale, e.term, was)
	}
	f.highest[e.cluster] = e.term
	return nil
}
