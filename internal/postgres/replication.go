package postgres

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/havenha/haven/internal/cluster"
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
	return parseHistory(rows[0][1])
}

func (i *Instance) askUpstream(ctx context.Context, up Upstream, command string) ([][]string, error) {
	conn, err := i.connectUpstream(ctx, up)
	if err != nil {
		return nil, err
	}
	defer closeConn(conn)
	return queryOn(ctx, conn, command)
}

// LocalHistory reads the history of timeline tl from pg_wal; timeline 1 has none. The file's time of change becomes the
// timestamp of its last line.
func (i *Instance) LocalHistory(tl cluster.Timeline) ([]cluster.HistoryLine, error) {
	if tl <= 1 {
		return nil, nil
	}
	path := i.path("pg_wal", fmt.Sprintf("%08X.history", uint32(tl)))
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("history of timeline %d: %w", tl, err)
	}
	lines, err := parseHistory(string(raw))
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(path); err == nil && len(lines) > 0 {
		lines[len(lines)-1].Timestamp = info.ModTime().Local().Format("2006-01-02T15:04:05.000000-07:00")
	}
	return lines, nil
}

// parseHistory reads a timeline history file: timeline, switch point and reason on each line (timeline.c).
func parseHistory(text string) ([]cluster.HistoryLine, error) {
	var lines []cluster.HistoryLine
	for raw := range strings.Lines(text) {
		raw = strings.TrimSpace(raw)
		if raw == "" || strings.HasPrefix(raw, "#") {
			continue
		}
		fields := strings.SplitN(raw, "\t", 3)
		if len(fields) < 2 {
			return nil, fmt.Errorf("line %q of a timeline history cannot be understood", raw)
		}
		n, err := strconv.ParseUint(fields[0], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("line %q of a timeline history: %w", raw, err)
		}
		lsn, err := cluster.ParseLSN(fields[1])
		if err != nil {
			return nil, fmt.Errorf("line %q of a timeline history: %w", raw, err)
		}
		line := cluster.HistoryLine{Timeline: cluster.Timeline(n), LSN: lsn}
		if len(fields) == 3 {
			line.Reason = fields[2]
		}
		lines = append(lines, line)
	}
	return lines, nil
}
