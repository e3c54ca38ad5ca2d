package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/havenha/haven/internal/api"
	"github.com/havenha/haven/internal/cluster"
	"github.com/spf13/cobra"
)

// restart is a restart of servers that a person asks for.
type restart struct {
	c                        *console
	role, version, scheduled string
	any, pending, yes        bool
	rolling, planOnly        bool
	start                    interval // how long each start may take
	at                       *time.Time
}

func (c *console) restartCommand() *cobra.Command {
	r := &restart{c: c}
	cmd := &cobra.Command{
		Use: "restart [CLUSTER] [MEMBER...]", Short: "Restart PostgreSQL, so that settings which wait for it come into force",
		Long: `Restart the PostgreSQL of the members named, or of all, as far as they have the role; replicas first, the leader
last. A leader restarts in place and keeps its leadership: clients cannot write meanwhile.

With --rolling, one after the other, each only when the one before streams again (and the synchronous set is as large
as it was); the leader hands over to a restarted replica instead of restarting in place. The first trouble ends it, and
what is left to do is told.`,
		Example: `  haven restart db2
  haven restart --pending --rolling --plan
  haven restart shop --role replica --yes
  haven restart db1 --scheduled 2031-05-06T03:00+00:00 --pg-version 15.8`,
		RunE: func(cmd *cobra.Command, args []string) error { return r.run(cmd.Context(), args) },
	}
	f := cmd.Flags()
	roleFlag(cmd, &r.role)
	yesFlag(cmd, &r.yes)
	f.BoolVar(&r.any, "any", false, "only one member of those that are meant")
	f.BoolVar(&r.pending, "pending", false, "only members with settings that wait for a restart")
	f.StringVar(&r.version, "pg-version", "", "only servers that are older than this `VERSION`")
	f.StringVar(&r.scheduled, "scheduled", "", "when, in ISO 8601; without a zone: local time")
	f.Var(&r.start, "timeout", "how long each server may take to start, for instance 2m")
	f.BoolVar(&r.rolling, "rolling", false, "one after the other, the leader by a switchover")
	f.BoolVar(&r.planOnly, "plan", false, "show the steps, and do nothing")
	c.completeMembers(cmd)
	return cmd
}

func (r *restart) run(ctx context.Context, args []string) error {
	if err := r.c.noTSV(); err != nil {
		return err
	}
	t, err := r.c.target(ctx, args)
	if err != nil {
		return err
	}
	defer t.close()
	members, err := r.chosen(t)
	if err != nil {
		return err
	}
	if len(members) == 0 {
		return r.c.tell([]outcome{{Done: true, Text: "No member has a restart pending"}})
	}
	if r.rolling {
		return r.roll(ctx, t, members)
	}
	if r.planOnly {
		return r.c.tell(planned(members))
	}
	if err := r.c.agree(ctx, r.yes, fmt.Sprintf("Are you sure you want to restart members %s?", strings.Join(nameList(members), ", "))); err != nil {
		return err
	}
	var outcomes []outcome
	for _, m := range members {
		outcomes = append(outcomes, r.one(ctx, t, m))
	}
	return r.c.tell(outcomes)
}

func planned(members []cluster.Member) []outcome {
	var out []outcome
	for _, m := range members {
		out = append(out, outcome{Member: m.Name, Text: "would be restarted: " + m.Name})
	}
	return out
}

// chosen are the members that are meant, replicas first.
func (r *restart) chosen(t target) ([]cluster.Member, error) {
	if err := r.schedule(t.p); err != nil {
		return nil, err
	}
	members, err := t.members(r.role)
	if err != nil {
		return nil, err
	}
	if r.pending && r.at == nil {
		members = slices.DeleteFunc(members, func(m cluster.Member) bool { return !m.PendingRestart })
	}
	replicasFirst(t.p, members)
	if r.any && len(members) > 1 {
		members = members[:1]
	}
	return members, nil
}

// replicasFirst puts asynchronous replicas before synchronous ones, and those before the leader.
func replicasFirst(p picture, members []cluster.Member) {
	rank := func(m cluster.Member) int {
		switch {
		case m.Name == p.leader():
			return 2
		case p.snap.Sync.Has(m.Name):
			return 1
		}
		return 0
	}
	slices.SortStableFunc(members, func(a, b cluster.Member) int { return rank(a) - rank(b) })
}

func (r *restart) schedule(p picture) error {
	if r.scheduled == "" || r.scheduled == "now" {
		return nil
	}
	at, _, valid := api.ParseTime(r.scheduled, time.Local)
	switch {
	case !valid:
		return usage(fmt.Sprintf("Unable to parse scheduled timestamp (%s). It should be in an unambiguous format (e.g. ISO 8601)", r.scheduled), "--scheduled 2031-05-06T03:00+00:00")
	case r.rolling:
		return usage("--rolling cannot be scheduled: somebody has to watch it", "haven restart --rolling, at that time")
	case p.dynamic.Pause:
		return refused("Can't schedule restart in the paused state", "haven resume")
	case at.Before(time.Now()):
		return refused("Cannot schedule restart in the past: "+at.Format(time.RFC3339), "")
	}
	r.at = &at
	return nil
}

// restartLimit bounds one restart, with the stop and the checkpoint before the start.
const restartLimit = 10 * time.Minute

// one restarts one member, or has it restarted at its time.
func (r *restart) one(ctx context.Context, t target, m cluster.Member) outcome {
	ctx, cancel := context.WithTimeout(ctx, restartLimit+time.Duration(r.start))
	defer cancel()
	body := map[string]any{}
	for key, value := range map[string]string{"postgres_version": r.version, "role": bodyRole(r.role)} {
		if value != "" {
			body[key] = value
		}
	}
	if r.start > 0 {
		body["timeout"] = time.Duration(r.start).Seconds()
	}
	if r.pending {
		body["restart_pending"] = true
	}
	if r.at != nil {
		body["schedule"] = r.at.Format(cluster.TimeFormat)
		if r.yes { // Patroni: --force --scheduled puts a new schedule in the place of an old one
			t.deliver(ctx, m, http.MethodDelete, "/restart", nil, nil, "flush")
		}
	}
	o := t.deliver(ctx, m, http.MethodPost, "/restart", body, map[int]string{
		http.StatusOK: "Success: restart on member %s", http.StatusAccepted: "Success: restart scheduled on member %s",
	}, "restart")
	if o.code == ExitConflict {
		o.Text = "Failed: another restart is already scheduled on member " + m.Name
	}
	return o.ordered()
}

// bodyRole is --role in the words of the REST API; empty: it makes no condition.
func bodyRole(role string) string {
	switch role {
	case "primary", "replica":
		return role
	case "standby-leader":
		return "standby_leader"
	}
	return ""
}

// ordered tells apart why an order was answered by 503: it failed, it may still happen, or it was refused.
func (o outcome) ordered() outcome {
	switch {
	case o.code != ExitFailed || !strings.Contains(o.Text, "status code=503"):
	case strings.Contains(o.Text, "still starting"):
		o.code = ExitTimeout
	case !strings.Contains(o.Text, "(restart failed"):
		o.code = ExitRefused
	}
	return o
}

func (c *console) reinitCommand() *cobra.Command {
	r := &reinit{c: c}
	cmd := &cobra.Command{
		Use: "reinit [CLUSTER] MEMBER...", Aliases: []string{"reinitialize"}, Short: "Copy a standby's database anew",
		Long: `Copy the database of standbys anew, from the leader or a member that is tagged clonefrom. What they have now is moved
aside, not deleted: it stands beside the data directory until you remove it. Never on the leader.
haven list and haven status show how far the copy is; --wait waits for its end.`,
		Example: "  haven reinit db3 --wait\n  haven reinit shop db3 --from-leader --yes",
		RunE:    func(cmd *cobra.Command, args []string) error { return r.run(cmd.Context(), args) },
	}
	f := cmd.Flags()
	f.BoolVarP(&r.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&r.force, "force", false, "do not ask, and end a copy that is being made already")
	f.BoolVar(&r.fromLeader, "from-leader", false, "copy from the leader, whoever is tagged clonefrom")
	f.BoolVar(&r.wait, "wait", false, "wait until they stream again")
	c.completeMembers(cmd)
	return cmd
}

// reinit is a new copy of databases that a person asks for.
type reinit struct {
	c                            *console
	yes, force, fromLeader, wait bool
}

func (r *reinit) run(ctx context.Context, args []string) error {
	if err := r.c.noTSV(); err != nil {
		return err
	}
	t, err := r.c.target(ctx, args)
	if err != nil {
		return err
	}
	defer t.close()
	if len(t.named) == 0 {
		return usage("which member shall be copied anew?", "haven reinit MEMBER; members: "+strings.Join(nameList(t.p.snap.Members), ", "))
	}
	members, err := t.members("any")
	if err != nil {
		return err
	}
	question := fmt.Sprintf("Copy the database of %s anew? What they have now is moved aside.", strings.Join(nameList(members), ", "))
	if err := r.c.agree(ctx, r.yes || r.force, question); err != nil {
		return err
	}
	outcomes, before := r.deliverAll(ctx, t, members)
	if r.wait {
		r.awaitCopies(ctx, t, members, outcomes, before)
	}
	return r.c.tell(outcomes)
}

// deliverAll asks each member to begin, and tells how it stood before.
func (r *reinit) deliverAll(ctx context.Context, t target, members []cluster.Member) ([]outcome, []standing) {
	outcomes := make([]outcome, len(members))
	before := make([]standing, len(members))
	for i, m := range members {
		before[i], _ = t.standing(ctx, m) // one that does not answer has started nothing that could be told apart
		limited, cancel := context.WithTimeout(ctx, r.c.wait(changeTimeout))
		outcomes[i] = t.deliver(limited, m, http.MethodPost, "/reinitialize", map[string]any{"force": r.force, "from_leader": r.fromLeader},
			map[int]string{http.StatusOK: "Success: reinitialize for member %s"}, "reinitialize").ordered()
		cancel()
	}
	return outcomes, before
}

// awaitCopies waits for each copy that was begun.
func (r *reinit) awaitCopies(ctx context.Context, t target, members []cluster.Member, outcomes []outcome, before []standing) {
	for i, m := range members {
		if !outcomes[i].Done {
			continue
		}
		r.c.say("Waiting for reinitialize to complete on: %s", m.Name)
		limit := r.c.timeout
		if limit == 0 {
			limit = 24 * time.Hour // a copy takes what it takes
		}
		limited, cancel := context.WithTimeout(ctx, limit)
		if err := t.awaitBack(limited, m, before[i], true); err != nil {
			outcomes[i] = outcome{Member: m.Name, Text: fmt.Sprintf("Failed: reinitialize for member %s: %v", m.Name, err), code: ExitTimeout}
		} else {
			outcomes[i].Text = "Reinitialize is completed on: " + m.Name
		}
		cancel()
	}
}

// standing is how a member's server stands, by its own word.
type standing struct {
	State     string `json:"state"`
	Role      string `json:"role"`
	Started   string `json:"postmaster_start_time"`
	Streaming string `json:"replication_state"`
}

func (t target) standing(ctx context.Context, m cluster.Member) (standing, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var s standing
	a, err := t.client.Do(ctx, http.MethodGet, m.APIBase(), "/patroni", nil)
	if err == nil {
		err = json.Unmarshal(a.Body, &s)
	}
	return s, err
}

// awaitBack waits until a standby streams; restarted: with another server process than before.
func (t target) awaitBack(ctx context.Context, m cluster.Member, before standing, restarted bool) error {
	told := ""
	for {
		s, err := t.standing(ctx, m)
		if err == nil && s.State == string(cluster.StateRunning) && s.Streaming == "streaming" && (!restarted || s.Started != before.Started) {
			return nil
		}
		now := s.State
		if p, err := t.read(ctx); err == nil {
			if k, there := p.snap.Member(m.Name); there && k.Haven != nil && k.Haven.Progress != "" {
				now = string(k.State) + ", " + k.Haven.Progress
			}
		}
		if now != told && now != "" {
			told = now
			t.c.say("  %s: %s", m.Name, now)
		}
		pauseFor(ctx, 200*time.Millisecond)
		if ctx.Err() != nil {
			return fmt.Errorf("it does not stream yet (%s)", or(told, "no answer"))
		}
	}
}
