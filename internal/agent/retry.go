package agent

import (
	"context"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// A standby that has got another upstream, or whose upstream has come back, is told to try its stream again for that long, and as often. It is not known when exactly
// PostgreSQL has noticed that the old stream is gone.
const (
	retryFor   = 5 * time.Second
	retryEvery = 300 * time.Millisecond
)

// noticeUpstream looks whether the member that this one streams from has come back. Its key may not tell that it was away: states
// that follow each other quickly are written as one.
func (a *Agent) noticeUpstream(before, now cluster.Snapshot) {
	was, known := before.Member(a.st.upstream)
	is, ok := now.Member(a.st.upstream)
	if ok && is.State == cluster.StateRunning && !(known && was.State == cluster.StateRunning) {
		a.st.retryUntil = time.Now().Add(retryFor)
		a.Wake()
	}
}

// retryStream has the standby not sleep before it tries its stream again, so that commits wait for it no longer than they must. While there
// is a receiver, the standby does not sleep; but that one may come to nothing, too.
func (a *Agent) retryStream(ctx context.Context) {
	st, p, now := &a.st, a.st.seen.probe, time.Now()
	tries := p.InRecovery && p.ReceiverPID != 0
	if st.streamed && !tries {
		st.retryUntil = now.Add(retryFor)
	}
	st.streamed = tries
	upstream, ok := st.snap.Member(st.upstream)
	if !p.InRecovery || tries && p.ReceiverStatus == "streaming" || !ok || upstream.State != cluster.StateRunning || now.After(st.retryUntil) || now.Sub(st.retried) < retryEvery {
		return
	}
	st.retried = now
	a.beside(ctx, func(ctx context.Context) {
		if !tries {
			a.retry(ctx)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryEvery):
			a.Wake()
		}
	})
}

func (a *Agent) retry(ctx context.Context) {
	if err := a.server.RetryStream(ctx); err != nil && ctx.Err() == nil {
		a.log.Info("the standby could not be told to try its stream again", "error", err)
	}
}
