package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/havenha/haven/internal/config/tree"
)

// Severity tells whether a fault keeps the node from starting.
type Severity string

// An Error keeps the node from starting (or from reloading); a Warning does not.
const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Fault is one thing that is wrong or doubtful. Line and Column count from 1; 0 means that the fault has no place in
// a file, and File is then the variable or the path that it belongs to. Text never holds a secret.
type Fault struct {
	File         string
	Line, Column int
	Severity     Severity
	Text         string
}

// String renders the fault as file:line:column: severity: text.
func (f Fault) String() string {
	where := f.File
	if where == "" {
		where = "configuration"
	}
	if f.Line > 0 {
		where += fmt.Sprintf(":%d:%d", f.Line, f.Column)
	}
	return fmt.Sprintf("%s: %s: %s", where, f.Severity, f.Text)
}

// Report is all that was found, in the order of files and lines.
type Report struct{ Faults []Fault }

// OK tells whether there is no error; there may be warnings.
func (r Report) OK() bool {
	return !slices.ContainsFunc(r.Faults, func(f Fault) bool { return f.Severity == Error })
}

// String renders one line for each fault and a last line that counts them; nothing when there is none.
func (r Report) String() string {
	if len(r.Faults) == 0 {
		return ""
	}
	var b strings.Builder
	errors := 0
	for _, f := range r.Faults {
		b.WriteString(f.String() + "\n")
		if f.Severity == Error {
			errors++
		}
	}
	fmt.Fprintf(&b, "%s, %s\n", counted(errors, "error"), counted(len(r.Faults)-errors, "warning"))
	return b.String()
}

func counted(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}

func (r *Report) add(s Severity, at tree.Place, format string, args ...any) {
	f := Fault{File: at.File, Line: at.Line, Column: at.Column, Severity: s, Text: fmt.Sprintf(format, args...)}
	if f.File == "" {
		f.File = at.Note
	}
	if !slices.Contains(r.Faults, f) {
		r.Faults = append(r.Faults, f)
	}
}

func (r *Report) errorf(at tree.Place, format string, args ...any) { r.add(Error, at, format, args...) }
func (r *Report) warnf(at tree.Place, format string, args ...any) {
	r.add(Warning, at, format, args...)
}

func (r *Report) sort() {
	slices.SortStableFunc(r.Faults, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}
