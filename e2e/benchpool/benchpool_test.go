package main

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestWhatPgbenchSays(t *testing.T) {
	at, tps, ok := parseProgress("progress: 2.0 s, 4312.1 tps, lat 0.231 ms stddev 0.080, 0 failed")
	if !ok || at != 2 || tps != 4312.1 {
		t.Errorf("%v s, %v tps, %v", at, tps, ok)
	}
	if _, _, ok := parseProgress("pgbench (15.18)"); ok {
		t.Error("a head line is a report")
	}
	took, ended, ok := parseLog("7 12 2500 0 1700000000 250000")
	if !ok || took != 2.5 || !ended.Equal(time.Unix(1700000000, 250000000)) {
		t.Errorf("%v, %v, %v", took, ended, ok)
	}
	if _, _, ok := parseLog("7 12 failed 0 1700000000 250000"); ok {
		t.Error("a failed transaction has a latency")
	}
}

// TestWhatCounts: neither logins nor the warm-up do, nor what comes after the run was ended.
func TestWhatCounts(t *testing.T) {
	ended := 0
	w := watch{warmup: 2, seconds: 3, enough: func() { ended++ }}
	w.read(strings.NewReader("progress: 17.4 s, 0.0 tps, lat\nprogress: 18.4 s, 9.0 tps, lat\nprogress: 19.4 s, 9.0 tps, lat\n" +
		"progress: 20.4 s, 100.0 tps, lat\npgbench: error: x\nprogress: 22.4 s, 200.0 tps, lat\nprogress: 23.4 s, 9.0 tps, lat\n"))
	w.begin, w.end = usage{cpu: time.Second}, usage{cpu: 2 * time.Second, rss: 2 << 20}
	y := yield{parts: 1, done: 500, seconds: 7, cpu: time.Second, rss: 1 << 20, latencies: []float64{5, 4}}
	err := w.addTo(&y, []float64{3, 1, 2})
	if s := y.sample(); err != nil || s != (sample{TPS: 100, P50: 3, P99: 4, CPU: 2000, RSS: 2}) || y.parts != 2 || w.complaint == "" || ended != 1 {
		t.Errorf("%+v, %v, %q, ended %d times", s, err, w.complaint, ended)
	}
	if err := (&watch{}).addTo(&y, nil); err == nil {
		t.Error("without transactions there is a result")
	}
}

func TestUsage(t *testing.T) {
	u, err := parseStat([]byte("1 (a ) b) S 1 1 1 0 -1 0 0 0 0 0 150 50 0 0 20 0 1 0 5 1000 25 0"))
	if err != nil || u.cpu != 2*time.Second || u.rss != 25*int64(os.Getpagesize()) {
		t.Errorf("%+v, %v", u, err)
	}
	if _, err := parseStat([]byte("1 (x) S 1")); err == nil {
		t.Error("a short line")
	}
	own := &process{cmd: exec.Command("true")}
	own.cmd.Process = &os.Process{Pid: os.Getpid()}
	if u, err := own.used(); err != nil || u.rss == 0 {
		t.Errorf("of ourselves: %+v, %v", u, err)
	}
}

func TestPage(t *testing.T) {
	r := results{Variants: []string{"direct", "haven-transaction", "pgbouncer"}, Versions: map[string]string{"HAProxy": ""}, Problems: []string{"x"}, Cells: []cell{
		{Variant: "direct", Workload: "select", Protocol: "simple", Clients: 10, Runs: []sample{{Round: 2, TPS: 400, P50: 1, P99: 2}}},
		{Variant: "haven-transaction", Workload: "select", Protocol: "simple", Clients: 10, Runs: []sample{{Round: 1, TPS: 100}, {Round: 2, TPS: 300, CPU: 10, RSS: 20}, {Round: 3, TPS: 200, CPU: 10, RSS: 20}}},
		{Variant: "pgbouncer", Workload: "select", Protocol: "simple", Clients: 10, Runs: []sample{{Round: 2, TPS: 100, CPU: 20}, {Round: 1, TPS: 100, CPU: 20}}},
		{Variant: "haven-transaction", Workload: "select", Protocol: "prepared", Clients: 10, Runs: []sample{{TPS: 100}}},
	}}
	page := render(r)
	for _, want := range []string{
		"| 10 | direct | 400 | 4.00 | 1.00 | 2.00 | – | – | – |\n",
		"| 10 | haven-transaction | 200 | 1.00 | 0.00 | 0.00 | 10.0 | 0.50 | 20 |\n",
		"## Select only, prepared protocol", "| 10 | pgbouncer | – | – | – | – | – | – | – |\n", "- HAProxy: not there\n", "- x\n",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %q:\n%s", want, page)
		}
	}
}

// TestKeep: rounds go on where they ended, if they were made alike with the same programs.
func TestKeep(t *testing.T) {
	dir := t.TempDir()
	old := results{Seconds: 20, Versions: map[string]string{"Haven": "1", "PgBouncer": "1.18"}, Cells: []cell{
		{Variant: "haven-tcp", Clients: 10, Runs: []sample{{Round: 1}}}, {Variant: "pgbouncer", Clients: 10, Runs: []sample{{Round: 1}, {Round: 2}}},
		{Variant: "pgbouncer", Workload: "tpcb", Clients: 10, Runs: []sample{{Round: 1}}}}}
	now := results{Seconds: 20, Versions: map[string]string{"Haven": "1", "PgBouncer": "1.18"}, Cells: []cell{
		{Variant: "haven-tcp", Clients: 10}, {Variant: "pgbouncer", Clients: 10}, {Variant: "pgbouncer", Clients: 100}}}
	if err := now.keep(dir, false); err != nil {
		t.Errorf("without a file: %v", err)
	}
	if err := save(dir, old); err != nil {
		t.Fatal(err)
	}
	if err := now.keep(dir, false); err != nil {
		t.Fatal(err)
	}
	for i, want := range []int{1, 2, 0, 1} {
		if got := len(now.Cells[i].Runs); got != want {
			t.Errorf("cell %d: %d runs, want %d", i, got, want)
		}
	}
	if !now.Cells[0].lacks(2) || now.Cells[1].lacks(2) {
		t.Error("it is not known which rounds are missing")
	}
	now.Versions["Haven"] = "2"
	if now.keep(dir, false) == nil {
		t.Error("runs of another build are kept")
	}
	for range 2 { // and go on from there
		now.Versions = map[string]string{"Haven": "2", "PgBouncer": "1.18"}
		if err := now.keep(dir, true); err != nil || now.Versions["Haven"] != "1, in later runs 2" {
			t.Errorf("runs of another build are to be kept: %v, %v", err, now.Versions)
		}
		if err := save(dir, now); err != nil {
			t.Fatal(err)
		}
	}
	now.CPU, now.Versions["Haven"] = "fast", "2"
	if now.keep(dir, false) == nil {
		t.Error("runs on another processor are kept")
	}
	if err := now.keep(dir, true); err != nil || now.CPU != ", in later runs fast" {
		t.Errorf("runs on another processor are to be kept: %v, %q", err, now.CPU)
	}
	now.Versions["PgBouncer"] = "1.19"
	if now.keep(dir, true) == nil {
		t.Error("runs beside another PgBouncer are kept")
	}
	now.Versions = map[string]string{"Haven": "2", "PgBouncer": "1.18"}
	if now.Seconds = 5; now.keep(dir, false) == nil {
		t.Error("runs of another length are kept")
	}
}

// TestBlocks: the variants of one combination stay together.
func TestBlocks(t *testing.T) {
	got := blocksOf([]cell{{Variant: "a", Clients: 1}, {Variant: "a", Clients: 10}, {Variant: "b", Clients: 1}, {Variant: "b", Clients: 10, Protocol: "simple"}})
	if want := [][]int{{0, 2}, {1}, {3}}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// TestOrder: the poolers are measured by turns, each as long as the others.
func TestOrder(t *testing.T) {
	cells := []cell{{Variant: "direct"}, {Variant: "haven-transaction"}, {Variant: "haproxy"}, {Variant: "pgbouncer"}}
	for seed := range uint64(20) {
		parts := order(cells, []int{0, 1, 2, 3}, rand.New(rand.NewPCG(seed, 1)))
		share := map[int]float64{}
		for _, p := range parts {
			share[p.cell] += 1 / float64(p.shares)
		}
		begin := slices.IndexFunc(parts, func(p part) bool { return p.shares == 4 })
		var turns []bool
		for _, p := range parts[begin : begin+8] {
			turns = append(turns, p.cell == parts[begin].cell)
		}
		if len(parts) != 10 || len(share) != 4 || share[0] != 1 || share[1] != 1 || share[2] != 1 || share[3] != 1 ||
			!slices.Equal(turns, []bool{true, false, false, true, false, true, true, false}) {
			t.Errorf("seed %d: %v", seed, parts)
		}
	}
	if parts := order(cells, []int{0, 1, 2}, rand.New(rand.NewPCG(1, 1))); len(parts) != 3 || parts[0].shares != 1 {
		t.Errorf("without a second pooler: %v", parts)
	}
}

func TestPgBouncersWithPreparedStatements(t *testing.T) {
	for version, want := range map[string]bool{"PgBouncer 1.18.0": false, "PgBouncer 1.21.0": true, "PgBouncer 2.0": true, "": false} {
		if preparesInTransactions(version) != want {
			t.Errorf("%s", version)
		}
	}
}
