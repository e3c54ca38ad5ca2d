package cli

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/spf13/cobra"
)

// siteChange turns a cluster into a standby cluster, or back.
type siteChange struct {
	c                            *console
	demote, force                bool
	host, restore, slot          string
	port                         int
	verb, done, progress, expect string
}

func (c *console) ctlSite(demote bool) *cobra.Command {
	s := &siteChange{c: c, demote: demote, verb: "promote", done: "promoted", expect: string(cluster.RolePrimary)}
	if demote {
		s.verb, s.done, s.expect = "demote", "demoted", string(cluster.RoleStandbyLeader)
	}
	cmd := &cobra.Command{Use: s.verb + "-cluster [CLUSTER_NAME]", Short: "Make a standby cluster a cluster of its own", Args: ctlArgs(0, 1)}
	f := cmd.Flags()
	f.BoolVar(&s.force, "force", false, "do not ask")
	if demote {
		cmd.Short = "Make the cluster a standby cluster"
		f.StringVar(&s.host, "host", "", "`ADDRESS` of the cluster that it follows")
		f.IntVar(&s.port, "port", 0, "its port")
		f.StringVar(&s.restore, "restore-command", "", "the command that fetches its WAL from an archive")
		f.StringVar(&s.slot, "primary-slot-name", "", "the slot that it streams by")
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		t, err := c.open(cmd.Context(), scopes(args)[0])
		if err != nil {
			return err
		}
		defer t.close()
		return s.run(cmd.Context(), t)
	}
	return cmd
}

// section is the section standby_cluster that is asked for; nil takes it away.
func (s *siteChange) section() map[string]any {
	if !s.demote {
		return nil
	}
	out := map[string]any{}
	for key, value := range map[string]string{"host": s.host, "restore_command": s.restore, "primary_slot_name": s.slot} {
		if value != "" {
			out[key] = value
		}
	}
	if s.port != 0 {
		out["port"] = s.port
	}
	return out
}

func (s *siteChange) run(ctx context.Context, t target) error {
	leader, found := t.p.snap.Member(t.p.leader())
	switch {
	case s.demote && s.host == "" && s.port == 0 && s.restore == "":
		return refused("At least --host, --port or --restore-command should be specified", "")
	case s.demote == t.p.dynamic.IsStandby():
		return refused("Cluster is already in the required state", "")
	case !found:
		return refused("This cluster has no leader", "")
	}
	if err := s.c.members(s.c.out, t.p, rowsOf(t.p), false); err != nil {
		return err
	}
	if !s.force {
		if err := s.c.confirm(ctx, fmt.Sprintf("Are you sure you want to %s %s cluster?", s.verb, t.p.scope), "Aborted cluster "+s.verb); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, s.c.wait(changeTimeout))
	defer cancel()
	a, err := t.client.Do(ctx, http.MethodPatch, leader.APIBase(), "/config", map[string]any{"standby_cluster": s.section()})
	switch {
	case err != nil:
		return err
	case a.Code != http.StatusOK:
		fmt.Fprintf(s.c.out, "Failed to %s, details: %d, %s\n", s.verb, a.Code, a.Text())
		return verdictCode(ExitFailed)
	}
	return s.await(ctx, t)
}

// await tells where the leader is until it has its new role.
func (s *siteChange) await(ctx context.Context, t target) error {
	for ctx.Err() == nil {
		p, err := t.read(ctx)
		if err == nil {
			m, _ := p.snap.Member(p.leader())
			if string(m.Role) == s.expect && m.State == cluster.StateRunning {
				fmt.Fprintf(s.c.out, "%s cluster is successfully %s\n", ctlStamp(), s.done)
				return nil
			}
			if now := or(m.Name, "nobody") + " leads as " + or(string(m.Role), "nothing") + ", " + or(string(m.State), "unknown"); now != s.progress {
				s.progress = now
				fmt.Fprintf(s.c.out, "%s %s\n", ctlStamp(), now)
			}
		}
		pauseFor(ctx, time.Second)
	}
	return &Failure{Code: ExitTimeout, What: fmt.Sprintf("the cluster was not %s within %s; it may still happen", s.done, s.c.wait(changeTimeout))}
}
