package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/havenha/haven/internal/api"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/spf13/cobra"
)

func (c *console) ctlChange(action string) *cobra.Command {
	ch := &change{c: c, action: action}
	cmd := &cobra.Command{Use: action + " [CLUSTER_NAME]", Short: "Let a replica take over in an orderly way", Args: ctlArgs(0, 1)}
	f := cmd.Flags()
	f.StringVar(&ch.candidate, "candidate", "", "the `MEMBER` that takes over")
	f.BoolVar(&ch.yes, "force", false, "do not ask")
	if action == "failover" {
		cmd.Short = "Make a replica the leader, also when there is none"
	} else {
		for _, name := range []string{"leader", "primary", "master"} {
			f.StringVar(&ch.leader, name, "", "the present leader")
		}
		f.StringVar(&ch.scheduled, "scheduled", "", "when (ISO 8601)")
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		t, err := c.open(cmd.Context(), scopes(args)[0])
		if err != nil {
			return err
		}
		defer t.close()
		return ch.classic(cmd.Context(), t)
	}
	return cmd
}

// classic shows the cluster, asks what was not given, and has the change made, as patronictl does.
func (ch *change) classic(ctx context.Context, t target) error {
	fmt.Fprintln(ch.c.out, "Current cluster topology")
	if err := ch.c.members(ch.c.out, t.p, rowsOf(t.p), false); err != nil {
		return err
	}
	if err := ch.settle(ctx, t.p); err != nil {
		return err
	}
	err := ch.request(ctx, t.reader, t.p)
	var f *Failure
	if errors.As(err, &f) {
		fmt.Fprintln(ch.c.out, f.What)
		return verdictCode(ExitFailed)
	}
	return err
}

// settle asks for what was not given, and refuses what cannot be.
func (ch *change) settle(ctx context.Context, p picture) error {
	switch {
	case ch.action == "switchover" && p.leader() == "":
		return refused("This cluster has no leader", "")
	case ch.yes:
		return ch.check(p)
	}
	if err := ch.ask(ctx, p); err != nil {
		return err
	}
	if ch.action == "failover" && ch.candidate == "" {
		return refused("Failover could be performed only to a specific candidate", "")
	}
	if err := ch.check(p); err != nil {
		return err
	}
	return ch.agreed(ctx, p)
}

func (ch *change) ask(ctx context.Context, p picture) error {
	var err error
	if ch.action == "switchover" && ch.leader == "" {
		title := "Primary"
		if p.dynamic.IsStandby() {
			title = "Standby Leader"
		}
		if ch.leader, err = ch.c.ask(ctx, title, p.leader()); err != nil {
			return err
		}
	}
	if ch.leader != "" && ch.leader != p.leader() {
		return refused(fmt.Sprintf("Member %s is not the leader of cluster %s", ch.leader, p.scope), "")
	}
	candidates := ch.candidates(p)
	if len(candidates) == 0 {
		return refused("No candidates found to "+ch.action+" to", "")
	}
	if ch.candidate == "" {
		if ch.candidate, err = ch.c.ask(ctx, fmt.Sprintf("Candidate ['%s']", strings.Join(candidates, "', '")), ""); err != nil {
			return err
		}
	}
	if ch.action == "switchover" && ch.scheduled == "" {
		hour := time.Now().Add(time.Hour).Format("2006-01-02T15:04")
		ch.scheduled, err = ch.c.ask(ctx, "When should the switchover take place (e.g. "+hour+" ) ", "now")
	}
	return err
}

// agreed asks for the word, and once more before a failover to a member that may lack commits.
func (ch *change) agreed(ctx context.Context, p picture) error {
	demoting := ""
	if p.leader() != "" {
		demoting = ", demoting current leader " + p.leader()
	}
	question, aborted := fmt.Sprintf("Are you sure you want to %s cluster %s%s?", ch.action, p.scope, demoting), "Aborting "+ch.action
	if ch.at != nil {
		question = fmt.Sprintf("Are you sure you want to schedule %s of cluster %s at %s%s?", ch.action, p.scope, ch.at.Format(cluster.TimeFormat), demoting)
		aborted = "Aborting scheduled " + ch.action
	}
	if err := ch.c.confirm(ctx, question, aborted); err != nil {
		return err
	}
	if ch.action == "failover" && p.dynamic.SynchronousMode != config.SyncOff && !p.snap.Sync.Has(ch.candidate) {
		return ch.c.confirm(ctx, fmt.Sprintf("Are you sure you want to failover to the asynchronous node %s?", ch.candidate), aborted)
	}
	return nil
}

// ctlStamp is the time before a result.
func ctlStamp() string { return time.Now().Format("2006-01-02 15:04:05.00000") }

// told prints the result, and the cluster as it is then.
func (ch *change) told(ctx context.Context, r *reader, text string) error {
	fmt.Fprintf(ch.c.out, "%s %s\n", ctlStamp(), text)
	p, err := r.read(ctx)
	if err != nil {
		return err
	}
	return ch.c.members(ch.c.out, p, rowsOf(p), false)
}

// classicAnswer prints the answer of the REST API; what is no success fails the command.
func (ch *change) classicAnswer(ctx context.Context, r *reader, a api.Answer) error {
	if a.Code == http.StatusOK || a.Code == http.StatusAccepted {
		return ch.told(ctx, r, a.Text())
	}
	return &Failure{Code: ExitFailed, What: fmt.Sprintf("%s failed, details: %d, %s", title(ch.action), a.Code, a.Text())}
}

// fallsBack says that the request goes into the store itself.
func (ch *change) fallsBack(cause error) string {
	if ch.c.ctl != nil {
		return fmt.Sprintf("%s Could not %s using Patroni api, falling back to DCS", ctlStamp(), ch.action)
	}
	return fmt.Sprintf("the REST API does not answer (%v): writing the request into etcd", cause)
}

// ctlMembers are the members that a command is about: those named, or all of the role. The cluster is shown before.
func (c *console) ctlMembers(t target, role string) ([]cluster.Member, error) {
	if len(t.p.snap.Members) == 0 {
		return nil, refused(fmt.Sprintf("%s cluster doesn't have any members", t.p.scope), "")
	}
	if err := c.members(c.out, t.p, rowsOf(t.p), false); err != nil {
		return nil, err
	}
	if role == "master" {
		role = "primary"
	}
	if !slices.Contains(roles(), role) {
		return nil, misuse(fmt.Sprintf("Invalid value for '--role': '%s' is not one of '%s'", role, strings.Join(roles(), "', '")))
	}
	var out []cluster.Member
	for _, m := range t.p.snap.Members {
		if t.p.hasRole(m, role) && (len(t.named) == 0 || slices.Contains(t.named, m.Name)) {
			out = append(out, m)
		}
	}
	if len(out) == 0 {
		return nil, refused(fmt.Sprintf("No %s among provided members", role), "")
	}
	for _, name := range t.named {
		if !slices.Contains(nameList(out), name) {
			return nil, refused(name+" is not a member of cluster", "")
		}
	}
	return out, nil
}
