package check_test

import (
	"bytes"
	"flag"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/havenha/haven/internal/check"
	"github.com/havenha/haven/internal/journal"
)

// TestRecordedHistoryIsJudgedAgain: a history from a real server keeps its report. (The history was recorded by
// drill's TestLoadOutlivesItsServer with -keep.)
func TestRecordedHistoryIsJudgedAgain(t *testing.T) {
	f, err := os.Open("testdata/killed.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h, err := journal.ReadHistory(f)
	if err != nil {
		t.Fatal(err)
	}
	text := check.Judge(h).Text()
	const golden = "testdata/killed.txt"
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(golden, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, []byte(text)) {
		t.Errorf("(-want +got):\n%s", cmp.Diff(string(want), text))
	}
}

// FuzzJudge: whatever can be read as a history can be judged, and judged again with the same result.
func FuzzJudge(f *testing.F) {
	raw, err := os.ReadFile("testdata/killed.jsonl")
	if err != nil {
		f.Fatal(err)
	}
	lines := bytes.SplitAfter(raw, []byte("\n"))
	f.Add(bytes.Join(lines[:20], nil))
	f.Add(bytes.Join(append(lines[:1:1], lines[len(lines)-4:]...), nil))
	f.Add([]byte(`{"header":{"format":1,"accounts":2}}
{"op":{"id":1,"kind":"register-cas","key":"r","outcome":"ok","start":9,"end":3}}
{"op":{"id":1,"kind":"register-cas","key":"r","outcome":"unknown","start":1,"end":3}}
{"op":{"id":1,"kind":"list-append","key":"r","outcome":"ok","start":-5,"end":3}}
{"final":{"complete":true}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		h, err := journal.ReadHistory(bytes.NewReader(text))
		if err != nil || h.Header.Accounts > 1000 {
			return
		}
		limits := check.DefaultLimits()
		limits.Steps = 1000
		if a, b := check.JudgeWithin(h, limits).Text(), check.JudgeWithin(h, limits).Text(); a != b {
			t.Errorf("judged twice: %s", cmp.Diff(a, b))
		}
	})
}
