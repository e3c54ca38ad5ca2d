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

func table(b *strings.Builder) *tabwriter.Writer { return tabwriter.NewWriter(b, 0, 0, 2, ' ', 0) }

func (r Report) writeChecks(b *strings.Builder) {
	t := table(b)
	fmt.Fprintln(t, "CHECK\tVERDICT\tJUDGED\tVIOLATIONS\tRULE")
	for _, c := range r.Checks {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\n", c.Name, c.Verdict, c.Judged, c.Count, c.Rule)
	}
	_ = t.Flush() // into a builder
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
	if len(all) == 0 {
		return
	}
	b.WriteByte('\n')
	t := table(b)
	fmt.Fprintln(t, "ROUTE\tKIND\tOK\tFAILED\tUNKNOWN\tPER SECOND\tLONGEST GAP\tBEGAN AT\tERRORS")
	for _, s := range all {
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%d\t%.0f\t%s\t%s\t%s\n", s.Route, s.Kind, s.OK, s.Failed, s.Unknown, s.Rate, seconds(s.Gap), seconds(s.GapBegan), errorText(s.Errors))
	}
	_ = t.Flush() // into a builder
}

func (r Report) writeTerms(b *strings.Builder) {
	if len(r.Terms) == 0 {
		return
	}
	b.WriteByte('\n')
	t := table(b)
	fmt.Fprintln(t, "TIMELINE\tTERM\tMEMBER\tACKNOWLEDGED\tFIRST\tLAST")
	for _, e := range r.Terms {
		term := "-"
		if e.Term > 0 {
			term = fmt.Sprint(e.Term)
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%d\t%s\t%s\n", e.Timeline, term, cmp.Or(e.Member, "-"), e.Acknowledged, seconds(e.First), seconds(e.Last))
	}
	_ = t.Flush() // into a builder
}

// writeFaults shows the writes of each route; the kinds one by one are in the JSON form.
func (r Report) writeFaults(b *strings.Builder) {
	if len(r.Faults) == 0 {
		return
	}
	b.WriteByte('\n')
	t := table(b)
	fmt.Fprintln(t, "FAULT\tTARGET\tAT\tUNDONE\tROUTE\tKIND\tLONGEST GAP\tBEGAN AT\tFAILED\tUNKNOWN\tERRORS")
	for _, f := range r.Faults {
		undone := "-"
		if f.Fault.End > 0 {
			undone = seconds(f.Fault.End)
		}
		for _, s := range summaries(f.Series) {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", f.Fault.Name, cmp.Or(f.Fault.Target, "-"), seconds(f.Fault.Begin), undone,
				s.Route, s.Kind, seconds(s.Gap), seconds(s.GapBegan), s.Failed, s.Unknown, errorText(s.Errors))
		}
	}
	_ = t.Flush() // into a builder
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
