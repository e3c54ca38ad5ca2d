package main

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strings"

	"github.com/havenha/haven/internal/check"
	"github.com/havenha/haven/internal/drill/hosts"
)

// render is the page with the table, good or bad.
func render(r results) string {
	var b strings.Builder
	b.WriteString(pageHead)
	m := r.Machine
	fmt.Fprintf(&b, "- Measured %s on %d cores (%s), %d GiB, Linux %s; fdatasync of 8 kB: p50 %.2f ms, p99 %.2f ms.\n",
		r.Begun.Format("2006-01-02"), m.Cores, m.CPU, m.Memory>>30, m.Kernel, m.FsyncP50*1e3, m.FsyncP99*1e3)
	for _, name := range slices.Sorted(maps.Keys(m.Versions)) {
		fmt.Fprintf(&b, "- %s: %s\n", name, cmp.Or(m.Versions[name], "not there"))
	}
	b.WriteString("\n## Settings\n\n| variant | ttl | loop_wait | retry_timeout | primary_start_timeout | HAProxy's check |\n| --- | ---: | ---: | ---: | ---: | --- |\n")
	for _, v := range r.Variants {
		s := v.Settings
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", v.Name, s.TTL, s.LoopWait, s.RetryTimeout, only(v.Peer, s.StartTimeout.String()), only(v.Peer, s.Check))
	}
	renderFaults(&b, r)
	renderRatios(&b, r)
	renderIdle(&b, r)
	renderProblems(&b, r)
	return b.String()
}

const pageHead = `# Side by side

What ` + "`make bench`" + ` measured; it writes this page and ` + "`raw.json`" + ` again. Three database hosts, a balancer and a client, each a network namespace
on one machine, the same faults on both products, in one run. Eight writers on the client's host insert rows through the
balancer, with 10 ms between an answer and the next row; all hit the primary, in synchronous mode.

**Outage** is the longest time between two acknowledgements that the writers saw, **errors** are inserts that failed or
whose outcome is unknown, **health** is the time from the fault (from its undoing, where it needs one) until all members
stream, a synchronous standby is recorded, and the balancer leads to the primary. Medians, with the least and the most.
After each fault every row is read back: nothing acknowledged may be missing, nothing twice.

`

func only(is bool, text string) string {
	if is {
		return text
	}
	return ""
}

// runs are all runs of one fault on a variant.
func (v variantResult) runs(fault string) []faultResult {
	return slices.DeleteFunc(slices.Clone(v.Faults), func(f faultResult) bool { return f.Fault != fault })
}

func pick(runs []faultResult, of func(faultResult) float64) []float64 {
	var out []float64
	for _, r := range runs {
		out = append(out, of(r))
	}
	slices.Sort(out)
	return out
}

func outage(r faultResult) float64   { return r.Outage }
func mistakes(r faultResult) float64 { return float64(r.Errors) }
func health(r faultResult) float64 {
	if r.Healthy < 0 {
		return math.Inf(1)
	}
	return r.Healthy
}

func median(sorted []float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	return sorted[(len(sorted)-1)/2]
}

// spread is the median with the least and the most, where they differ.
func spread(sorted []float64, format string) string {
	if len(sorted) == 0 {
		return "–"
	}
	least, mid, most := sorted[0], median(sorted), sorted[len(sorted)-1]
	show := func(f float64) string {
		if math.IsInf(f, 1) {
			return "never"
		}
		return fmt.Sprintf(format, f)
	}
	if show(least) == show(most) {
		return show(mid)
	}
	return fmt.Sprintf("**%s** (%s–%s)", show(mid), show(least), show(most))
}

func renderFaults(b *strings.Builder, r results) {
	for _, t := range []struct {
		title, format string
		of            func(faultResult) float64
	}{{"Outage, seconds", "%.2f", outage}, {"Errors", "%.0f", mistakes}, {"Time to full health, seconds", "%.1f", health}} {
		fmt.Fprintf(b, "\n## %s\n\n| |", t.title)
		for _, v := range r.Variants {
			fmt.Fprintf(b, " %s |", v.Name)
		}
		b.WriteString("\n| --- |" + strings.Repeat(" ---: |", len(r.Variants)) + "\n")
		if t.title == "Time to full health, seconds" {
			b.WriteString("| start of the cluster |")
			for _, v := range r.Variants {
				fmt.Fprintf(b, " %s |", spread(slices.Sorted(slices.Values(v.Boots)), t.format))
			}
			b.WriteString("\n")
		}
		for _, f := range benchFaults() {
			fmt.Fprintf(b, "| %s |", f)
			for _, v := range r.Variants {
				fmt.Fprintf(b, " %s |", spread(pick(v.runs(f), t.of), t.format))
			}
			b.WriteString("\n")
		}
	}
}

// renderRatios holds the quickest of each product against the other.
func renderRatios(b *strings.Builder, r results) {
	ours, theirs := last(r.Variants, false), last(r.Variants, true)
	if ours == nil || theirs == nil {
		return
	}
	fmt.Fprintf(b, "\n## Ratios of the median outage: %s to %s\n\n| | ratio |\n| --- | ---: |\n", theirs.Name, ours.Name)
	for _, f := range benchFaults() {
		fmt.Fprintf(b, "| %s | %.1f |\n", f, median(pick(theirs.runs(f), outage))/median(pick(ours.runs(f), outage)))
	}
}

// last is the quickest variant of a product: they stand in that order.
func last(all []variantResult, peer bool) *variantResult {
	for _, v := range slices.Backward(all) {
		if v.Peer == peer {
			return &v
		}
	}
	return nil
}

func renderIdle(b *strings.Builder, r results) {
	b.WriteString("\n## An idle cluster\n\nResident memory of the processes of one database host besides PostgreSQL, and of the balancer (MiB); entries a second in the raft log of the store.\n\n| variant | agent, etcd | balancer | raft entries/s |\n| --- | --- | ---: | ---: |\n")
	for _, v := range r.Variants {
		var host, balancer []string
		for _, h := range v.Memory {
			switch h.Host {
			case "db1":
				host = append(host, managers(h.Processes)...)
			case "lb":
				balancer = append(balancer, managers(h.Processes)...)
			}
		}
		fmt.Fprintf(b, "| %s | %s | %s | %.2f |\n", v.Name, strings.Join(host, ", "), strings.Join(balancer, ", "), v.StoreWrites)
	}
}

// managers are the processes that are not PostgreSQL's.
func managers(all []hosts.Usage) []string {
	var out []string
	for _, p := range all {
		for _, word := range strings.Fields(p.Command)[:min(2, len(strings.Fields(p.Command)))] { // an interpreter, perhaps, and its script
			if name := path.Base(word); slices.Contains([]string{"haven", "patroni", "etcd", "haproxy"}, name) {
				out = append(out, fmt.Sprintf("%s %d", name, p.Resident>>20))
				break
			}
		}
	}
	return out
}

func renderProblems(b *strings.Builder, r results) {
	b.WriteString("\n## What the checker said\n\n")
	bad := 0
	for _, v := range r.Variants {
		for _, f := range v.Faults {
			if f.Verdict != string(check.Pass) || f.Healthy < 0 {
				bad++
				fmt.Fprintf(b, "- %s, %s: %s\n\n```\n%s\n```\n", v.Name, f.Fault, f.Verdict, strings.TrimSpace(f.Detail))
			}
		}
	}
	if bad == 0 {
		b.WriteString("Every run passed: nothing that was acknowledged is missing, nothing is there twice.\n")
	}
}
