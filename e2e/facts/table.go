package facts

import (
	"fmt"
	"strings"
)

// Markdown is the page of all reports: what holds on which version, and the figures.
func Markdown(reports []Report) string {
	var b strings.Builder
	b.WriteString("# PostgreSQL facts that the engine leans on\n\n" +
		"Written by `make facts`; do not edit. Each fact is a test in `e2e/facts`, on real servers on one machine: a run fails where\n" +
		"one does not hold. Times are medians (least to greatest); they depend on the machine, and nothing leans on them.\n\n")
	for _, r := range reports {
		fmt.Fprintf(&b, "- PostgreSQL %s: %d runs of each, %d cores, Linux %s\n", r.PostgreSQL, r.Runs, r.Cores, r.Kernel)
	}
	b.WriteString("\n| fact | what leans on it | PostgreSQL | figures |\n| --- | --- | --- | --- |\n")
	for _, f := range merged(reports) {
		var versions, figures []string
		for _, r := range reports {
			seen, ok := r.fact(f.Name)
			if !ok {
				continue
			}
			version := r.Major()
			if !seen.Holds {
				version += " **does not hold**"
			}
			versions = append(versions, version)
			if text := list(seen.Figures); text != "" {
				figures = append(figures, prefix(reports, r)+text)
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", f.Says, f.Leans, strings.Join(versions, ", "), strings.Join(figures, "<br>"))
	}
	return b.String()
}

// prefix names the version where there are several.
func prefix(reports []Report, r Report) string {
	if len(reports) < 2 {
		return ""
	}
	return r.Major() + ": "
}

func list(figures []Figure) string {
	var out []string
	for _, f := range figures {
		out = append(out, f.String())
	}
	return strings.Join(out, "; ")
}

func (r Report) fact(name string) (Fact, bool) {
	for _, f := range r.Facts {
		if f.Name == name {
			return f, true
		}
	}
	return Fact{}, false
}

// merged lists each fact once, in the order of the newest report that has it; its texts are that report's.
func merged(reports []Report) []Fact {
	var out []Fact
	seen := map[string]bool{}
	for n := len(reports) - 1; n >= 0; n-- {
		for _, f := range reports[n].Facts {
			if !seen[f.Name] {
				seen[f.Name] = true
				out = append(out, f)
			}
		}
	}
	return out
}
