package check

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// shownInText is how many violations of a check a person is shown.
const shownInText = 5

// WriteText writes the report for people. An error is w's.
func (r Report) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s of load", r.Verdict, seconds(r.Took))
	if r.Header.Note != "" {
		fmt.Fprintf(&b, ", %s", r.Header.Note)
	}
	b.WriteString("\n\n")
	r.writeChecks(&b)
	writeSeries(&b, r.Series)
	r.writeTerms(&b)
	r.writeFaults(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

// Text is what WriteText writes.
func (r Report) Text() string {
	var b strings.Builder
	_ = r.WriteText(&b) // a builder takes everything
	return b.String()
}

// table writes rows below their heading, the cells of each parted by tabs, in columns.
func table(b *strings.Builder, heading string, rows []string) {
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for _, row := range append([]string{heading}, rows...) {
		fmt.Fprintln(t, row)
	}
	_ = t.Flush() // into a builder
}

// section is a table after an empty line; without rows nothing.
func section(b *strings.Builder, heading string, rows []string) {
	if len(rows) > 0 {
		b.WriteByte('\n')
		table(b, heading, rows)
	}
}

func (r Report) writeChecks(b *strings.Builder) {
	var rows []string
	for _, c := range r.Checks {
		rows = append(rows, fmt.Sprintf("%s\t%s\t%d\t%d\t%s", c.Name, c.Verdict, c.Judged, c.Count, c.Rule))
	}
	table(b, "CHECK\tVERDICT\tJUDGED\tVIOLATIONS\tRULE", rows)
	for _, c := range r.Checks {
		for _, v := range c.Violations[:min(len(c.Violations), shownInText)] {
			fmt.Fprintf(b, "  %s: %s\n", c.Name, v.Text)
		}
		if more := c.Count - shownInText; more > 0 {
			fmt.Fprintf(b, "  %s: and %d more\n", c.Name, more)
		}
		if c.Note != "" {
			fmt.Fprintf(b, "  %s: %s\n", c.Name, c.Note)
		}
	}
}

func writeSeries(b *strings.Builder, all []Series) {
	var rows []string
	for _, s := range all {
		rows = append(rows, fmt.Sprintf("%s\t%s\t%d\t%d\t%d\t%.0f\t%s\t%s\t%s", s.Route, s.Kind, s.OK, s.Failed, s.Unknown, s.Rate, seconds(s.Gap), seconds(s.GapBegan), errorText(s.Errors)))
	}
	section(b, "ROUTE\tKIND\tOK\tFAILED\tUNKNOWN\tPER SECOND\tLONGEST GAP\tBEGAN AT\tERRORS", rows)
}

func (r Report) writeTerms(b *strings.Builder) {
	var rows []string
	for _, e := range r.Terms {
		term := "-"
		if e.Term > 0 {
			term = fmt.Sprint(e.Term)
		}
		rows = append(rows, fmt.Sprintf("%d\t%s\t%s\t%d\t%s\t%s", e.Timeline, term, cmp.Or(e.Member, "-"), e.Acknowledged, seconds(e.First), seconds(e.Last)))
	}
	section(b, "TIMELINE\tTERM\tMEMBER\tACKNOWLEDGED\tFIRST\tLAST", rows)
}

// writeFaults shows the writes of each route; the kinds one by one are in the JSON form.
func (r Report) writeFaults(b *strings.Builder) {
	var rows []string
	for _, f := range r.Faults {
		undone := "-"
		if f.Fault.End > 0 {
			undone = seconds(f.Fault.End)
		}
		for _, s := range summaries(f.Series) {
			rows = append(rows, fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s", f.Fault.Name, cmp.Or(f.Fault.Target, "-"), seconds(f.Fault.Begin), undone,
				s.Route, s.Kind, seconds(s.Gap), seconds(s.GapBegan), s.Failed, s.Unknown, errorText(s.Errors)))
		}
	}
	section(b, "FAULT\tTARGET\tAT\tUNDONE\tROUTE\tKIND\tLONGEST GAP\tBEGAN AT\tFAILED\tUNKNOWN\tERRORS", rows)
}

// summaries are the first series of each route: all its writes, or its only kind of write.
func summaries(all []Series) []Series {
	var out []Series
	for _, s := range all {
		if len(out) == 0 || out[len(out)-1].Route != s.Route {
			out = append(out, s)
		}
	}
	return out
}

func errorText(errs map[string]int) string {
	if len(errs) == 0 {
		return "none"
	}
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(errs)) {
		parts = append(parts, fmt.Sprintf("%s: %d", k, errs[k]))
	}
	return strings.Join(parts, ", ")
}
