package facts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReportsOfSeveralVersionsAreOneTable(t *testing.T) {
	dir := t.TempDir()
	fact := Fact{Name: "cut", Says: "a cut is a cut", Leans: "`cut.go`", Holds: true}
	for _, ms := range []float64{9, 3.25, 4} {
		fact.Add("gone", "ms", ms)
	}
	if err := Save(dir, Report{PostgreSQL: "15.18", Cores: 2, Kernel: "6.1", Runs: 3, Facts: []Fact{fact}}); err != nil {
		t.Fatal(err)
	}
	fact.Holds = false
	newer := Fact{Name: "new", Says: "a new fact", Holds: true}
	if err := Save(dir, Report{PostgreSQL: "18.1", Runs: 3, Facts: []Fact{fact, newer}}); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "facts.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| a cut is a cut | `cut.go` | 15, 18 **does not hold** | 15: gone: 4 ms (3.2 to 9)<br>18: gone: 4 ms (3.2 to 9) |",
		"| a new fact |  | 18 |  |", "PostgreSQL 15.18: 3 runs of each, 2 cores, Linux 6.1",
	} {
		if !strings.Contains(string(raw), want) {
			t.Errorf("the page lacks %q:\n%s", want, raw)
		}
	}
}
