package wal

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/havenha/haven/internal/cluster"
)

// ReadHistory reads the history of timeline tl from dir, a pg_wal; timeline 1 has none. The file's time of change becomes
// the timestamp of its last line.
func ReadHistory(dir string, tl cluster.Timeline) ([]cluster.HistoryLine, error) {
	if tl <= 1 {
		return nil, nil
	}
	path := filepath.Join(dir, fmt.Sprintf("%08X.history", uint32(tl)))
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("history of timeline %d: %w", tl, err)
	}
	lines, err := ParseHistory(string(raw))
	if err != nil {
		return nil, err
	}
	if info, err := os.Stat(path); err == nil && len(lines) > 0 {
		lines[len(lines)-1].Timestamp = info.ModTime().Local().Format("2006-01-02T15:04:05.000000-07:00")
	}
	return lines, nil
}

// ParseHistory reads a timeline history file: timeline, switch point and reason on each line (timeline.c).
func ParseHistory(text string) ([]cluster.HistoryLine, error) {
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
