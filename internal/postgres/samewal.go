package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/postgres/session"
)

// Tail is how the end of the local WAL stands to an upstream's.
type Tail int

// TailSame: the upstream has it, and what follows. TailGone: it has no longer the WAL that the local end lies in.
// TailOther: it has other records there, or none.
const (
	TailSame Tail = iota
	TailGone
	TailOther
)

// undefinedFile is what PostgreSQL says of a WAL segment that it has removed (58P01).
const undefinedFile = "58P01"

// tailTimeout bounds the comparison of one segment.
const tailTimeout = 20 * time.Second

// CompareTail holds the local WAL of timeline tl against the upstream's, from the beginning of the segment in which it ends at
// end, a whole record's end, byte by byte: the same position on the same timeline may hold another's records. The timeline
// must be part of the upstream's history as far as end. It streams at most one segment, by no slot. The text says what differs.
func (i *Instance) CompareTail(ctx context.Context, up Upstream, tl cluster.Timeline, end cluster.LSN) (Tail, string, error) {
	ctx, cancel := context.WithTimeout(ctx, tailTimeout)
	defer cancel()
	_, remote, flushed, err := i.Identify(ctx, up)
	if err != nil {
		return TailSame, "", fmt.Errorf("compare WAL: %w", err)
	}
	if remote == tl && end > flushed {
		return TailOther, fmt.Sprintf("the local WAL goes on to %s, %s's ends at %s on the same timeline", end, up.Name, flushed), nil
	}
	c, err := readControl(i.opt.DataDir)
	if err != nil {
		return TailSame, "", fmt.Errorf("compare WAL: %w", err)
	}
	size := uint64(c.SegmentSize)
	start := (uint64(end) - 1) / size * size
	theirs, err := i.walFrom(ctx, up, tl, cluster.LSN(start), int(uint64(end)-start))
	var told *pgconn.PgError
	switch {
	case errors.As(err, &told) && told.Code == undefinedFile:
		return TailGone, fmt.Sprintf("%s has no longer the WAL that is needed, from %s on (%s)", up.Name, cluster.LSN(start), told.Message), nil
	case err != nil:
		return TailSame, "", fmt.Errorf("compare WAL: from %s: %w", up.Address(), err)
	}
	ours, err := i.readSegment(tl, start, size, len(theirs))
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // absent: it was replayed from an archive, and can be streamed
		return TailSame, "", fmt.Errorf("compare WAL: %w", err)
	}
	if n := firstDifference(ours, theirs); err == nil && n >= 0 {
		return TailOther, fmt.Sprintf("at %s the local WAL is another than %s's, on the same timeline %d", cluster.LSN(start+uint64(n)), up.Name, tl), nil
	}
	return TailSame, fmt.Sprintf("%s has the same WAL up to %s, and what follows", up.Name, end), nil
}

func firstDifference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

func (i *Instance) readSegment(tl cluster.Timeline, start, size uint64, n int) ([]byte, error) {
	perID := uint64(1) << 32 / size
	no := start / size
	f, err := os.Open(i.path("pg_wal", fmt.Sprintf("%08X%08X%08X", uint32(tl), no/perID, no%perID)))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, n)
	_, err = io.ReadFull(f, b)
	return b, err
}

// walFrom streams n bytes of WAL (PostgreSQL manual, "Streaming Replication Protocol", START_REPLICATION).
func (i *Instance) walFrom(ctx context.Context, up Upstream, tl cluster.Timeline, start cluster.LSN, n int) ([]byte, error) {
	conn, err := i.connectUpstream(ctx, up)
	if err != nil {
		return nil, err
	}
	defer session.Close(conn)
	conn.Frontend().SendQuery(&pgproto3.Query{String: fmt.Sprintf("START_REPLICATION PHYSICAL %s TIMELINE %d", start, tl)})
	if err := conn.Frontend().Flush(); err != nil {
		return nil, err
	}
	var got []byte
	for len(got) < n {
		msg, err := conn.ReceiveMessage(ctx)
		if err != nil {
			return nil, err
		}
		switch m := msg.(type) {
		case *pgproto3.ErrorResponse:
			return nil, pgconn.ErrorResponseToPgError(m)
		case *pgproto3.CopyData: // 'w', where it begins, where the WAL ends, when it was sent, and then the WAL
			if len(m.Data) > 25 && m.Data[0] == 'w' {
				got = append(got, m.Data[25:]...)
			}
		case *pgproto3.CopyDone, *pgproto3.ReadyForQuery:
			return got, nil
		}
	}
	return got[:n], nil
}
