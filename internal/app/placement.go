package app

import (
	"context"
	"time"
)

// placementEvery is how often the placement of the two leaderships is looked at.
const placementEvery = 2 * time.Second

// keepApart moves etcd's leadership away from the member that leads PostgreSQL. Lost together, the delays add up: a new
// etcd leader restarts every lease at its full time to live before the key of the lost primary can end.
func (n *Node) keepApart(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(placementEvery):
		}
		if !n.agent.Status().Leads() || !n.etcd.IsLeader() {
			continue
		}
		bounded, cancel := context.WithTimeout(ctx, placementEvery)
		if err := n.etcd.MoveLeader(bounded); err != nil {
			n.log.Debug("etcd's leadership could not be moved to another member", "error", err)
		}
		cancel()
	}
}
