package e2e

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/havenha/haven/internal/check"
)

// mixedPage names the variable with the path of the page that is written of what was measured.
const mixedPage = "HAVEN_MIXED_PAGE"

// stretch is a time under writers, and what was done meanwhile.
type stretch struct {
	what    string
	changes []string // of leadership: from → to, with the longest time until all followed
	report  check.Report
}

const mixedHead = `# Mixed clusters

What ` + "`make mixed`" + ` measured; it writes this page again. Two members that Patroni runs and one that Haven runs, on
Debian's etcd 3.4 (ttl 20 s, loop_wait 2 s), on one machine. Four writers insert rows, others read, append and move money, by
a connection string that leads to whoever accepts writes. At the end every row is read back: **lost** is what was acknowledged and is not there, **twice**
what is there more than once. Leadership is moved by the genuine patronictl; a killed leader loses its agent and its server at
once (kill -9), and comes back. The outage is the longest time between two acknowledgements; after a kill it is the ttl.
`

const mixedTable = `
| meanwhile | changes of leadership | rows acknowledged | rows a second | lost | twice | outage, s |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
`

// writePage writes the page, or adds to it, if the variable asks for it.
func (m *mixedCluster) writePage(patroni string, add bool) {
	m.t.Helper()
	path := os.Getenv(mixedPage)
	if path == "" || m.t.Failed() {
		return
	}
	var b strings.Builder
	if before, err := os.ReadFile(path); add && err == nil {
		b.Write(before)
	} else {
		b.WriteString(mixedHead)
	}
	b.WriteString("\n## " + patroni + "\n" + mixedTable)
	for _, s := range m.stretches {
		rows, _ := s.report.Find(check.Ledger, "primary")
		all, _ := s.report.Find("any write", "primary")
		lost, _ := s.report.Check(check.CheckAcknowledged)
		twice, _ := s.report.Check(check.CheckTwice)
		fmt.Fprintf(&b, "| %s | %d | %d | %.0f | %d | %d | %.1f |\n", s.what, len(s.changes), rows.OK, rows.Rate, lost.Count, twice.Count, max(all.Gap, rows.Gap).Seconds())
	}
	b.WriteString("\nEach change, and how long it took until all members followed:\n\n")
	for _, s := range m.stretches {
		fmt.Fprintf(&b, "- %s: %s.\n", s.what, strings.Join(s.changes, ", "))
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// changed notes a change of leadership.
func (m *mixedCluster) changed(from, to string, took time.Duration) {
	m.changes = append(m.changes, fmt.Sprintf("%s → %s %.1f s", from, to, took.Seconds()))
}
