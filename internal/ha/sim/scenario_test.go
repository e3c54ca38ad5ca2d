package sim

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/havenha/haven/internal/ha"
)

func read(t *testing.T, file string) Scenario {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ReadScenario(string(text))
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	s.Options.Trace = true
	return s
}

// Each file of testdata/scenarios is a story; its golden file is what happens. A story that breaks an invariant does so
// because of a planted bug or a fault that is known.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/scenarios/*.txt")
	if err != nil || len(files) < 12 {
		t.Fatalf("%d scenarios: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			s := read(t, file)
			w, err := s.Play()
			got := 0
			if f := w.Failure(); f != nil {
				got = f.Number
			}
			if err != nil || got != s.Breaks {
				t.Fatalf("%v; %v, expected to break invariant %d\n%s", err, w.Failure(), s.Breaks, w.Trace())
			}
			golden := strings.TrimSuffix(file, ".txt") + ".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(w.Trace()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), w.Trace()); d != "" {
				t.Errorf("it goes differently; -update to accept:\n%s", d)
			}
		})
	}
}

// Without its bug no story breaks an invariant.
func TestScenariosWithoutBugs(t *testing.T) {
	files, _ := filepath.Glob("testdata/scenarios/*.txt")
	for _, file := range files {
		s := read(t, file)
		o := &s.Options
		if o.Bugs == (Bugs{}) && !o.Starved {
			continue
		}
		o.Bugs, o.Starved = Bugs{}, false
		w, err := s.Play()
		if f := w.Failure(); f != nil || err != nil {
			t.Errorf("%s: %v, %v\n%s", file, f, err, w.Trace())
		}
	}
}

// Schedules that once failed, and were mended, never fail again.
func TestFailedOnce(t *testing.T) {
	files, _ := filepath.Glob("testdata/failed/*.txt")
	for _, file := range files {
		w, err := read(t, file).Play()
		if f := w.Failure(); f != nil || err != nil {
			t.Errorf("%s: %v, %v", file, f, err)
		}
	}
}

// reasonCodes are all constants of type ha.Code, from the source.
func reasonCodes(t *testing.T) []ha.Code {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "../reason.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var out []ha.Code
	ast.Inspect(f, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && len(v.Values) == 1 {
			if lit, ok := v.Values[0].(*ast.BasicLit); ok && strings.HasPrefix(v.Names[0].Name, "Reason") {
				text, _ := strconv.Unquote(lit.Value)
				out = append(out, ha.Code(text))
			}
		}
		return true
	})
	return out
}
