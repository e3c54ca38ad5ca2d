package cli

import (
	"context"
	"fmt"
	"net/http"

	"github.com/havenha/haven/internal/cluster"
	"github.com/spf13/cobra"
)

func (c *console) flushCommand() *cobra.Command {
	var yes bool
	var role string
	cmd := &cobra.Command{
		Use: "flush [CLUSTER] [MEMBER...] restart|switchover", Short: "Take back what is scheduled",
		Long:    "Take back a scheduled switchover, or the scheduled restarts of the members named (or of all that have the role).",
		Example: "  haven flush switchover\n  haven flush db2 restart --yes",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 || args[len(args)-1] != "restart" && args[len(args)-1] != "switchover" {
				return usage("what shall be taken back?", "haven flush switchover, or haven flush [MEMBER...] restart")
			}
			rest, what := args[:len(args)-1], args[len(args)-1]
			if what == "switchover" {
				return c.flushSwitchover(cmd.Context(), rest, yes)
			}
			return c.each(cmd.Context(), rest, role, yes, "flush the scheduled restart of", flushRestart)
		},
	}
	yesFlag(cmd, &yes)
	roleFlag(cmd, &role)
	c.completeMembers(cmd)
	return cmd
}

func flushRestart(ctx context.Context, t target, m cluster.Member) outcome {
	o := t.deliver(ctx, m, http.MethodDelete, "/restart", nil, map[int]string{http.StatusOK: "Success: flush scheduled restart for member %s"}, "flush scheduled restart")
	if o.code == ExitNotFound { // nothing to do is no failure
		return outcome{Member: m.Name, Done: true, Text: "No scheduled restart for member " + m.Name}
	}
	return o
}

// flushSwitchover asks the leader, then the others.
func (c *console) flushSwitchover(ctx context.Context, args []string, yes bool) error {
	if err := c.noTSV(); err != nil {
		return err
	}
	t, err := c.target(ctx, args)
	if err != nil {
		return err
	}
	defer t.close()
	f := t.p.snap.Failover
	if f == nil || f.ScheduledAt == nil {
		return &Failure{Code: ExitNotFound, What: "No pending scheduled switchover", Next: "haven list shows what is scheduled"}
	}
	question := fmt.Sprintf("Take back the switchover from %s that is scheduled at %s?", or(f.Leader, "?"), f.ScheduledAt.Format("2006-01-02T15:04:05Z07:00"))
	if err := c.agree(ctx, yes, question); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, c.wait(changeTimeout))
	defer cancel()
	var last outcome
	for _, m := range t.leaderFirst() {
		last = t.deliver(ctx, m, http.MethodDelete, "/switchover", nil, map[int]string{http.StatusOK: "Success: scheduled switchover deleted (by %s)"}, "flush switchover")
		if last.code != ExitUnreachable {
			break
		}
	}
	return c.tell([]outcome{last})
}
