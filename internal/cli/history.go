package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/havenha/haven/internal/cluster"
	"github.com/spf13/cobra"
)

// historyRow is one change of timeline; its keys are patronictl's, and Cause is ours.
type historyRow struct {
	TL        uint32 `json:"TL"`
	LSN       uint64 `json:"LSN"`
	Reason    string `json:"Reason"`
	Timestamp string `json:"Timestamp"`
	NewLeader string `json:"New Leader"`
	Cause     string `json:"Cause,omitempty"`
}

func (c *console) historyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "history [CLUSTER]", Short: "List the changes of timeline", Args: atMost(1),
		Long: `List the changes of timeline. Reason is PostgreSQL's text; Cause says why leadership changed, where
that was recorded (see haven explain). LSN is a number of bytes for machines, as in patronictl.`,
	}
	cmd.Flags().StringVarP(&c.output, "format", "f", "text", "the same as -o")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.show(cmd.Context(), args, 0, view{show: func(w io.Writer, p picture) error { return c.history(w, p) }})
	}
	return cmd
}

func (c *console) history(w io.Writer, p picture) error {
	rows := []historyRow{}
	classic := c.ctl != nil
	g := grid{columns: []column{{"TL", true}, {"LSN", true}, {"Reason", false}, {"Timestamp", false}, {"New Leader", false}}}
	if !classic {
		g.columns = append(g.columns, column{"Cause", false})
	}
	for _, h := range p.snap.History {
		r := historyRow{TL: uint32(h.Timeline), LSN: uint64(h.LSN), Reason: h.Reason, Timestamp: h.Timestamp, NewLeader: h.NewLeader}
		if !classic {
			r.Cause = causeOf(h, p.snap.Events)
		}
		rows = append(rows, r)
		lsn := h.LSN.String()
		if c.output == "tsv" || classic {
			lsn = fmt.Sprint(r.LSN)
		}
		cells := []string{fmt.Sprint(r.TL), lsn, r.Reason, r.Timestamp, r.NewLeader, or(r.Cause, "?")}
		g.rows = append(g.rows, cells[:len(g.columns)])
	}
	switch {
	case c.structured():
		return c.emit(w, rows)
	case c.output == "tsv":
		_, err := fmt.Fprint(w, g.tsv())
		return err
	}
	_, err := fmt.Fprint(w, g.String())
	if err == nil && len(rows) == 0 && !classic {
		c.say("no change of timeline is recorded")
	}
	return err
}

// causeOf is the cause of the change that ended a timeline, if the store still has its event.
func causeOf(h cluster.HistoryLine, events []cluster.Event) string {
	for _, e := range events {
		if e.Timeline == h.Timeline+1 && (h.NewLeader == "" || h.NewLeader == e.NewLeader) {
			return strings.TrimSpace(e.Kind + ": " + e.Cause.Text)
		}
	}
	return ""
}
