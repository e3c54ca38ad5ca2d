package cli

import (
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func (c *console) topologyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "topology [CLUSTER]", Short: "List the members as a tree of who copies from whom", Args: atMost(1),
		Long: "List the members, each below the one that it replicates from (its tag replicatefrom, else the leader).",
	}
	every := c.tableFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.show(cmd.Context(), args, time.Duration(*every), view{summary: summary, show: func(w io.Writer, p picture) error {
			return c.members(w, p, tree(p, rowsOf(p)), false)
		}})
	}
	return cmd
}

// tree puts each member below its source; who is his own source in the end (a circle of tags) stands at the top.
func tree(p picture, rows []listRow) []listRow {
	leader := p.leader()
	known := map[string]bool{}
	for _, r := range rows {
		known[r.Member] = true
	}
	children := map[string][]listRow{}
	for _, r := range rows {
		children[parent(r, leader, known)] = append(children[parent(r, leader, known)], r)
	}
	var out []listRow
	placed := map[string]bool{}
	var place func(r listRow, level int)
	place = func(r listRow, level int) {
		if placed[r.Member] {
			return
		}
		placed[r.Member] = true
		name := r.Member
		if level > 0 {
			r.Member = strings.Repeat("  ", level-1) + "+ " + name
		}
		out = append(out, r)
		for _, child := range children[name] {
			place(child, level+1)
		}
	}
	for _, r := range children[""] {
		place(r, 0)
	}
	for _, r := range rows {
		place(r, 0)
	}
	return out
}

func parent(r listRow, leader string, known map[string]bool) string {
	if r.Member == leader {
		return ""
	}
	if from, ok := r.Tags["replicatefrom"].(string); ok && known[from] && from != r.Member {
		return from
	}
	return leader
}
