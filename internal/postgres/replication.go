package postgres

import (
	"context"
	"fmt"
	"strconv"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/postgres/session"
	"github.com/havenha/haven/internal/postgres/wal"
)

// Identify asks the upstream who it is (IDENTIFY_SYSTEM): its system identifier, its timeline and its flush position (of
// a standby: what it has replayed or received).
func (i *Instance) Identify(ctx context.Context, up Upstream) (sysid string, tl cluster.Timeline, lsn cluster.LSN, err error) {
	rows, err := i.askUpstream(ctx, up, "IDENTIFY_SYSTEM")
	if err != nil {
		return "", 0, 0, fmt.Errorf("identify %s: %w", up.Address(), err)
	}
	if len(rows) != 1 || len(rows[0]) < 3 {
		return "", 0, 0, fmt.Errorf("identify %s: the answer cannot be understood", up.Address())
	}
	n, err := strconv.ParseUint(rows[0][1], 10, 32)
	if err != nil {
		return "", 0, 0, fmt.Errorf("identify %s: timeline %q: %w", up.Address(), rows[0][1], err)
	}
	lsn, err = cluster.ParseLSN(rows[0][2])
	return rows[0][0], cluster.Timeline(n), lsn, err
}

// TimelineHistory asks the upstream for the history of its timeline tl; timeline 1 has none.
func (i *Instance) TimelineHistory(ctx context.Context, up Upstream, tl cluster.Timeline) ([]cluster.HistoryLine, error) {
	if tl <= 1 {
		return nil, nil
	}
	rows, err := i.askUpstream(ctx, up, fmt.Sprintf("TIMELINE_HISTORY %d", tl))
	if err != nil {
		return nil, fmt.Errorf("history of timeline %d from %s: %w", tl, up.Address(), err)
	}
	if len(rows) != 1 || len(rows[0]) < 2 {
		return nil, fmt.Errorf("history of timeline %d from %s: the answer cannot be understood", tl, up.Address())
	}
	return wal.ParseHistory(rows[0][1])
}

func (i *Instance) askUpstream(ctx context.Context, up Upstream, command string) ([][]string, error) {
	conn, err := i.connectUpstream(ctx, up)
	if err != nil {
		return nil, err
	}
	defer session.Close(conn)
	return session.Query(ctx, conn, command)
}
