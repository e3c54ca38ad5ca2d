package ha

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the expected decisions anew")

// TestScenarios holds Decide to testdata/decide, and sees that every reason is reached.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/decide/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scenarios", err)
	}
	reached := map[Code]bool{}
	total := 0
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		want := string(raw)
		var got []string
		for _, s := range parseScenarios(t, want) {
			total++
			got = append(got, playAll(t, s, reached)...)
		}
		if *update {
			rewrite(t, file, want, got)
		}
	}
	if total < 60 {
		t.Errorf("only %d scenarios", total)
	}
	if !*update {
		checkReached(t, reached)
	}
}

func playAll(t *testing.T, s scenario, reached map[Code]bool) []string {
	var out []string
	v, m, last := usual(), Memory{}, Action{}
	for n, st := range s.steps {
		var d Decision
		v, m, d = play(v, m, last, st.words)
		last = d.Action
		reached[d.Reason.Code] = true
		out = append(out, tell(d))
		if !*update && tell(d) != st.want {
			t.Errorf("%s, line %d (%s):\n decided %s\n    want %s", s.name, n+1, strings.Join(st.words, " "), tell(d), st.want)
		}
		replayed, _ := json.Marshal(v)
		var again View
		if err := json.Unmarshal(replayed, &again); err != nil || !reflect.DeepEqual(again, v) {
			t.Errorf("%s, line %d: the view does not survive the journal (%v): %s", s.name, n+1, err, cmp.Diff(v, again))
		}
		raw, _ := json.Marshal(m)
		var back Memory
		if err := json.Unmarshal(raw, &back); err != nil || !sameJSON(m, back) {
			t.Errorf("%s, line %d: the memory does not survive the journal (%v): %s", s.name, n+1, err, cmp.Diff(m, back))
		}
	}
	return out
}

func sameJSON(a, b any) bool {
	x, _ := json.Marshal(a)
	y, _ := json.Marshal(b)
	return string(x) == string(y)
}

func rewrite(t *testing.T, file, text string, got []string) {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(strings.TrimSpace(line), "->") {
			lines[i] = "-> " + got[0]
			got = got[1:]
		}
	}
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
}

// checkReached fails for a reason that no scenario reaches.
func checkReached(t *testing.T, reached map[Code]bool) {
	src, err := os.ReadFile("reason.go")
	if err != nil {
		t.Fatal(err)
	}
	codes := regexp.MustCompile(`Code = "(\w+)"`).FindAllStringSubmatch(string(src), -1)
	if len(codes) < 50 {
		t.Fatalf("only %d codes found", len(codes))
	}
	for _, m := range codes {
		if c := Code(m[1]); !reached[c] {
			t.Errorf("no scenario reaches the reason %s", c)
		}
	}
}

// TestCausesAreTold sees that each cause of a race has its own text.
func TestCausesAreTold(t *testing.T) {
	raw, err := os.ReadFile("testdata/decide/race.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []string{CauseVanished, CauseReleased, CauseAgentGone, CauseNotRenewed, CauseSilent, CauseOwnLease, CauseNoLeader} {
		if !strings.Contains(string(raw), fmt.Sprintf("cause %s:", c)) {
			t.Errorf("no scenario of a race ends with the cause %s", c)
		}
	}
}
