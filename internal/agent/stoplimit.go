package agent

import (
	"context"
	"errors"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// stopLimit is how long the orderly stop of a primary may take: primary_stop_timeout bounds it further where the primary may be
// ended when it has passed, since the candidate has every acknowledged commit (see overran).
func stopLimit(in input, candidate string) time.Duration {
	limit := in.node.Postgres.PgCtlTimeout
	if t := in.dynamic.PrimaryStopTimeout; t > 0 && certain(in.snap.Sync, candidate) {
		limit = min(limit, t)
	}
	return limit
}

// overran ends a primary that did not stop in time, and hands leadership over all the same, if the candidate has every acknowledged
// commit: in the priority mode each recorded standby does. False: it is for the rules of a failed switchover.
func (a *Agent) overran(ctx context.Context, in input, candidate string, why error, e *effects) (bool, error) {
	s := in.snap.Sync
	if ctx.Err() != nil { // the time for all of it is over, not primary_stop_timeout
		return false, nil
	}
	if !errors.Is(why, context.DeadlineExceeded) || in.dynamic.PrimaryStopTimeout == 0 || !certain(s, candidate) {
		return false, nil
	}
	a.log.Warn("the primary did not stop within primary_stop_timeout: ending it", "candidate", candidate)
	if err := a.server.Kill(ctx); err != nil {
		return true, err
	}
	e.note("the primary did not stop in time and was ended; %s has every acknowledged commit", candidate)
	return true, a.giveTo(ctx, in, candidate, nil, e)
}

// certain tells that the member has every commit that was acknowledged.
func certain(s *cluster.Sync, name string) bool {
	return s.Active() && s.Quorum == 0 && s.Has(name)
}
