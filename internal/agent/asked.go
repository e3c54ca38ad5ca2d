package agent

import (
	"context"

	"github.com/havenha/haven/internal/bootclock"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
)

// asked is the request for a switchover or failover that was seen last, and when it was seen first.
type asked struct {
	rev int64 // of the key failover
	at  cluster.Instant
}

// lookForRequest begins a look at the server for a request that is new.
func (a *Agent) lookForRequest(ctx context.Context) {
	f := a.st.snap.Failover
	if f == nil || f.ModRev == a.st.asked.rev {
		return
	}
	a.st.asked = asked{rev: f.ModRev, at: bootclock.Now()}
	a.look(ctx)
}

// holdRequest keeps a request from a leader's decision until the server was looked at after the request came: that a
// standby did not stream a loop_wait ago is no ground for refusing it now.
func (a *Agent) holdRequest(v *ha.View) {
	if v.Store.Failover != nil && a.st.holder != nil && a.st.seen.at.Before(a.st.asked.at) {
		v.Store.Failover = nil
	}
}
