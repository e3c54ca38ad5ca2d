package tree

import (
	"fmt"
	"strings"
	"testing"
)

// read parses a text and collects what is wrong with it.
func read(text string) (*Value, string) {
	var faults strings.Builder
	v := Parse("f.yml", []byte(text), func(at Place, format string, args ...any) {
		fmt.Fprintf(&faults, "%d:%d: %s\n", at.Line, at.Column, fmt.Sprintf(format, args...))
	})
	return v, faults.String()
}

func TestFaultsHaveTheirPlace(t *testing.T) {
	for text, want := range map[string]string{
		"":                   "0:0: the file is empty",
		"a: 1\n\tb: 2\n":     "2:1: a tab indents this line",
		"a: 1\nb: 2\na: 3\n": "3:1: the key `a` stands here a second time; the first is in line 1",
		"a: 1\n---\nb: 2\n":  "a second YAML document begins here",
		"a: \xff\n":          "1:4: this character is not UTF-8",
		"a: &x [*x]\n":       "the alias `*x` contains itself",
		"- a\n":              "1:1: the file is not a list of `key: value` lines",
	} {
		if _, got := read(text); !strings.Contains(got, want) {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// Nested aliases that would grow to billions of values are refused before they fill memory.
func TestAliasesCannotTakeAllMemory(t *testing.T) {
	var b strings.Builder
	b.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for n := 1; n < 12; n++ {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", n, n, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", n-1), 10), ", "))
	}
	if _, faults := read(b.String()); !strings.Contains(faults, "more than 100000 values") {
		t.Errorf("got %.200q", faults)
	}
}

func TestLaterDocumentsWin(t *testing.T) {
	base, _ := read("scope: a\npostgresql: {port: 1, parameters: {x: 0700, y: 2}}\nproxy: {}\n")
	over, _ := read("scope: b\npostgresql: {parameters: {y: off}}\nproxy: null\n")
	v := Merge(base, over)
	got := fmt.Sprint(v.Find("scope").Text, v.Find("scope").At.Line, v.Find("postgresql.port").Text, v.Find("postgresql.parameters.x").Any(), v.Find("postgresql.parameters.y").Setting(), v.Find("proxy").Shape == Null)
	if want := "b1 1 0700offtrue"; strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
		t.Errorf("got %s", got)
	}
	if at := v.Nearest("postgresql.parameters.none"); at.Line != 2 {
		t.Errorf("what is missing belongs into line %d", at.Line)
	}
	if got := string(v.JSON()); got != `{"postgresql":{"parameters":{"x":"0700","y":false},"port":1},"scope":"b"}` {
		t.Errorf("as JSON: %s", got)
	}
}
