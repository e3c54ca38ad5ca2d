package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/havenha/haven/internal/api"
	"github.com/havenha/haven/internal/cluster"
	"github.com/spf13/cobra"
)

func (c *console) upgradeCommand() *cobra.Command {
	var yes bool
	var role string
	cmd := &cobra.Command{
		Use: "upgrade [CLUSTER] [MEMBER...]", Short: "Have members go on as the Haven that is installed now, PostgreSQL untouched",
		Long: `Have members go on as the program that is installed now: those named, or all, one after the other, the leader last.
Install it on their hosts first. Each member's agent is replaced by the new program in the same process, which takes
up server, guard and lease within its term; PostgreSQL goes on, and leadership stays. Sessions through a proxy on such a
host are cut. A program that does not take the member's configuration is refused, and nothing has changed; the first
trouble ends the command.`,
		Example: "  haven upgrade\n  haven upgrade db2 --yes\n  haven upgrade shop --role replica",
	}
	yesFlag(cmd, &yes)
	roleFlag(cmd, &role)
	c.completeMembers(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		trouble := ""
		return c.eachOf(cmd.Context(), args, role, yes, "upgrade", replicasFirst, func(ctx context.Context, t target, m cluster.Member) outcome {
			if trouble != "" {
				return outcome{Member: m.Name, Text: fmt.Sprintf("Not begun: upgrade of member %s, after the trouble with %s", m.Name, trouble), code: ExitFailed}
			}
			o := t.upgrade(ctx, m)
			if !o.Done {
				trouble = m.Name
			}
			return o
		})
	}
	return cmd
}

// upgrade asks one member, and waits until another program answers for it.
func (t target) upgrade(ctx context.Context, m cluster.Member) outcome {
	before, err := t.client.Status(ctx, m.APIBase())
	if err != nil {
		return outcome{Member: m.Name, Text: fmt.Sprintf("Failed: upgrade for member %s, %v", m.Name, err), code: ExitUnreachable}
	}
	o := t.deliver(ctx, m, http.MethodPost, "/haven/upgrade", json.RawMessage("{}"), map[int]string{http.StatusAccepted: "%s"}, "upgrade")
	if !o.Done {
		return o
	}
	now, err := t.awaitProgram(ctx, m, before)
	switch {
	case err != nil:
		return outcome{Member: m.Name, Text: fmt.Sprintf("Failed: upgrade for member %s, it was told to, and does not answer as it should: %v", m.Name, err), code: ExitTimeout}
	case now.Version == before.Version:
		o.Text = fmt.Sprintf("Member %s was started again as haven %s, which it was before", m.Name, now.Version)
	default:
		o.Text = fmt.Sprintf("Member %s goes on as haven %s, was %s", m.Name, now.Version, before.Version)
	}
	return o
}

// awaitProgram waits for the answer of a program that was started after the former one, with a server that answers if it did.
func (t target) awaitProgram(ctx context.Context, m cluster.Member, before api.Status) (api.Status, error) {
	for {
		now, err := t.client.Status(ctx, m.APIBase())
		if err == nil && !now.Started.Equal(before.Started) && now.Answers == before.Answers && now.Leads == before.Leads {
			return now, nil
		}
		if ctx.Err() != nil {
			return now, ctx.Err()
		}
		pauseFor(ctx, 100*time.Millisecond)
	}
}
