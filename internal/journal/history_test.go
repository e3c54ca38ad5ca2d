package journal

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/havenha/haven/internal/check"
)

// lines are one of each.
func lines() []check.Line {
	return []check.Line{
		{Header: &check.Header{Format: check.Format, Begun: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Routes: []string{"proxy"}, Accounts: 2, Balance: 100}},
		{Op: &check.Operation{ID: 1, Client: 1, Session: 1, Kind: check.RegisterCAS, Key: "r0", Input: &check.Input{Expect: 7}, Output: &check.Output{Value: 7}, InTransaction: true,
			Route: "proxy", Start: 5, End: 9, Outcome: check.OK, Member: "a", Timeline: 3, Term: 4}},
		{Op: &check.Operation{ID: 2, Client: 1, Kind: check.Ledger, Route: "proxy", Start: 10, End: 12, Outcome: check.Unknown, SQLSTATE: "57P01", Error: "terminating connection"}},
		{Fault: &check.Fault{Name: "kill", Target: "a", Begin: 3, End: 6}},
		{Term: &check.Term{Number: 4, Holder: "a", Timeline: 3, From: 1}},
		{Stopped: &check.Stopped{At: 20}},
		{Final: &check.Final{Ledger: []int64{2}, Registers: map[string]int64{"r0": 1}, Balances: map[int]int64{0: 100, 1: 100}}},
		{Final: &check.Final{Lists: map[string][]int64{"l0": {3}}, Transfers: []check.Moved{{ID: 9, From: 0, To: 1, Amount: 2}}, Complete: true}},
	}
}

func write(t *testing.T, lines []check.Line) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "history.jsonl")
	w, err := CreateHistory(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		if err := w.Append(l); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestHistoryIsReadAsWritten: nothing is lost on the way through the file.
func TestHistoryIsReadAsWritten(t *testing.T) {
	var want check.History
	for _, l := range lines() {
		want.Add(l)
	}
	got, err := ReadHistory(bytes.NewReader(write(t, lines())))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&want, got); diff != "" {
		t.Errorf("(-written +read):\n%s", diff)
	}
}

// TestTornHistoryIsReadUpToTheTear: a recorder that dies leaves half a line.
func TestTornHistoryIsReadUpToTheTear(t *testing.T) {
	raw := write(t, lines()[:3])
	last := bytes.LastIndexByte(raw[:len(raw)-1], '\n') + 1
	for cut := last + 1; cut < len(raw)-1; cut += 7 {
		h, err := ReadHistory(bytes.NewReader(raw[:cut]))
		if err != nil || len(h.Operations) != 1 {
			t.Fatalf("cut at %d of %d: %d operations, %v", cut, len(raw), len(h.Operations), err)
		}
	}
	h, err := ReadHistory(bytes.NewReader(raw[:len(raw)-1]))
	if err != nil || len(h.Operations) != 2 {
		t.Errorf("only the line's end is missing: %d operations, %v", len(h.Operations), err)
	}
}

// TestWhatIsNoHistoryIsRefused: a wrong file is never an empty history, which would be judged.
func TestWhatIsNoHistoryIsRefused(t *testing.T) {
	good := string(write(t, lines()[:3]))
	head, rest, _ := strings.Cut(good, "\n")
	for name, c := range map[string]struct{ text, want string }{
		"newer":       {`{"header":{"format":99}}` + "\n" + rest, "judge it with a newer haven"},
		"no header":   {rest, "this is no history"},
		"empty":       {"", "the file is empty"},
		"other":       {"PK\x03\x04", "line 1"},
		"torn inside": {head + "\n{\"op\":{\"id\n" + rest, "line 2"},
		"header torn": {head[:20], "line 1"},
	} {
		if _, err := ReadHistory(strings.NewReader(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestHistoryIsNeverWrittenOver: the evidence of an earlier run stays.
func TestHistoryIsNeverWrittenOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.jsonl")
	w, err := CreateHistory(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := CreateHistory(path); err == nil {
		t.Error("a history was written over")
	}
	if err := w.Append(lines()[0]); err == nil {
		t.Error("a line after Close is taken")
	}
	if err := w.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}

// TestHistoryTakesLinesFromManyClients: lines stay whole, and most stand in the file before Close.
func TestHistoryTakesLinesFromManyClients(t *testing.T) {
	path := filepath.Join(t.TempDir(), "history.jsonl")
	w, err := CreateHistory(path)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := w.Append(lines()[0]); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for c := range 8 {
		all.Go(func() {
			for n := range 200 {
				if err := w.Append(check.Line{Op: &check.Operation{ID: int64(c*1000 + n + 1), Kind: check.Ledger, Outcome: check.OK}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h, err := ReadHistory(f)
	if err != nil {
		t.Fatal(err)
	}
	if len(h.Operations) < 1600-flushEvery {
		t.Errorf("a recorder that dies now loses %d of 1600 operations", 1600-len(h.Operations))
	}
}
