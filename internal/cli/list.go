package cli

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/havenha/haven/internal/api"
	"github.com/havenha/haven/internal/cluster"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// listRow is a member in the output for machines; its keys are patronictl's. Lags are in MB, rounded.
type listRow struct {
	Cluster    string         `json:"Cluster"`
	Member     string         `json:"Member"`
	Host       string         `json:"Host,omitempty"`
	Role       string         `json:"Role"`
	State      string         `json:"State,omitempty"`
	Progress   string         `json:"Progress,omitempty"` // of a copy that is being made
	TL         uint32         `json:"TL,omitempty"`
	ReceiveLSN string         `json:"Receive LSN,omitempty"`
	ReceiveLag *int64         `json:"Receive Lag,omitempty"`
	ReplayLSN  string         `json:"Replay LSN,omitempty"`
	ReplayLag  *int64         `json:"Replay Lag,omitempty"`
	Pending    string         `json:"Pending restart,omitempty"`
	Reason     string         `json:"Pending restart reason,omitempty"`
	Scheduled  string         `json:"Scheduled restart,omitempty"`
	Tags       map[string]any `json:"Tags,omitempty"`
}

func (c *console) listCommand() *cobra.Command {
	var extended, stamp bool
	cmd := &cobra.Command{
		Use: "list [CLUSTER]", Short: "List the members", Args: atMost(1),
		Long: `List the members in the form of patronictl list. Lags are in MB; an LSN that is not known is
shown as unknown, with an empty lag. For a verdict, use haven status.`,
		Example: "  haven list\n  haven list -o json\n  haven list --watch=1s",
	}
	every := c.tableFlags(cmd)
	cmd.Flags().BoolVarP(&extended, "extended", "e", false, "show all columns")
	cmd.Flags().BoolVarP(&stamp, "timestamp", "t", false, "print the time first")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.show(cmd.Context(), args, time.Duration(*every), view{summary: summary, show: func(w io.Writer, p picture) error {
			if stamp && c.output == "text" {
				fmt.Fprintln(w, time.Now().Format(time.DateTime))
			}
			return c.members(w, p, rowsOf(p), extended)
		}})
	}
	return cmd
}

// tableFlags adds --watch, and -f for the habits of patronictl.
func (c *console) tableFlags(cmd *cobra.Command) *interval {
	cmd.Flags().StringVarP(&c.output, "format", "f", "text", "the same as -o")
	return watchFlag(cmd)
}

func rowsOf(p picture) []listRow {
	doc := api.Describe(p.scope, p.snap, p.dynamic)
	withPort := ports(doc.Members)
	var rows []listRow
	for _, m := range doc.Members {
		r := listRow{Cluster: p.scope, Member: m.Name, Host: m.Host, Role: roleTitle(m.Role), State: m.State, TL: uint32(m.Timeline), Tags: m.Tags}
		if withPort && m.Port != 0 {
			r.Host = fmt.Sprintf("%s:%d", m.Host, m.Port)
		}
		r.ReceiveLSN, r.ReceiveLag = positionCell(m.ReceiveLSN, m.ReceiveLag)
		r.ReplayLSN, r.ReplayLag = positionCell(m.ReplayLSN, m.ReplayLag)
		if m.PendingRestart {
			r.Pending, r.Reason = "*", reasonCell(m)
		}
		r.Progress = progressOf(p, m.Name)
		r.Scheduled = scheduledCell(m.Scheduled)
		rows = append(rows, r)
	}
	return rows
}

// progressOf tells how far the copy of a member's database is; empty: none is being made.
func progressOf(p picture, name string) string {
	if m, there := p.snap.Member(name); there && m.Haven != nil {
		return m.Haven.Progress
	}
	return ""
}

// withProgress is a state, for people, with how far it is.
func withProgress(state, progress string) string {
	if progress == "" {
		return state
	}
	return state + ", " + progress
}

// ports tells whether addresses are shown with their ports: one is not 5432, or several members share a host.
func ports(members []api.Member) bool {
	seen := map[string]bool{}
	for _, m := range members {
		if m.Port != 5432 && m.Port != 0 || seen[m.Host] {
			return true
		}
		seen[m.Host] = true
	}
	return false
}

func roleTitle(role string) string {
	words := strings.Split(role, "_")
	for i, w := range words {
		words[i] = strings.ToUpper(w[:1]) + w[1:]
	}
	return strings.Join(words, " ")
}

func positionCell(lsn, lag any) (string, *int64) {
	text, _ := lsn.(string) // nil on the leader
	n, known := lag.(uint64)
	if !known {
		return text, nil
	}
	mb := int64(math.Round(float64(n) / 1024 / 1024))
	return text, &mb
}

func reasonCell(m api.Member) string {
	var lines []string
	for name, change := range m.PendingReason {
		lines = append(lines, fmt.Sprintf("%s: %s->%s", name, change.Old, change.New))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func scheduledCell(raw []byte) string {
	var s struct {
		Schedule string `yaml:"schedule"`
		Version  string `yaml:"postgres_version"`
	}
	if yaml.Unmarshal(raw, &s) != nil || s.Schedule == "" { // JSON is YAML
		return ""
	}
	if s.Version != "" {
		return s.Schedule + " if version < " + s.Version
	}
	return s.Schedule
}

// members writes the table, or its rows for machines, and below the table what patronictl adds.
func (c *console) members(w io.Writer, p picture, rows []listRow, extended bool) error {
	if c.ctl != nil { // whose columns have no place for it
		for i := range rows {
			rows[i].Progress = ""
		}
	}
	if c.structured() {
		if rows == nil {
			rows = []listRow{}
		}
		return c.emit(w, rows)
	}
	g := memberGrid(rows, extended || c.output == "tsv", c.output == "tsv")
	if c.output == "tsv" {
		_, err := fmt.Fprint(w, g.tsv())
		return err
	}
	g.title = fmt.Sprintf(" Cluster: %s (%s) ", p.scope, systemID(p))
	_, err := fmt.Fprint(w, g.String()+footer(p))
	return err
}

func systemID(p picture) string {
	switch i := p.snap.Initialize; {
	case i == nil:
		return "uninitialized"
	case i.SystemID == "":
		return "initializing"
	default:
		return i.SystemID
	}
}

// memberGrid has patronictl's columns; those at the end only where they have something to show, or with all.
func memberGrid(rows []listRow, all, tsv bool) grid {
	lag := "Lag"
	columns := []column{{"Member", false}, {"Host", false}, {"Role", false}, {"State", false}, {"TL", true},
		{"Receive LSN", true}, {lag, true}, {"Replay LSN", true}, {lag, true}}
	optional := []struct {
		name string
		cell func(listRow) string
	}{
		{"Pending restart", func(r listRow) string { return r.Pending }},
		{"Pending restart reason", func(r listRow) string { return hideLong(r.Reason, tsv) }},
		{"Scheduled restart", func(r listRow) string { return r.Scheduled }},
		{"Tags", func(r listRow) string { return tagsCell(r.Tags, tsv) }},
	}
	if tsv {
		columns[6].name, columns[8].name = "Receive Lag", "Replay Lag"
		columns = append([]column{{"Cluster", false}}, columns...)
	}
	g := grid{columns: columns}
	for _, r := range rows {
		cells := []string{r.Member, r.Host, r.Role, withProgress(r.State, r.Progress), number(r.TL), r.ReceiveLSN, lagCell(r.ReceiveLag), r.ReplayLSN, lagCell(r.ReplayLag)}
		if tsv {
			cells = append([]string{r.Cluster}, cells...)
		}
		g.rows = append(g.rows, cells)
	}
	for _, o := range optional {
		if !all && !slices.ContainsFunc(rows, func(r listRow) bool { return o.cell(r) != "" }) {
			continue
		}
		g.columns = append(g.columns, column{o.name, false})
		for i, r := range rows {
			g.rows[i] = append(g.rows[i], o.cell(r))
		}
	}
	return g
}

func number(n uint32) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func lagCell(n *int64) string {
	if n == nil {
		return ""
	}
	return fmt.Sprint(*n)
}

func hideLong(reason string, full bool) string {
	lines := strings.Split(reason, "\n")
	for i, l := range lines {
		if name, _, ok := strings.Cut(l, ": "); ok && len(l) > 50 && !full {
			lines[i] = name + ": [hidden - too long]"
		}
	}
	return strings.Join(lines, "\n")
}

func tagsCell(tags map[string]any, flow bool) string {
	if len(tags) == 0 {
		return ""
	}
	var n yaml.Node
	if n.Encode(tags) != nil {
		return "?"
	}
	if flow {
		n.Style = yaml.FlowStyle
	}
	text, err := yaml.Marshal(&n)
	if err != nil {
		return "?"
	}
	return strings.TrimSpace(string(text))
}

// footer is what stands below the table: maintenance mode, and a scheduled switchover.
func footer(p picture) string {
	var b strings.Builder
	if p.dynamic.Pause {
		b.WriteString(" Maintenance mode: on\n")
	}
	if f := p.snap.Failover; f != nil && f.ScheduledAt != nil {
		fmt.Fprintf(&b, " Switchover scheduled at: %s\n", f.ScheduledAt.Format(cluster.TimeFormat))
		for _, l := range []struct{ label, name string }{{"from:", f.Leader}, {"to:", f.Candidate}} {
			if l.name != "" {
				fmt.Fprintf(&b, "%24s %s\n", l.label, l.name)
			}
		}
	}
	return b.String()
}

// summary is the cluster in one line, without what changes all the time.
func summary(p picture) string {
	parts := []string{"cluster " + p.scope, "leader " + or(p.leader(), "none")}
	if t := p.snap.Term; t.Binds(p.snap.Leader) {
		parts = append(parts, fmt.Sprintf("term %d %s", t.Number, t.State))
	}
	for _, m := range api.Describe(p.scope, p.snap, p.dynamic).Members {
		parts = append(parts, fmt.Sprintf("%s %s %s", m.Name, m.Role, or(m.State, "?")))
	}
	if p.dynamic.Pause {
		parts = append(parts, "maintenance mode")
	}
	return strings.Join(parts, "; ")
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
