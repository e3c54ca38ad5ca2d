package etcd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/havenha/haven/internal/cluster"
)

// encode writes compact JSON, with < > & as they are: other tools show these values to people.
func encode(v any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "", err
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// encodeConfig compacts a dynamic configuration; anything but a JSON object is refused.
func encodeConfig(raw json.RawMessage) (string, error) {
	if !isObject(raw) {
		return "", fmt.Errorf("the dynamic configuration is not a JSON object: nothing was written")
	}
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		return "", err
	}
	return b.String(), nil
}

func encodeSync(s cluster.Sync) (string, error) {
	v := struct {
		Leader   *string `json:"leader"`
		Quorum   int     `json:"quorum"`
		Standbys *string `json:"sync_standby"`
	}{Quorum: s.Quorum}
	if s.Leader != "" {
		v.Leader = &s.Leader
	}
	if len(s.Standbys) > 0 {
		joined := strings.Join(slices.Sorted(slices.Values(s.Standbys)), ",")
		v.Standbys = &joined
	}
	return encode(v)
}

// encodeHistory writes lines as arrays; the timestamp and the new leader of an old line may be missing.
func encodeHistory(lines []cluster.HistoryLine) (string, error) {
	rows := make([][]any, 0, len(lines))
	for _, l := range lines {
		row := []any{l.Timeline, l.LSN, l.Reason}
		if l.Timestamp != "" || l.NewLeader != "" {
			row = append(row, l.Timestamp)
		}
		if l.NewLeader != "" {
			row = append(row, l.NewLeader)
		}
		rows = append(rows, row)
	}
	return encode(rows)
}
