package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/havenha/haven/internal/cluster"
	"github.com/spf13/cobra"
)

func (c *console) removeCommand() *cobra.Command {
	var member string
	cmd := &cobra.Command{
		Use: "remove CLUSTER", Short: "Remove what etcd knows of a cluster, or of one member",
		Long: `Remove all that etcd knows of a cluster: its identity, configuration, history. The databases stay as they are. It asks
for the cluster's name, for an explicit agreement, and while there is a leader for the leader's name; the answers may
come from a pipe. Stop all members first: one that runs registers again, and its leader stops writing.

With --member, only the member's own key is removed, for a member that is gone for good; one whose agent runs is
refused.`,
		Example: "  haven remove shop\n  haven remove shop --member db3",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usage("remove takes the name of the cluster", "haven remove CLUSTER")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return c.remove(cmd.Context(), args[0], member) },
	}
	cmd.Flags().StringVar(&member, "member", "", "remove only this member")
	c.complete(cmd, "member", func(picture, cluster.Member) bool { return true })
	return cmd
}

func (c *console) remove(ctx context.Context, scope, member string) error {
	t, err := c.openOne(ctx, []string{scope})
	if err != nil {
		return err
	}
	defer t.close()
	switch {
	case t.store == nil:
		return usage("remove needs etcd, and a URL of a member gives no way to it", "haven -c FILE remove "+scope)
	case t.p.from != "etcd":
		return &Failure{Code: ExitUnreachable, What: "etcd cannot be reached", Means: "Nothing has changed.", Next: "make etcd reachable, then try again"}
	case len(t.p.snap.Members) == 0 && t.p.snap.Initialize == nil && t.p.snap.Config == nil:
		return &Failure{Code: ExitNotFound, What: "etcd knows of no cluster " + scope, Means: "Nothing has changed."}
	}
	if member != "" {
		return c.removeMember(ctx, t, member)
	}
	talk := c.err
	if c.ctl != nil {
		talk = c.out
	}
	if err := c.members(talk, t.p, rowsOf(t.p), false); err != nil {
		return err
	}
	if err := c.agreeToRemove(ctx, t.p); err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, c.wait(changeTimeout))
	defer cancel()
	if err := t.store.RemoveCluster(limited); err != nil {
		return err
	}
	return c.tell([]outcome{{Done: true, Text: "Cluster " + scope + " is removed from etcd; its databases are as they were"}})
}

// agreeToRemove asks what patronictl asks, in its words.
func (c *console) agreeToRemove(ctx context.Context, p picture) error {
	questions := []struct{ question, want, wrong string }{
		{"Please confirm the cluster name to remove", p.scope, "Cluster names specified do not match"},
		{`You are about to remove all information in DCS for ` + p.scope + `, please type: "Yes I am aware"`, "Yes I am aware", "You did not exactly type \"Yes I am aware\""},
	}
	if leader := p.leader(); leader != "" {
		questions = append(questions, struct{ question, want, wrong string }{
			"This cluster currently is healthy. Please specify the leader name to continue", leader, "You did not specify the current leader of the cluster"})
	}
	for _, q := range questions {
		answer, err := c.prompt(ctx, q.question+": ")
		if err != nil {
			return err
		}
		if answer != q.want {
			return refused(q.wrong, "")
		}
	}
	return nil
}

// removeMember removes the key of a member that is gone; the key of one that runs would only come back.
func (c *console) removeMember(ctx context.Context, t target, name string) error {
	m, there := t.p.snap.Member(name)
	if !there {
		return &Failure{Code: ExitNotFound, What: fmt.Sprintf("Member %s does not exist in cluster %s", name, t.p.scope), Means: "Nothing has changed.", Next: "members: " + strings.Join(nameList(t.p.snap.Members), ", ")}
	}
	if name == t.p.leader() {
		return refused(name+" leads", "haven switchover, and stop it, before it is removed")
	}
	if _, err := t.standing(ctx, m); err == nil {
		return refused(fmt.Sprintf("the agent of %s answers: it would register again", name), "stop Haven there (systemctl stop haven), and remove its node from the configuration files")
	}
	limited, cancel := context.WithTimeout(ctx, c.wait(changeTimeout))
	defer cancel()
	if err := t.store.DeleteMember(limited, name); err != nil {
		return err
	}
	return c.tell([]outcome{{Member: name, Done: true, Text: fmt.Sprintf("Member %s is removed from etcd; the slot for it goes after member_slots_ttl", name)}})
}
