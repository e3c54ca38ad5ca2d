package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

const pageHead = `# Poolers side by side

What ` + "`make bench-pool`" + ` measured; it writes this page and ` + "`pool.json`" + ` again. One PostgreSQL, pgbench, and what is in between, all on one machine
and over loopback: they share the cores, so that a program in the middle that needs more of them leaves less to the
others. **tps** are transactions a second, **p50** and **p99** latencies as pgbench saw them, **CPU** is what the process
in the middle used for each transaction, **memory** its resident memory at the end of a run: it has been through other combinations before, and
gives little of it back. Medians; “–” is what a
program cannot do, or where nothing is in between; “not yet” is measured when the bench goes on (ADD=1). **of PgBouncer**
divides by PgBouncer's figure, of tps more is better, of CPU less: it is the median over the rounds. The machine's own speed changes by a
third, from one hour to the next and within a minute, too. So the programs of a combination are measured one after another in each round, and the two
poolers, haven-transaction and pgbouncer, by turns, in four parts each: all other ratios are less certain than these.

`

// render is the page, good or bad.
func render(r results) string {
	var b strings.Builder
	b.WriteString(pageHead)
	fmt.Fprintf(&b, "- Begun %s on %d cores (%s), Linux %s; load average at the start of the last part %.1f.\n", r.Begun.Format("2006-01-02 15:04"), r.Cores, r.CPU, r.Kernel, r.Load)
	fmt.Fprintf(&b, "- %s of %d s each, each part after %d s of warm-up, in shuffled order (seed of the last part %d); pgbench's scale is %d; poolers have %d server connections.\n",
		runsOf(r), r.Seconds, r.Warmup, r.Seed, r.Scale, r.Pool)
	for _, name := range slices.Sorted(maps.Keys(r.Versions)) {
		fmt.Fprintf(&b, "- %s: %s\n", name, cmp.Or(r.Versions[name], "not there"))
	}
	var tables [][2]string
	for _, c := range r.Cells {
		tables = append(tables, [2]string{c.Workload, c.Protocol})
	}
	slices.SortFunc(tables, func(a, b [2]string) int { return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(b[1], a[1])) })
	for _, t := range slices.Compact(tables) {
		renderTable(&b, r, t[0], t[1])
	}
	if len(r.Problems) > 0 {
		b.WriteString("\n## What went wrong\n\n")
		for _, p := range r.Problems {
			fmt.Fprintf(&b, "- %s\n", p)
		}
	}
	return b.String()
}

// runsOf says how often the cells were measured.
func runsOf(r results) string {
	least, most := 0, 0
	for i, c := range r.Cells {
		n := len(c.Runs)
		if i == 0 {
			least = n
		}
		least, most = min(least, n), max(most, n)
	}
	if least == most {
		return fmt.Sprintf("%d runs", least)
	}
	return fmt.Sprintf("%d to %d runs", least, most)
}

func workloadName(w string) string {
	if w == "select" {
		return "Select only"
	}
	return "TPC-B"
}

// renderTable shows one workload in one protocol.
func renderTable(b *strings.Builder, r results, workload, protocol string) {
	fmt.Fprintf(b, "\n## %s, %s protocol\n\n", workloadName(workload), protocol)
	b.WriteString("| clients | | tps | of PgBouncer | p50, ms | p99, ms | CPU, µs | of PgBouncer | memory, MB |\n| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for _, n := range clientsOf(r) {
		peer := find(r, "pgbouncer", workload, protocol, n)
		for _, v := range r.Variants {
			c := find(r, v, workload, protocol, n)
			m, ok := c.median()
			if !ok {
				fmt.Fprintf(b, "| %d | %s | %s | – | – | – | – | – | – |\n", n, v, missing(c))
				continue
			}
			fmt.Fprintf(b, "| %d | %s | %.0f | %s | %.2f | %.2f | %s | %s | %s |\n", n, v, m.TPS, c.ratio(peer, sample.tps), m.P50, m.P99,
				figure(m.CPU, "%.1f"), c.ratio(peer, sample.cpu), figure(m.RSS, "%.0f"))
		}
	}
}

// missing says why a cell has no figures.
func missing(c cell) string {
	if c.Variant == "" { // it was not asked for, or cannot be had
		return "–"
	}
	return "not yet"
}

func clientsOf(r results) []int {
	var out []int
	for _, c := range r.Cells {
		out = append(out, c.Clients)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func find(r results, variant, workload, protocol string, clients int) cell {
	wanted := cell{Variant: variant, Workload: workload, Protocol: protocol, Clients: clients}
	if i := slices.IndexFunc(r.Cells, wanted.same); i >= 0 {
		return r.Cells[i]
	}
	return cell{}
}

func (s sample) tps() float64 { return s.TPS }
func (s sample) cpu() float64 { return s.CPU }

// median takes each figure for itself.
func (c cell) median() (sample, bool) {
	if len(c.Runs) == 0 {
		return sample{}, false
	}
	of := func(get func(sample) float64) float64 {
		var all []float64
		for _, s := range c.Runs {
			all = append(all, get(s))
		}
		return middle(all)
	}
	return sample{TPS: of(sample.tps), P50: of(func(s sample) float64 { return s.P50 }),
		P99: of(func(s sample) float64 { return s.P99 }), CPU: of(sample.cpu), RSS: of(func(s sample) float64 { return s.RSS })}, true
}

func figure(f float64, format string) string {
	if f == 0 {
		return "–"
	}
	return fmt.Sprintf(format, f)
}

// ratio is the median over the rounds that both were measured in.
func (c cell) ratio(peer cell, get func(sample) float64) string {
	var all []float64
	for _, s := range c.Runs {
		if other, ok := peer.of(s.Round); ok && get(s) > 0 && get(other) > 0 {
			all = append(all, get(s)/get(other))
		}
	}
	if len(all) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", middle(all))
}

func middle(all []float64) float64 {
	slices.Sort(all)
	return all[(len(all)-1)/2]
}
