package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/postgres/session"
)

// knockSQL tells of a primary how far WAL is made, and how far it is on disk.
const knockSQL = `SELECT CASE WHEN pg_is_in_recovery() THEN '0/0' ELSE pg_current_wal_insert_lsn() END, CASE WHEN pg_is_in_recovery() THEN '0/0' ELSE pg_current_wal_flush_lsn() END`

// writeSQL writes a few bytes of WAL, which no table has anything of, and commits them.
const writeSQL = `SELECT pg_logical_emit_message(true, 'haven', '')`

// ErrWriteStalls says that a server answers, but that a write did not come to the disk in time.
var ErrWriteStalls = errors.New("a write does not come to the disk")

// Knock opens a new connection to the server and asks one question on it. An error means that nothing answered before
// ctx ended: a refusal is an answer, be it for too many connections, a start-up or a password, and so is a closed port,
// since then nobody can tell that a server which listens there hangs.
//
// It returns how far a primary's WAL is on disk; flushed is what the Knock before returned. If that has not moved though
// there is more WAL, a write of its own shows whether any comes to the disk: one that does not by the end of ctx is
// an error too, ErrWriteStalls. (WAL alone may rest in memory for as long as a transaction is open.)
func (i *Instance) Knock(ctx context.Context, flushed cluster.LSN) (cluster.LSN, error) {
	now, err := i.knock(ctx, flushed)
	if err != nil && unanswered(ctx, err) {
		return now, fmt.Errorf("knock: %w", err)
	}
	return now, nil
}

func (i *Instance) knock(ctx context.Context, flushed cluster.LSN) (cluster.LSN, error) {
	conn, err := i.connectPatiently(ctx)
	if err != nil {
		return 0, err
	}
	defer session.Close(conn)
	rows, err := session.Query(ctx, conn, knockSQL)
	if err != nil || len(rows) != 1 || len(rows[0]) != 2 {
		return 0, err
	}
	made, err := cluster.ParseLSN(rows[0][0])
	if err != nil {
		return 0, err
	}
	now, err := cluster.ParseLSN(rows[0][1])
	if err != nil || made <= now || now != flushed {
		return now, err
	}
	if _, err := session.Query(ctx, conn, writeSQL); err != nil {
		return now, fmt.Errorf("WAL is on disk up to %s, of %s: %w: %w", now, made, ErrWriteStalls, err)
	}
	return now, nil
}

// queueFull is the pause between two tries to get into the queue of a socket.
const queueFull = 20 * time.Millisecond

// connectPatiently waits for a place in the queue of a Unix socket until ctx ends: where that is full, because nobody
// accepts or because many come at once, connect(2) does not wait itself, and says EAGAIN.
func (i *Instance) connectPatiently(ctx context.Context) (*pgconn.PgConn, error) {
	for {
		conn, err := i.connect(ctx, "", nil)
		if !errors.Is(err, unix.EAGAIN) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(queueFull):
		}
	}
}

// unanswered tells silence from an answer.
func unanswered(ctx context.Context, err error) bool {
	var told *pgconn.PgError
	if errors.As(err, &told) {
		return false
	}
	var n net.Error
	return ctx.Err() != nil || errors.As(err, &n) && n.Timeout()
}
