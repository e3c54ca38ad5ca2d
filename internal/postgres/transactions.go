package postgres

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// transactionsEvery is how often open transactions are counted.
const transactionsEvery = 20 * time.Millisecond

// AwaitTransactions waits until the transactions of clients that are open now have ended, and not for those that begin meanwhile. It
// returns how many are still open after the limit.
func (i *Instance) AwaitTransactions(ctx context.Context, limit time.Duration) (open int, err error) {
	rows, err := i.heartQuery(ctx, "SELECT extract(epoch FROM clock_timestamp())")
	if err != nil {
		return 0, fmt.Errorf("count open transactions: %w", err)
	}
	count := fmt.Sprintf("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND xact_start < to_timestamp(%s)", rows[0][0])
	for end := time.Now().Add(limit); ; {
		if rows, err = i.heartQuery(ctx, count); err != nil {
			return 0, fmt.Errorf("count open transactions: %w", err)
		}
		open, err = strconv.Atoi(rows[0][0])
		if err != nil || open == 0 || !time.Now().Before(end) {
			return open, err
		}
		select {
		case <-ctx.Done():
			return open, ctx.Err()
		case <-time.After(transactionsEvery):
		}
	}
}
