package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"
)

// Promote ends recovery and returns when the server accepts writes. It asks by SQL, or where no session can be had, by
// the trigger file that pg_ctl promote uses. Readers that hold up replay would hold up the promotion too, for as long as
// max_standby_streaming_delay; their sessions are ended.
func (i *Instance) Promote(ctx context.Context) error {
	if rows, err := i.heartQuery(ctx, "SELECT pg_is_in_recovery()"); err == nil && rows[0][0] == "f" {
		return nil
	}
	// Without waiting: pg_promote's own wait looks only every 100 ms.
	if _, err := i.heartQuery(ctx, "SELECT pg_promote(false)"); err != nil {
		var refused *pgconn.PgError
		const queryCanceled = "57014" // by statement_timeout: the request may be out
		if ctx.Err() != nil || (errors.As(err, &refused) && refused.SeverityUnlocalized == "ERROR" && refused.Code != queryCanceled) {
			return fmt.Errorf("promote: %w", err)
		}
		if ferr := i.promoteByFile(); ferr != nil {
			return fmt.Errorf("promote: %w", errors.Join(err, ferr))
		}
	}
	return i.awaitPromotion(ctx)
}

// awaitPromotion waits for the end of recovery, and keeps the startup process awake meanwhile. Without that, a request
// that comes in the moment in which a lost stream is tried again is noticed only wal_retrieve_retry_interval (5 s)
// later: the startup process sees it, but first sleeps out its retry (seen with PostgreSQL 15).
func (i *Instance) awaitPromotion(ctx context.Context) error {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for round := 0; ; round++ {
		rows, err := i.heartQuery(ctx, "SELECT pg_is_in_recovery(), (SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup')")
		if err == nil && rows[0][0] == "f" {
			return nil
		}
		if err == nil && round%5 == 4 {
			err = i.wakeStartup(rows[0][1])
		}
		if round%25 == 24 {
			i.endBlockingReaders(ctx)
		}
		if s, aerr := i.Adopt(); aerr == nil && s == nil {
			return fmt.Errorf("promote: the server ended before recovery did: %w", ErrNotRunning)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("promote: wait for the end of recovery: %w", errors.Join(ctx.Err(), err))
		case <-tick.C:
		}
	}
}

// blockingReadersSQL ends the sessions that the startup process waits for: those with a snapshot while it is in a
// recovery conflict, and those that hold a lock which it wants (PostgreSQL manual, handling query conflicts).
const blockingReadersSQL = `SELECT a.pid, pg_terminate_backend(a.pid) FROM pg_stat_activity s, pg_stat_activity a
 WHERE s.backend_type = 'startup' AND a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
   AND (a.backend_xmin IS NOT NULL AND s.wait_event ~ '^(RecoveryConflict|BufferPin)' OR a.pid = ANY (pg_blocking_pids(s.pid)))`

// endBlockingReaders is tried again while the promotion lasts; that it fails once changes nothing.
func (i *Instance) endBlockingReaders(ctx context.Context) {
	rows, err := i.heartQuery(ctx, blockingReadersSQL)
	if err != nil {
		return
	}
	for _, r := range rows {
		i.log.Warn("ended a session that held up the promotion", "pid", r[0])
	}
}

func (i *Instance) promoteByFile() error {
	s, err := i.Adopt()
	if err != nil {
		return err
	}
	if s == nil {
		return ErrNotRunning
	}
	if _, err := i.replaceSignal("promote"); err != nil {
		return err
	}
	return s.signal(unix.SIGUSR1)
}

// Reload makes the server read its configuration files again.
func (i *Instance) Reload(context.Context) error {
	s, err := i.Adopt()
	if err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	if s == nil {
		return fmt.Errorf("reload: %w", ErrNotRunning)
	}
	if err := s.signal(unix.SIGHUP); err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	return nil
}

// Checkpoint forces a checkpoint and waits for it.
func (i *Instance) Checkpoint(ctx context.Context) error {
	if _, err := i.query(ctx, "CHECKPOINT"); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	return nil
}
