package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/havenha/haven/internal/api"
	"github.com/havenha/haven/internal/cluster"
	"github.com/spf13/cobra"
)

// maintenance is the way into maintenance mode, and out of it.
type maintenance struct {
	c    *console
	on   bool
	wait bool
}

func (c *console) pauseCommand() *cobra.Command {
	m := &maintenance{c: c, on: true}
	return m.command(&cobra.Command{
		Use: "pause [CLUSTER]", Short: "Leave everything as it is from now on (maintenance mode)",
		Long: `Switch maintenance mode on: no member is promoted, stopped or started by itself any more, and Haven can be
stopped without stopping PostgreSQL. An operator's switchover to a named member still works. Members that have not
noticed yet are named; --wait waits for them.`,
		Example: "  haven pause --wait\n  haven pause -o json",
	})
}

func (c *console) resumeCommand() *cobra.Command {
	m := &maintenance{c: c}
	return m.command(&cobra.Command{
		Use: "resume [CLUSTER]", Short: "End maintenance mode",
		Long:    "Switch maintenance mode off: Haven looks after the cluster again. Members that have not noticed yet are named;\n--wait waits for them.",
		Example: "  haven resume --wait",
	})
}

func (m *maintenance) command(cmd *cobra.Command) *cobra.Command {
	cmd.Args = atMost(1)
	cmd.Flags().BoolVar(&m.wait, "wait", false, "wait until all members have noticed")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		t, err := m.c.openOne(cmd.Context(), args)
		if err != nil {
			return err
		}
		defer t.close()
		return m.run(cmd.Context(), t)
	}
	return cmd
}

// words are pause or resume, and what the cluster is afterwards.
func (m *maintenance) words() (verb, state string) {
	if m.on {
		return "pause", "paused"
	}
	return "resume", "resumed"
}

func (m *maintenance) run(ctx context.Context, t target) error {
	switch {
	case t.p.snap.Config == nil:
		return noConfig(t.p)
	case m.on && t.p.dynamic.Pause:
		return refused("Cluster is already paused", "haven resume ends it")
	case !m.on && !t.p.dynamic.Pause:
		return refused("Cluster is not paused", "")
	}
	if err := m.patch(ctx, t); err != nil {
		return err
	}
	return m.awaitAll(ctx, t)
}

// noConfig is the failure where the dynamic configuration is absent.
func noConfig(p picture) *Failure {
	return &Failure{Code: ExitNotFound, What: "The config key does not exist in the cluster " + p.scope,
		Means: "The cluster has not been made yet, or was made without a dynamic configuration.", Next: "haven status"}
}

// patch asks the leader, then the others, until one has changed the configuration.
func (m *maintenance) patch(ctx context.Context, t target) error {
	ctx, cancel := context.WithTimeout(ctx, m.c.wait(changeTimeout))
	defer cancel()
	verb, _ := m.words()
	var value any // null takes the key away
	if m.on {
		value = true
	}
	var silent []string
	for _, member := range t.leaderFirst() {
		a, err := t.client.Do(ctx, http.MethodPatch, member.APIBase(), "/config", map[string]any{"pause": value})
		if err != nil {
			silent = append(silent, fmt.Sprintf("%s: %v", member.Name, err))
			continue
		}
		if a.Code == http.StatusOK {
			return nil
		}
		return &Failure{Code: exitOfAnswer(a), What: fmt.Sprintf("Failed: %s cluster management status code=%d, (%s)", verb, a.Code, a.Text()), Means: "Nothing has changed.", Next: nextFor(a)}
	}
	return &Failure{Code: ExitUnreachable, What: "Can not find accessible cluster member\n" + strings.Join(silent, "\n"), Means: "Nothing has changed, unless a request arrived whose answer was lost.", Next: "haven status"}
}

func nextFor(a api.Answer) string {
	switch a.Code {
	case http.StatusUnauthorized, http.StatusForbidden:
		return "give ctl.authentication in the configuration, or http://USER:PASSWORD@MEMBER:8008"
	case http.StatusConflict:
		return "try again"
	}
	return "haven status"
}

// noticed is the outcome for machines.
type noticed struct {
	Result  string   `json:"result"`
	Unaware []string `json:"unaware,omitempty"` // members that have not noticed yet
}

// awaitAll tells who has not noticed yet, or waits until nobody is left.
func (m *maintenance) awaitAll(ctx context.Context, t target) error {
	verb, state := m.words()
	limit := m.c.wait(max(10*time.Second, 2*t.p.dynamic.LoopWait))
	if m.wait && m.c.ctl != nil {
		fmt.Fprintf(m.c.out, "'%s' request sent, waiting until it is recognized by all nodes\n", verb)
	} else if m.wait {
		m.c.say("'%s' request sent, waiting until it is recognized by all nodes", verb)
	}
	deadline := time.Now().Add(limit)
	unaware := m.unaware(t.p)
	for {
		if p, err := t.read(ctx); err == nil {
			unaware = m.unaware(p)
		}
		if len(unaware) == 0 || !m.wait || !time.Now().Before(deadline) || ctx.Err() != nil {
			break
		}
		pauseFor(ctx, 200*time.Millisecond)
	}
	res := noticed{Result: "Success: cluster management is " + state, Unaware: unaware}
	if m.c.structured() {
		if err := m.c.emit(m.c.out, res); err != nil {
			return err
		}
	} else {
		fmt.Fprintln(m.c.out, res.Result)
	}
	switch {
	case len(unaware) == 0:
	case m.wait:
		return &Failure{Code: ExitTimeout, What: fmt.Sprintf("%d members didn't recognize it after %d seconds: %s", len(unaware), int(limit.Seconds()), strings.Join(unaware, ", ")),
			Means: "They act on it as soon as they can read etcd again.", Next: "haven list; are their agents running?"}
	case m.c.ctl == nil:
		m.c.say("not noticed yet by: %s", strings.Join(unaware, ", "))
	}
	return nil
}

func (m *maintenance) unaware(p picture) []string {
	var out []string
	for _, member := range p.snap.Members {
		if member.Pause != m.on {
			out = append(out, member.Name)
		}
	}
	return out
}

// pauseFor waits, or until ctx ends.
func pauseFor(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (c *console) reloadCommand() *cobra.Command {
	var yes bool
	var role string
	cmd := &cobra.Command{
		Use: "reload [CLUSTER] [MEMBER...]", Short: "Have members read their configuration files again",
		Long: `Have members read their configuration files again, as SIGHUP does: those named, or all, as far as they have the
role. A file with faults changes nothing; the member's log names them, and what only a restart takes into use.`,
		Example: "  haven reload\n  haven reload db2 --yes\n  haven reload shop --role replica",
	}
	yesFlag(cmd, &yes)
	roleFlag(cmd, &role)
	c.completeMembers(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.each(cmd.Context(), args, role, yes, "reload", func(ctx context.Context, t target, m cluster.Member) outcome {
			return t.deliver(ctx, m, http.MethodPost, "/reload", json.RawMessage("{}"), map[int]string{
				http.StatusAccepted: "Reload request received for member %s", http.StatusOK: "No changes to apply on member %s",
			}, "reload")
		})
	}
	return cmd
}

// each asks once, and then does something with each member that is meant, one after the other.
func (c *console) each(ctx context.Context, args []string, role string, yes bool, what string, do func(context.Context, target, cluster.Member) outcome) error {
	return c.eachOf(ctx, args, role, yes, what, func(picture, []cluster.Member) {}, do)
}

// eachOf is each in another order.
func (c *console) eachOf(ctx context.Context, args []string, role string, yes bool, what string, order func(picture, []cluster.Member), do func(context.Context, target, cluster.Member) outcome) error {
	if err := c.noTSV(); err != nil {
		return err
	}
	t, err := c.target(ctx, args)
	if err != nil {
		return err
	}
	defer t.close()
	members, err := t.members(role)
	if err != nil {
		return err
	}
	order(t.p, members)
	if err := c.agree(ctx, yes, fmt.Sprintf("Are you sure you want to %s members %s?", what, strings.Join(nameList(members), ", "))); err != nil {
		return err
	}
	var outcomes []outcome
	for _, m := range members {
		limited, cancel := context.WithTimeout(ctx, c.wait(changeTimeout))
		outcomes = append(outcomes, do(limited, t, m))
		cancel()
	}
	return c.tell(outcomes)
}
