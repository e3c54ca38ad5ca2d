package etcd

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// Decoders never fail: a value that cannot be read becomes what the layout says of it (dcs-layout, 2). They keep no
// reference to their input.

// lenient reads JSON into v as far as it fits: fields of a wrong type are left alone. It tells whether data is JSON.
func lenient(data []byte, v any) bool {
	err := json.Unmarshal(data, v)
	var wrongType *json.UnmarshalTypeError
	return err == nil || errors.As(err, &wrongType)
}

// isObject tells whether data is a JSON object.
func isObject(data []byte) bool {
	return json.Valid(data) && bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte("{"))
}

func decodeMember(name string, data []byte, lease, rev int64) cluster.Member {
	m := decodeMemberData(data)
	m.Name, m.Lease, m.ModRev = name, lease, rev
	return m
}

func decodeMemberData(data []byte) cluster.Member {
	if bytes.HasPrefix(data, []byte("postgres")) {
		return decodeLegacyMember(string(data))
	}
	var m cluster.Member
	if !lenient(data, &m) {
		return cluster.Member{}
	}
	return m
}

// decodeLegacyMember reads a connection URL whose parameter application_name is the REST API's URL.
func decodeLegacyMember(text string) cluster.Member {
	u, err := url.Parse(text)
	if err != nil {
		return cluster.Member{}
	}
	api := u.Query().Get("application_name")
	u.RawQuery = ""
	return cluster.Member{ConnURL: u.String(), APIURL: api}
}

func decodeConfig(data []byte, rev int64) *cluster.Config {
	c := &cluster.Config{ModRev: rev}
	if isObject(data) {
		c.Raw = slices.Clone(data)
	}
	return c
}

// decodeStatus reads status, or a bare position as older releases wrote it.
func decodeStatus(data []byte, rev int64) *cluster.Status {
	s := &cluster.Status{ModRev: rev}
	if n, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 64); err == nil {
		s.Optime = cluster.LSN(n)
		return s
	}
	var raw struct {
		Optime json.RawMessage `json:"optime"`
		Slots  json.RawMessage `json:"slots"`
		Retain json.RawMessage `json:"retain_slots"`
	}
	lenient(data, &raw)
	s.Optime = decodeLSN(raw.Optime)
	s.Slots = decodeSlots(unquoted(raw.Slots))
	lenient(unquoted(raw.Retain), &s.RetainSlots)
	return s
}

// decodeHold reads a hold; one that cannot be read holds nothing.
func decodeHold(data []byte, rev int64) *cluster.Hold {
	h := &cluster.Hold{ModRev: rev}
	lenient(data, h)
	return h
}

// unquoted is the JSON inside a JSON string, or the JSON itself.
func unquoted(data json.RawMessage) []byte {
	var text string
	if json.Unmarshal(data, &text) == nil {
		return []byte(text)
	}
	return data
}

func decodeLSN(data []byte) cluster.LSN {
	n, err := strconv.ParseUint(string(unquoted(data)), 10, 64)
	if err != nil {
		return 0
	}
	return cluster.LSN(n)
}

func decodeSlots(data []byte) map[string]cluster.LSN {
	var raw map[string]json.RawMessage
	if !lenient(data, &raw) || raw == nil {
		return nil
	}
	slots := make(map[string]cluster.LSN, len(raw))
	for name, v := range raw {
		slots[name] = decodeLSN(v)
	}
	return slots
}

// decodeFailover reads a request. One whose time cannot be read, or has no time zone, is no request: taken without its
// time it would be carried out at once.
func decodeFailover(data []byte, rev int64) *cluster.Failover {
	f := &cluster.Failover{ModRev: rev}
	if len(data) == 0 {
		return f
	}
	if !json.Valid(data) {
		leader, candidate, _ := strings.Cut(string(data), ":")
		f.Leader, f.Candidate = strings.TrimSpace(leader), strings.TrimSpace(candidate)
		return f
	}
	var raw struct {
		Leader    string `json:"leader"`
		Candidate string `json:"member"`
		At        any    `json:"scheduled_at"`
	}
	lenient(data, &raw)
	at, ok := decodeTime(raw.At)
	if !ok {
		return f
	}
	f.Leader, f.Candidate, f.ScheduledAt = raw.Leader, raw.Candidate, at
	return f
}

func decodeTime(v any) (*time.Time, bool) {
	if v == nil || v == "" {
		return nil, true
	}
	text, ok := v.(string)
	if !ok {
		return nil, false
	}
	for _, layout := range []string{
		time.RFC3339, "2006-01-02 15:04:05Z07:00", "2006-01-02T15:04Z07:00", "2006-01-02 15:04Z07:00",
		"2006-01-02T15:04:05Z0700", "2006-01-02 15:04:05Z0700",
	} {
		if t, err := time.Parse(layout, text); err == nil {
			return &t, true
		}
	}
	return nil, false
}

func decodeSync(data []byte, rev int64) *cluster.Sync {
	var raw struct {
		Leader   string `json:"leader"`
		Standbys string `json:"sync_standby"`
		Quorum   int    `json:"quorum"`
	}
	if !lenient(data, &raw) {
		return &cluster.Sync{ModRev: rev}
	}
	s := &cluster.Sync{Leader: raw.Leader, Quorum: max(0, raw.Quorum), ModRev: rev}
	for name := range strings.SplitSeq(raw.Standbys, ",") {
		if name = strings.TrimSpace(name); name != "" {
			s.Standbys = append(s.Standbys, name)
		}
	}
	slices.Sort(s.Standbys)
	return s
}

// decodeHistory returns a list that is not nil, since the key exists; lines that cannot be read are left out.
func decodeHistory(data []byte) []cluster.HistoryLine {
	var rows []json.RawMessage
	lenient(data, &rows)
	lines := make([]cluster.HistoryLine, 0, len(rows))
	for _, row := range rows {
		var cells []json.RawMessage
		if json.Unmarshal(row, &cells) != nil || len(cells) < 3 {
			continue
		}
		var l cluster.HistoryLine
		if json.Unmarshal(cells[0], &l.Timeline) != nil || json.Unmarshal(cells[1], &l.LSN) != nil {
			continue
		}
		lenient(cells[2], &l.Reason)
		if len(cells) > 3 {
			lenient(cells[3], &l.Timestamp)
		}
		if len(cells) > 4 {
			lenient(cells[4], &l.NewLeader)
		}
		lines = append(lines, l)
	}
	return lines
}

func decodeFailsafe(data []byte) map[string]string {
	var members map[string]string
	if !lenient(data, &members) {
		return nil
	}
	return members
}

func decodeTerm(data []byte, rev int64) *cluster.Term {
	t := &cluster.Term{}
	if !lenient(data, t) {
		t = &cluster.Term{}
	}
	t.ModRev = rev
	return t
}

func decodeEvent(term uint64, data []byte) (cluster.Event, bool) {
	var e cluster.Event
	if !isObject(data) || !lenient(data, &e) {
		return cluster.Event{}, false
	}
	e.Term = term
	return e, true
}
