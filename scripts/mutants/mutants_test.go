package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tiny runs the command on the module in testdata.
func tiny(t *testing.T, args ...string) (int, string, error) {
	t.Helper()
	var out bytes.Buffer
	code, err := run(t.Context(), append([]string{"-root", "testdata/tiny", "-package", "."}, args...), &out, io.Discard)
	return code, out.String(), err
}

func TestEveryGuardIsTurnedAndJudged(t *testing.T) {
	before, err := os.ReadDir("testdata/tiny")
	if err != nil {
		t.Fatal(err)
	}
	code, out, err := tiny(t, "-json", "-removed", "-timeout", "3s")
	if code != 1 || err == nil || !strings.Contains(err.Error(), "3 of 13 mutants survived") {
		t.Errorf("exit status %d, error %v", code, err)
	}
	var results []result
	if err := json.Unmarshal([]byte(out), &results); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, r := range results {
		if r.Error != "" {
			t.Errorf("%s: %s", r.Guard, r.Error)
		}
		got[r.Guard+" "+string(r.Way)] = r.KilledBy
	}
	want := map[string]string{
		"negative negated": "TestGrade", "pass@1 negated": "TestGrade", "pass@2 negated": "TestGrade", "closed negated": "TestGrade",
		"zero negated": "TestGrade", "endless negated": "timeout", "never-reached negated": "",
		"negative removed": "TestGrade", "pass@1 removed": "TestGrade", "pass@2 removed": "", "closed removed": "TestGrade",
		"endless removed": "timeout", "never-reached removed": "",
	}
	for name, by := range want {
		if found, ok := got[name]; !ok || found != by {
			t.Errorf("%s: killed by %q (%v), want %q", name, found, ok, by)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d mutants: %v", len(got), got)
	}
	after, err := os.ReadDir("testdata/tiny")
	if err != nil || len(after) != len(before) {
		t.Errorf("the tree was written to: %v, %v", after, err)
	}
}

func TestOnlyAndTable(t *testing.T) {
	code, out, err := tiny(t, "-only", "pass@2,closed")
	if code != 0 || err != nil {
		t.Errorf("exit status %d, error %v", code, err)
	}
	for _, want := range []string{"pass@2 ", "tiny.go:", "TestGrade", "2 mutants, 2 killed"} {
		if !strings.Contains(out, want) {
			t.Errorf("the table lacks %q:\n%s", want, out)
		}
	}
	if code, _, err := tiny(t, "-only", "nothing-of-that-name"); code != 2 || err == nil {
		t.Errorf("a guard that does not exist: exit status %d, error %v", code, err)
	}
}

func TestListShowsTheExpression(t *testing.T) {
	code, out, err := tiny(t, "-list")
	if code != 0 || err != nil || !strings.Contains(out, "points >= limit\n") || strings.Contains(out, "points >= limit &&") {
		t.Errorf("exit status %d, error %v:\n%s", code, err, out)
	}
}

// module writes a module of one file with a test that passes or fails.
func module(t *testing.T, src, test string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": "module example.com/m\n\ngo 1.24\n", "m.go": src,
		"m_test.go": "package m\n\nimport \"testing\"\n\nfunc TestM(t *testing.T) {" + test + "}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestWhatCannotBeJudgedIsAnError(t *testing.T) {
	for _, c := range []struct{ name, src, test, want string }{
		{"no condition on the line", "package m\n\nconst c = 1 // guard: x\n", "", "no condition ends on this line"},
		{"an operand too many", "package m\n\nfunc F(a, b bool) bool {\n\treturn a && b // guard: x@3\n}\n", "", "has 2 operands"},
		{"twice the same name", "package m\n\nfunc F(a, b bool) bool {\n\treturn a && b // guard: x@1,1\n}\n", "", "another guard called x@1"},
		{"a mutant that does not compile", "package m\n\nfunc F(a int) int {\n\treturn a // guard: x\n}\n", "", "could not be tried"},
		{"tests that fail already", "package m\n\nfunc F(a bool) bool {\n\treturn a // guard: x\n}\n", "t.Fail()", "TestM fails; mend that first"},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := []string{"-root", module(t, c.src, c.test), "-package", "."}
			code, err := run(t.Context(), args, io.Discard, io.Discard)
			if code != 2 || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("exit status %d, error %v, want %q", code, err, c.want)
			}
		})
	}
}

// TestSimulatorRunsWhatTheTestsLetLive gives a mutant that the package's tests do not kill to a second package, with its
// number of seeds.
func TestSimulatorRunsWhatTheTestsLetLive(t *testing.T) {
	dir := module(t, "package m\n\n// F is a guard.\nfunc F(a bool) bool {\n\treturn a // guard: x\n}\n", "")
	sim := filepath.Join(dir, "sim")
	if err := os.Mkdir(sim, 0o700); err != nil {
		t.Fatal(err)
	}
	test := `package sim

import (
	"flag"
	"testing"

	"example.com/m"
)

var seeds = flag.Int("seeds", 1, "")

func TestRandomSchedules(t *testing.T) {
	if *seeds != 7 || !m.F(true) {
		t.Errorf("%d seeds", *seeds)
	}
}

func TestNotChosen(t *testing.T) { t.Error("it ran") }
`
	if err := os.WriteFile(filepath.Join(sim, "sim_test.go"), []byte(test), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	code, err := run(t.Context(), []string{"-root", dir, "-package", ".", "-sim", "sim", "-seeds", "7"}, &out, io.Discard)
	if code != 0 || err != nil || !strings.Contains(out.String(), "simulator: TestRandomSchedules") {
		t.Errorf("exit status %d, error %v:\n%s", code, err, out.String())
	}
}
