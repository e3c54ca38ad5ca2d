package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/spf13/cobra"
)

// ctlTarget reads the cluster that the first argument names; the others are members.
func (c *console) ctlTarget(ctx context.Context, args []string) (target, error) {
	t, err := c.open(ctx, args[0])
	t.named = args[1:]
	return t, err
}

// onCtlTarget runs a command on what ctlTarget has read.
func (c *console) onCtlTarget(run func(context.Context, target) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		t, err := c.ctlTarget(cmd.Context(), args)
		if err != nil {
			return err
		}
		defer t.close()
		return run(cmd.Context(), t)
	}
}

// ctlEach asks once, and then does something with each member that is meant.
func (c *console) ctlEach(ctx context.Context, args []string, role string, force bool, action string, do func(context.Context, target, cluster.Member) outcome) error {
	t, err := c.ctlTarget(ctx, args)
	if err != nil {
		return err
	}
	defer t.close()
	members, err := c.ctlMembers(t, role)
	if err != nil {
		return err
	}
	if !force {
		question := fmt.Sprintf("Are you sure you want to %s members %s?", action, strings.Join(nameList(members), ", "))
		if err := c.confirm(ctx, question, "Aborted "+action); err != nil {
			return err
		}
	}
	var outcomes []outcome
	for _, m := range members {
		limited, cancel := context.WithTimeout(ctx, c.wait(changeTimeout))
		outcomes = append(outcomes, do(limited, t, m))
		cancel()
	}
	return c.ctlTell(outcomes)
}

// ctlTell prints the outcomes; any failure sets exit status 1.
func (c *console) ctlTell(outcomes []outcome) error {
	var failed error
	for _, o := range outcomes {
		fmt.Fprintln(c.out, o.Text)
		if o.code != 0 {
			failed = verdictCode(ExitFailed)
		}
	}
	return failed
}

func (c *console) ctlRestart() *cobra.Command {
	r := &restart{c: c}
	cmd := &cobra.Command{Use: "restart CLUSTER_NAME [MEMBER_NAMES...]", Short: "Restart PostgreSQL", Args: ctlArgs(1, -1)}
	f := cmd.Flags()
	roleFlag(cmd, &r.role)
	f.BoolVar(&r.any, "any", false, "a single member only")
	f.StringVar(&r.scheduled, "scheduled", "", "when (ISO 8601)")
	f.StringVar(&r.version, "pg-version", "", "only if the server is older than this")
	f.BoolVar(&r.pending, "pending", false, "only if a restart is pending")
	f.Var(&r.start, "timeout", "`SECONDS` in which it has to be up again")
	f.BoolVar(&r.yes, "force", false, "do not ask")
	cmd.RunE = c.onCtlTarget(r.classic)
	return cmd
}

func (r *restart) classic(ctx context.Context, t target) error {
	meant, err := r.c.ctlMembers(t, r.role)
	if err != nil {
		return err
	}
	t.named = nameList(meant)
	if !r.yes && r.scheduled == "" {
		hour := time.Now().Add(time.Hour).Format("2006-01-02T15:04")
		if r.scheduled, err = r.c.ask(ctx, "When should the restart take place (e.g. "+hour+") ", "now"); err != nil {
			return err
		}
	}
	members, err := r.chosen(t)
	if err != nil {
		return err
	}
	if !r.yes && len(members) > 0 {
		names := nameList(members)
		slices.Sort(names) // they are restarted in another order: the leader last
		if err := r.agreed(ctx, strings.Join(names, ", ")); err != nil {
			return err
		}
	}
	var outcomes []outcome
	for _, m := range members {
		outcomes = append(outcomes, r.one(ctx, t, m))
	}
	return r.c.ctlTell(outcomes)
}

func (r *restart) agreed(ctx context.Context, names string) error {
	question, aborted := fmt.Sprintf("Are you sure you want to restart members %s?", names), "Aborted restart"
	if r.at != nil {
		question, aborted = fmt.Sprintf("Are you sure you want to schedule restart of members %s at %s?", names, r.at.Format(cluster.TimeFormat)), "Aborted scheduled restart"
	}
	err := r.c.confirm(ctx, question, aborted)
	if err == nil && r.version == "" {
		r.version, err = r.c.ask(ctx, "Restart if the PostgreSQL version is less than provided (e.g. 9.5.2) ", "")
	}
	return err
}

func (c *console) ctlReload() *cobra.Command {
	var role string
	var force bool
	cmd := &cobra.Command{Use: "reload CLUSTER_NAME [MEMBER_NAMES...]", Short: "Have members read their configuration again", Args: ctlArgs(1, -1)}
	roleFlag(cmd, &role)
	cmd.Flags().BoolVar(&force, "force", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.ctlEach(cmd.Context(), args, role, force, "reload", func(ctx context.Context, t target, m cluster.Member) outcome {
			return t.deliver(ctx, m, http.MethodPost, "/reload", json.RawMessage("{}"), map[int]string{
				http.StatusAccepted: fmt.Sprintf("Reload request received for member %%s and will be processed within %d seconds", int(t.p.dynamic.LoopWait.Seconds())),
				http.StatusOK:       "No changes to apply on member %s",
			}, "reload")
		})
	}
	return cmd
}

func (c *console) ctlReinit() *cobra.Command {
	r := &reinit{c: c}
	cmd := &cobra.Command{Use: "reinit CLUSTER_NAME [MEMBER_NAMES...]", Short: "Copy a standby's database anew", Args: ctlArgs(1, -1)}
	f := cmd.Flags()
	f.BoolVar(&r.force, "force", false, "do not ask, and cancel what runs")
	f.BoolVar(&r.fromLeader, "from-leader", false, "copy from the leader")
	f.BoolVar(&r.wait, "wait", false, "wait for the end")
	cmd.RunE = c.onCtlTarget(r.classic)
	return cmd
}

func (r *reinit) classic(ctx context.Context, t target) error {
	candidates, err := r.c.ctlMembers(t, "replica")
	if err != nil {
		return err
	}
	if len(t.named) == 0 {
		name, err := r.c.ask(ctx, fmt.Sprintf("Which member do you want to reinitialize [%s]?", strings.Join(nameList(candidates), ", ")), "")
		if err != nil {
			return err
		}
		t.named = []string{name}
	}
	members, err := t.members("any")
	if err != nil {
		return refused(t.named[0]+" is not a member of cluster", "")
	}
	if !r.force {
		question := fmt.Sprintf("Are you sure you want to reinitialize members %s?", strings.Join(nameList(members), ", "))
		if err := r.c.confirm(ctx, question, "Aborted reinitialize"); err != nil {
			return err
		}
	}
	outcomes, before := r.deliverAll(ctx, t, members)
	for i, m := range members {
		if r.force || !strings.Contains(outcomes[i].Text, "already in progress") {
			continue
		}
		fmt.Fprintln(r.c.out, outcomes[i].Text)
		if err := r.c.confirm(ctx, "Do you want to cancel it and reinitialize anyway?", "Aborted reinitialize"); err != nil {
			return err
		}
		again := *r
		again.force = true
		one, _ := again.deliverAll(ctx, t, []cluster.Member{m})
		outcomes[i] = one[0]
	}
	err = r.c.ctlTell(outcomes)
	if !r.wait {
		return err
	}
	return r.classicWait(ctx, t, members, outcomes, before)
}

// classicWait waits for the copies that were begun, and says so.
func (r *reinit) classicWait(ctx context.Context, t target, members []cluster.Member, outcomes []outcome, before []standing) error {
	var begun []string
	for i, m := range members {
		if outcomes[i].Done {
			begun = append(begun, m.Name)
		}
	}
	if len(begun) == 0 {
		return verdictCode(ExitFailed)
	}
	fmt.Fprintf(r.c.out, "Waiting for reinitialize to complete on: %s\n", strings.Join(begun, ", "))
	r.c.quiet = true
	r.awaitCopies(ctx, t, members, outcomes, before)
	return r.c.ctlTell(outcomes)
}

func (c *console) ctlFlush() *cobra.Command {
	var role string
	var force bool
	cmd := &cobra.Command{Use: "flush CLUSTER_NAME [MEMBER_NAMES...] restart|switchover", Short: "Take back what is scheduled", Args: ctlArgs(2, -1)}
	roleFlag(cmd, &role)
	cmd.Flags().BoolVar(&force, "force", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		rest, what := args[:len(args)-1], args[len(args)-1]
		switch what {
		case "restart":
			return c.ctlEach(cmd.Context(), rest, role, force, "flush", ctlFlushRestart)
		case "switchover":
			return c.ctlFlushSwitchover(cmd.Context(), rest)
		}
		return misuse(fmt.Sprintf("Invalid value for '{restart|switchover}': '%s' is not one of 'restart', 'switchover'.", what))
	}
	return cmd
}

func ctlFlushRestart(ctx context.Context, t target, m cluster.Member) outcome {
	if len(m.ScheduledRestart) == 0 {
		return outcome{Member: m.Name, Done: true, Text: "No scheduled restart for member " + m.Name}
	}
	return flushRestart(ctx, t, m)
}

func (c *console) ctlFlushSwitchover(ctx context.Context, args []string) error {
	t, err := c.ctlTarget(ctx, args)
	if err != nil {
		return err
	}
	defer t.close()
	if f := t.p.snap.Failover; f == nil || f.ScheduledAt == nil {
		fmt.Fprintln(c.out, "No pending scheduled switchover")
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.wait(changeTimeout))
	defer cancel()
	for _, m := range t.leaderFirst() {
		a, err := t.client.Do(ctx, http.MethodDelete, m.APIBase(), "/switchover", nil)
		switch {
		case err == nil && a.Code == http.StatusOK:
			fmt.Fprintf(c.out, "Success: %s\n", a.Text())
			return nil
		case err == nil && a.Code == http.StatusNotFound:
			fmt.Fprintf(c.out, "Failed: %s\n", a.Text())
			return verdictCode(ExitFailed)
		case err == nil:
			fmt.Fprintf(c.out, "Failed: member=%s, status_code=%d, (%s)\n", m.Name, a.Code, a.Text())
		}
	}
	fmt.Fprintf(c.out, "%s Could not find any accessible member of cluster %s\n", ctlStamp(), t.p.scope)
	if t.store == nil { // the members' REST APIs are all that is known of this cluster
		return verdictCode(ExitFailed)
	}
	return t.store.PutFailover(ctx, cluster.Failover{}, t.p.snap.Failover.ModRev)
}
