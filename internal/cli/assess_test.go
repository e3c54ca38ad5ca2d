package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/api"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
)

// pictureOf is a cluster of db1 (leader) and two standbys that stream.
func pictureOf(t *testing.T, dynamic string, change func(*cluster.Snapshot)) picture {
	t.Helper()
	s := cluster.Snapshot{
		Leader: &cluster.Leader{Name: "db1", ModRev: 1}, Status: &cluster.Status{Optime: 5000},
		Config: &cluster.Config{Raw: json.RawMessage(dynamic)}, Members: members("http://127.0.0.1:1", nil),
		Term: &cluster.Term{Number: 2, Holder: "db1", State: cluster.TermPromoted, ModRev: 2, Since: at(0)},
	}
	for i := range s.Members[1:] {
		s.Members[i+1].ReceiveLSN, s.Members[i+1].ReplayLSN, s.Members[i+1].Tags = 5000, 5000, nil
	}
	if change != nil {
		change(&s)
	}
	p, err := newPicture("shop", s, at(60), "etcd")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestVerdicts(t *testing.T) {
	fine := writes{State: "ok", Took: 0.002}
	three := &votes{Members: 3, Answering: 3, Tolerance: 1}
	tests := []struct {
		name     string
		dynamic  string
		change   func(*cluster.Snapshot)
		writes   writes
		votes    *votes
		stale    bool
		verdict  verdict
		headline string
		why      string
	}{
		{"all is well", `{}`, nil, fine, three, false, healthy, "db1 leads; writes ok (2 ms); survives 1 more failure; failover now: LOSSY, db2 was 0 B behind", ""},
		{"synchronous", `{"synchronous_mode": true}`, func(s *cluster.Snapshot) { s.Sync = &cluster.Sync{Leader: "db1", Standbys: []string{"db3"}} }, fine, three, false, healthy, "failover now: SAFE, loses 0 B", ""},
		{"votes not known", `{}`, nil, fine, nil, false, healthy, "survives 2 more failures (votes: ?)", ""},
		{"one vote left", `{}`, nil, fine, &votes{Members: 3, Answering: 2}, false, degraded, "survives 0 more failures", "no member of etcd may fail (2 of 3 answer)"},
		{"writes not known", `{}`, nil, writes{State: "unknown", Why: "no answer"}, three, false, degraded, "writes ?", "whether writes are possible is not known: no answer"},
		{"not writable", `{}`, nil, writes{State: "no", Why: "its health check says 503"}, three, false, critical, "writes are NOT possible", "holds the leader key, and its server is not a writable primary"},
		{"claimed", `{}`, func(s *cluster.Snapshot) { s.Term.State = cluster.TermClaimed }, fine, three, false, critical, "", "does not accept writes yet"},
		{"leader's key gone", `{}`, func(s *cluster.Snapshot) { s.Members = s.Members[1:] }, fine, three, false, degraded, "", "its member key is gone"},
		{"too far behind", `{"maximum_lag_on_failover": 10}`, func(s *cluster.Snapshot) { s.Status.Optime = 6000 }, fine, three, false, degraded, "BLOCKED", "no standby could take over"},
		{"positions not known", `{}`, func(s *cluster.Snapshot) { s.Status = nil }, fine, three, false, degraded, "failover now: UNKNOWN, no position of db2", ""},
		{"nobody synchronous", `{"synchronous_mode": true, "synchronous_mode_strict": true}`, func(s *cluster.Snapshot) { s.Sync = &cluster.Sync{Leader: "db1"} }, fine, three, false, degraded, "", "commits wait until there is one"},
		{"synchronous one gone", `{"synchronous_mode": true}`, func(s *cluster.Snapshot) { s.Sync = &cluster.Sync{Leader: "db1", Standbys: []string{"db9"}} }, fine, three, false, degraded, "", "the synchronous standby db9 is gone"},
		{"no leader in maintenance", `{"pause": true}`, func(s *cluster.Snapshot) { s.Leader = nil }, fine, three, false, critical, "NO LEADER", "nobody takes over by itself"},
		{"not fresh", `{}`, nil, fine, three, true, unknown, "", "etcd cannot read etcd"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := pictureOf(t, tt.dynamic, tt.change)
			p.stale = tt.stale
			a := assess(p, tt.writes, tt.votes)
			if a.Verdict != tt.verdict || !strings.Contains(a.headline("; "), tt.headline) || !strings.Contains(strings.Join(a.Why, "\n"), tt.why) {
				t.Errorf("%s: %s\nwhy: %q\nwant %s with %q because %q", a.Verdict, a.headline("; "), a.Why, tt.verdict, tt.headline, tt.why)
			}
			if tt.verdict == healthy && len(a.Why) > 0 {
				t.Errorf("healthy, and yet: %q", a.Why)
			}
		})
	}
}

// Whatever is missing is shown as ? or not at all, never as zero.
func TestUnknownIsNotZero(t *testing.T) {
	p := pictureOf(t, `{}`, func(s *cluster.Snapshot) {
		s.Status, s.Term = nil, nil
		for i := range s.Members {
			m := &s.Members[i]
			m.ReceiveLSN, m.ReplayLSN, m.XlogLocation, m.Timeline, m.State, m.ReplicationState = 0, 0, 0, 0, "", ""
		}
	})
	var out bytes.Buffer
	c := &console{out: &out, output: "text"}
	text := c.statusText(assess(p, writes{State: "unknown", Why: "nobody was asked"}, nil))
	if strings.Contains(text, "0 B") || strings.Count(text, "?") < 8 {
		t.Errorf("something unknown is shown as known:\n%s", text)
	}
}

func TestWatchSpeaksOnlyOfChanges(t *testing.T) {
	var out bytes.Buffer
	c := &console{out: &out, output: "text"}
	v := view{summary: summary}
	last := ""
	p := pictureOf(t, `{}`, nil)
	moved := pictureOf(t, `{}`, func(s *cluster.Snapshot) { s.Leader.Name = "db2" })
	for _, step := range []picture{p, p, moved, moved} {
		if err := c.frame(step, nil, v, &last); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.frame(picture{}, errors.New("etcd is gone"), v, &last); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 || !strings.Contains(lines[0], "leader db1") || !strings.Contains(lines[1], "leader db2") || !strings.Contains(lines[2], "etcd is gone") {
		t.Errorf("want a line for each change:\n%s", out.String())
	}
}

func TestWatchRedrawsOnATerminal(t *testing.T) {
	var out bytes.Buffer
	c := &console{out: &out, output: "text", outTTY: true}
	last := ""
	v := view{show: showMembers(c)}
	for range 2 {
		if err := c.frame(pictureOf(t, `{}`, nil), nil, v, &last); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Count(out.String(), "\x1b[H") != 2 || !strings.HasSuffix(out.String(), "\x1b[J") {
		t.Errorf("the screen is not redrawn in place: %q", out.String())
	}
}

func TestColorOnlyOnTerminals(t *testing.T) {
	for _, c := range []*console{{}, {outTTY: true, noColor: true}, {outTTY: true, env: []string{"NO_COLOR=1"}}, {outTTY: true, env: []string{"TERM=dumb"}}} {
		if got := c.color("31", "x"); got != "x" {
			t.Errorf("%+v: %q", c, got)
		}
	}
	if got := (&console{outTTY: true}).color("31", "x"); got == "x" {
		t.Error("no colour on a terminal")
	}
}

func TestTreeSurvivesACircle(t *testing.T) {
	p := pictureOf(t, `{}`, func(s *cluster.Snapshot) {
		s.Members[1].Tags = map[string]any{"replicatefrom": "db3"}
		s.Members[2].Tags = map[string]any{"replicatefrom": "db2"}
	})
	var names []string
	for _, r := range tree(p, rowsOf(p)) {
		names = append(names, strings.TrimLeft(r.Member, "+ "))
	}
	if slices.Sort(names); !slices.Equal(names, []string{"db1", "db2", "db3"}) {
		t.Errorf("members were lost or doubled: %v", names)
	}
}

// A command that is interrupted says so by its code.
func TestExitCodes(t *testing.T) {
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		ctx  context.Context
		err  error
		want int
	}{
		{t.Context(), nil, 0}, {t.Context(), errors.New("x"), 1}, {ended, context.Canceled, 130}, {t.Context(), context.DeadlineExceeded, 5},
		{t.Context(), refused("x", ""), 4},
	} {
		if got := exitOf(tt.ctx, tt.err); got != tt.want {
			t.Errorf("%v: %d, want %d", tt.err, got, tt.want)
		}
	}
}

func TestPlainNumbers(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 5 << 30: "5.0 GiB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
	for d, want := range map[time.Duration]string{-time.Second: "0 s", 1500 * time.Millisecond: "1.5 s", 42 * time.Second: "42 s", 61 * time.Second: "1m 1s", 49*24*time.Hour + 3*time.Hour: "49d 3h"} {
		if got := short(d); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
}

func showMembers(c *console) func(io.Writer, picture) error {
	return func(w io.Writer, p picture) error { return c.members(w, p, rowsOf(p), false) }
}

// What members find wrong with themselves makes a healthy cluster a degraded one.
func TestStatusTellsProblemsOfMembers(t *testing.T) {
	full := `{"verdict": "degraded", "problems": ["db2: the file system of data (/d) has 5.0 % left (1.0 GiB): make room or grow it"]}`
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.String() == "/haven/health?own=true" {
			_, _ = w.Write([]byte(full))
		}
	}))
	t.Cleanup(srv.Close)
	client, err := api.NewClient(config.CTL{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p := pictureOf(t, `{}`, func(s *cluster.Snapshot) {
		s.Members = members(srv.URL, nil)[:2]
		s.Members[1].Haven = &cluster.HavenField{}
	})
	a := (&reader{c: &console{}, client: client}).assess(t.Context(), p)
	if a.Verdict != degraded || !slices.ContainsFunc(a.Why, func(w string) bool { return strings.Contains(w, "db2: the file system of data (/d) has 5.0 % left") }) {
		t.Errorf("%s %q", a.Verdict, a.Why)
	}
}
