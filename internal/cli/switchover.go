package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/havenha/haven/internal/api"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/spf13/cobra"
)

// change is a switchover or failover that a person asks for.
type change struct {
	c                            *console
	action                       string // switchover or failover
	leader, candidate, scheduled string
	yes, planOnly                bool
	at                           *time.Time
}

func (c *console) switchoverCommand() *cobra.Command {
	ch := &change{c: c, action: "switchover"}
	cmd := &cobra.Command{
		Use: "switchover [CLUSTER]", Short: "Let another member take over, in an orderly way", Args: atMost(1),
		Long: `Let another member take over: the leader stops in order, the candidate has all of its WAL, and takes over.
Nothing is lost. Exit codes: 4 refused (nothing changed), 5 timed out, 7 leadership moved meanwhile, 8 unreachable.`,
		Example: "  haven switchover --plan\n  haven switchover --candidate db2 --yes\n  haven switchover --scheduled 2031-05-06T03:00+00:00",
		RunE:    func(cmd *cobra.Command, args []string) error { return ch.run(cmd.Context(), args) },
	}
	ch.flags(cmd)
	cmd.Flags().StringVar(&ch.leader, "leader", "", "the present leader; refused if another one leads")
	cmd.Flags().StringVar(&ch.leader, "primary", "", "the same as --leader")
	_ = cmd.Flags().MarkHidden("primary") // the flag is there
	cmd.Flags().StringVar(&ch.scheduled, "scheduled", "", "when, in ISO 8601; without a zone: local time")
	c.complete(cmd, "leader", func(p picture, m cluster.Member) bool { return m.Name == p.leader() })
	return cmd
}

func (c *console) failoverCommand() *cobra.Command {
	ch := &change{c: c, action: "failover"}
	cmd := &cobra.Command{
		Use: "failover [CLUSTER]", Short: "Make a named member the leader, also when there is none", Args: atMost(1),
		Long: `Make a named member the leader, also when there is none, or when it is not the best. It may lose data:
--plan shows how much. Where the leader is well, use haven switchover.`,
		Example: "  haven failover --candidate db2 --plan\n  haven failover --candidate db2",
		RunE:    func(cmd *cobra.Command, args []string) error { return ch.run(cmd.Context(), args) },
	}
	ch.flags(cmd)
	return cmd
}

func (ch *change) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&ch.candidate, "candidate", "", "the member that takes over")
	f.BoolVarP(&ch.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&ch.yes, "force", false, "the same as --yes")
	_ = f.MarkHidden("force") // the flag is there
	f.BoolVar(&ch.planOnly, "plan", false, "show what would happen and what would be lost, and do nothing")
	ch.c.complete(cmd, "candidate", func(p picture, m cluster.Member) bool { return m.Name != p.leader() && m.MayLead() })
}

func refused(what, next string) *Failure {
	return &Failure{Code: ExitRefused, What: what, Means: "Nothing has changed.", Next: next}
}

func (ch *change) run(ctx context.Context, args []string) error {
	if err := ch.c.noTSV(); err != nil {
		return err
	}
	r, err := ch.c.reader(scopeIn(args))
	if err != nil {
		return err
	}
	defer r.close()
	p, err := r.read(ctx)
	if err != nil {
		return err
	}
	if err := ch.check(p); err != nil {
		return err
	}
	pl := ch.plan(p)
	if ch.planOnly {
		if ch.c.structured() {
			return ch.c.emit(ch.c.out, pl)
		}
		_, err := fmt.Fprint(ch.c.out, pl.text(ch.action, p))
		return err
	}
	if err := ch.confirm(ctx, p, pl); err != nil {
		return err
	}
	return ch.request(ctx, r, p)
}

func (ch *change) plan(p picture) plan {
	if ch.action == "switchover" {
		return planSwitchover(p, ch.candidate)
	}
	return planFor(p, ch.candidate)
}

// check refuses what cannot be, in the words of patronictl.
func (ch *change) check(p picture) error {
	leader := p.leader()
	candidates := ch.candidates(p)
	switch {
	case p.stale:
		return &Failure{Code: ExitUnreachable, What: p.from + " cannot read etcd", Means: "Without etcd nobody can take over. Nothing has changed.", Next: "make etcd reachable, then try again"}
	case ch.action == "switchover" && leader == "":
		return refused("This cluster has no leader", "haven failover --candidate MEMBER, if nobody takes over by himself")
	case ch.leader != "" && ch.leader != leader:
		f := refused(fmt.Sprintf("Member %s is not the leader of cluster %s", ch.leader, p.scope), or(leader, "nobody")+" leads: haven switchover --leader "+or(leader, "MEMBER"))
		f.Code = ExitConflict
		return f
	case ch.action == "failover" && ch.candidate == "" && !ch.interactive():
		return refused("Failover could be performed only to a specific candidate", "haven failover --candidate "+strings.Join(candidates, "|"))
	case len(candidates) == 0:
		return refused("No candidates found to "+ch.action+" to", "haven status says why no standby is eligible")
	case ch.candidate != "" && ch.candidate == leader:
		return refused(fmt.Sprintf("Member %s is already the leader of cluster %s", ch.candidate, p.scope), "")
	case ch.candidate != "" && !slices.Contains(candidates, ch.candidate):
		return refused(fmt.Sprintf("Member %s does not exist in cluster %s or is tagged as nofailover", ch.candidate, p.scope), "candidates: "+strings.Join(candidates, ", "))
	}
	return ch.schedule(p)
}

func (ch *change) schedule(p picture) error {
	if ch.scheduled == "" || ch.scheduled == "now" {
		return nil
	}
	t, _, valid := api.ParseTime(ch.scheduled, time.Local)
	switch {
	case !valid:
		return usage(fmt.Sprintf("Unable to parse scheduled timestamp (%s). It should be in an unambiguous format (e.g. ISO 8601)", ch.scheduled), "--scheduled 2031-05-06T03:00+00:00")
	case p.dynamic.Pause:
		return refused("Can't schedule switchover in the paused state", "haven resume")
	case t.Before(time.Now()):
		return refused("Cannot schedule switchover in the past: "+t.Format(time.RFC3339), "")
	}
	ch.at = &t
	return nil
}

func (ch *change) candidates(p picture) []string {
	var out []string
	for _, m := range p.snap.Members {
		if m.Name != p.leader() && m.MayLead() {
			out = append(out, m.Name)
		}
	}
	return out
}

func (ch *change) interactive() bool {
	return (ch.c.inTTY || ch.c.ctl != nil) && !ch.yes && !ch.planOnly
}

// confirm asks the person; without a terminal it refuses unless --yes is given.
func (ch *change) confirm(ctx context.Context, p picture, pl plan) error {
	if ch.yes {
		return nil
	}
	if !ch.c.inTTY {
		return refused(ch.action+" asks before it acts, and there is no terminal to ask on", "add --yes; --plan shows what would happen")
	}
	if ch.candidate == "" {
		answer, err := ch.c.prompt(ctx, fmt.Sprintf("Candidate %v [%s]: ", ch.candidates(p), pl.Candidate))
		if err != nil {
			return err
		}
		if ch.candidate = or(answer, pl.Candidate); !slices.Contains(ch.candidates(p), ch.candidate) {
			return refused(fmt.Sprintf("%q is not a candidate", ch.candidate), "candidates: "+strings.Join(ch.candidates(p), ", "))
		}
		pl = ch.plan(p)
	}
	fmt.Fprint(ch.c.err, pl.text(ch.action, p))
	question := fmt.Sprintf("Let %s take over in cluster %s", ch.candidate, p.scope)
	if p.dynamic.SynchronousMode != config.SyncOff && !p.snap.Sync.Has(ch.candidate) {
		question = fmt.Sprintf("%s is not synchronous, acknowledged commits may be lost. %s anyway", ch.candidate, question)
	}
	answer, err := ch.c.prompt(ctx, question+"? [y/N]: ")
	if err != nil {
		return err
	}
	if answer = strings.ToLower(answer); answer != "y" && answer != "yes" {
		return refused("cancelled", "")
	}
	return nil
}

// prompt asks on standard error (as patronictl: on standard output) and reads one line.
func (c *console) prompt(ctx context.Context, question string) (string, error) {
	if c.ctl != nil {
		fmt.Fprint(c.out, question)
	} else {
		fmt.Fprint(c.err, question)
	}
	var line []byte
	one := make([]byte, 1)
	for ctx.Err() == nil {
		n, err := c.in.Read(one)
		if n == 1 && one[0] == '\n' {
			return strings.TrimSpace(string(line)), nil
		}
		if err != nil {
			return "", refused("no answer was given", "")
		}
		line = append(line, one[:n]...)
	}
	return "", &Failure{Code: ExitInterrupted, What: "interrupted", Means: "Nothing has changed."}
}
