package cli

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/havenha/haven/internal/api"
	"github.com/havenha/haven/internal/cluster"
	"github.com/spf13/cobra"
)

// target is the cluster, and the members of it, that a command is about.
type target struct {
	*reader
	p     picture
	named []string
}

// target reads the cluster that the arguments name. The first one is the cluster's name, or already that of a member of the
// configured cluster; the rest are members. The caller closes it.
func (c *console) target(ctx context.Context, args []string) (target, error) {
	t, err := c.open(ctx, "")
	if err != nil || len(args) == 0 {
		return t, err
	}
	if args[0] == t.p.scope {
		t.named = args[1:]
		return t, nil
	}
	if _, found := t.p.snap.Member(args[0]); found {
		t.named = args
		return t, nil
	}
	configured := t.p.scope
	t.close()
	if t, err = c.open(ctx, args[0]); err != nil {
		return t, err
	}
	if len(t.p.snap.Members) == 0 && t.p.snap.Config == nil {
		t.close()
		return t, &Failure{Code: ExitNotFound, What: fmt.Sprintf("%q is neither a cluster nor a member of cluster %s", args[0], configured),
			Means: "Nothing has changed.", Next: "haven list shows the members"}
	}
	t.named = args[1:]
	return t, nil
}

// open reads one cluster; empty: the configured one.
func (c *console) open(ctx context.Context, scope string) (target, error) {
	r, err := c.reader(scope)
	if err != nil {
		return target{}, err
	}
	p, err := r.read(ctx)
	if err != nil {
		r.close()
		return target{}, err
	}
	return target{reader: r, p: p}, nil
}

// scopeIn is the cluster that the only argument of a command names; empty: the configured one.
func scopeIn(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

// openOne is open for a command whose only argument is the cluster.
func (c *console) openOne(ctx context.Context, args []string) (target, error) {
	if err := c.noTSV(); err != nil {
		return target{}, err
	}
	return c.open(ctx, scopeIn(args))
}

// roles are what --role takes.
func roles() []string {
	return []string{"leader", "primary", "standby-leader", "replica", "standby", "any"}
}

func roleFlag(cmd *cobra.Command, role *string) {
	cmd.Flags().StringVarP(role, "role", "r", "any", strings.Join(roles(), ", "))
	_ = cmd.RegisterFlagCompletionFunc("role", cobra.FixedCompletions(roles(), cobra.ShellCompDirectiveNoFileComp)) // the flag is there
}

func yesFlag(cmd *cobra.Command, yes *bool) {
	f := cmd.Flags()
	f.BoolVarP(yes, "yes", "y", false, "do not ask")
	f.BoolVar(yes, "force", false, "the same as --yes")
	_ = f.MarkHidden("force") // the flag is there
}

// completeMembers offers members as arguments.
func (c *console) completeMembers(cmd *cobra.Command) {
	cmd.ValidArgsFunction = func(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return c.names(cmd.Context(), func(picture, cluster.Member) bool { return true }), cobra.ShellCompDirectiveNoFileComp
	}
}

// members are those that were named, or else all, as far as they have the role.
func (t target) members(role string) ([]cluster.Member, error) {
	if !slices.Contains(roles(), role) {
		return nil, usage(fmt.Sprintf("--role %s is not a role", role), "use one of "+strings.Join(roles(), ", "))
	}
	for _, name := range t.named {
		if _, found := t.p.snap.Member(name); !found {
			return nil, &Failure{Code: ExitNotFound, What: fmt.Sprintf("Member %s does not exist in cluster %s", name, t.p.scope),
				Means: "Nothing has changed.", Next: "members: " + strings.Join(nameList(t.p.snap.Members), ", ")}
		}
	}
	var out []cluster.Member
	for _, m := range t.p.snap.Members {
		if (len(t.named) == 0 || slices.Contains(t.named, m.Name)) && t.p.hasRole(m, role) {
			out = append(out, m)
		}
	}
	if len(out) == 0 {
		return nil, &Failure{Code: ExitNotFound, What: fmt.Sprintf("no member of cluster %s is meant: role %s, members %s", t.p.scope, role, or(strings.Join(t.named, ", "), "all")),
			Means: "Nothing has changed.", Next: "haven list shows the members and their roles"}
	}
	return out, nil
}

func (p picture) hasRole(m cluster.Member, role string) bool {
	leads, standbyCluster := m.Name == p.leader(), p.dynamic.IsStandby()
	switch role {
	case "leader":
		return leads
	case "primary":
		return leads && !standbyCluster
	case "standby-leader":
		return leads && standbyCluster
	case "replica":
		return !leads
	case "standby":
		return !leads || standbyCluster
	}
	return true
}

// leaderFirst are all members, in the order in which they are asked for something that any of them can do.
func (t target) leaderFirst() []cluster.Member {
	var leader, others []cluster.Member
	for _, m := range t.p.snap.Members {
		if m.Name == t.p.leader() {
			leader = append(leader, m)
		} else {
			others = append(others, m)
		}
	}
	return append(leader, others...)
}

func nameList(members []cluster.Member) []string {
	var out []string
	for _, m := range members {
		out = append(out, m.Name)
	}
	return out
}

// agree asks the person; without a terminal it refuses unless yes.
func (c *console) agree(ctx context.Context, yes bool, question string) error {
	if yes {
		return nil
	}
	if c.ctl != nil {
		return c.confirm(ctx, question, "Aborted")
	}
	if !c.inTTY {
		return refused("this command asks before it acts, and there is no terminal to ask on", "add --yes")
	}
	answer, err := c.prompt(ctx, question+" [y/N]: ")
	if err != nil {
		return err
	}
	if answer = strings.ToLower(answer); answer != "y" && answer != "yes" {
		return refused("cancelled", "")
	}
	return nil
}

// outcome is what became of a request to one member.
type outcome struct {
	Member string `json:"member"`
	Done   bool   `json:"done"`
	Text   string `json:"text"`
	code   int    // of the exit; 0: done
}

// deliver sends a request to one member. good says of the answers of success what to tell.
func (t target) deliver(ctx context.Context, m cluster.Member, method, path string, body any, good map[int]string, what string) outcome {
	if m.APIBase() == "" {
		return outcome{Member: m.Name, Text: fmt.Sprintf("Failed: %s for member %s, it has no REST address", what, m.Name), code: ExitUnreachable}
	}
	a, err := t.client.Do(ctx, method, m.APIBase(), path, body)
	switch {
	case err != nil && ctx.Err() != nil:
		return outcome{Member: m.Name, Text: fmt.Sprintf("Failed: %s for member %s, no answer in time; it may still happen", what, m.Name), code: ExitTimeout}
	case err != nil:
		return outcome{Member: m.Name, Text: fmt.Sprintf("Failed: %s for member %s, %v", what, m.Name, err), code: ExitUnreachable}
	}
	if text, fine := good[a.Code]; fine {
		return outcome{Member: m.Name, Done: true, Text: fmt.Sprintf(text, m.Name)}
	}
	return outcome{Member: m.Name, Text: fmt.Sprintf("Failed: %s for member %s, status code=%d, (%s)", what, m.Name, a.Code, a.Text()), code: exitOfAnswer(a)}
}

// exitOfAnswer is the exit code for an answer that is no success.
func exitOfAnswer(a api.Answer) int {
	switch {
	case a.Code == http.StatusUnauthorized || a.Code == http.StatusForbidden:
		return ExitForbidden
	case a.Code == http.StatusConflict:
		return ExitConflict
	case a.Code == http.StatusNotFound:
		return ExitNotFound
	case a.Code >= 400 && a.Code < 500:
		return ExitRefused
	}
	return ExitFailed
}

// tell writes the outcomes; the exit code is that of the first failure.
func (c *console) tell(outcomes []outcome) error {
	if c.structured() {
		if err := c.emit(c.out, outcomes); err != nil {
			return err
		}
	} else {
		for _, o := range outcomes {
			fmt.Fprintln(c.out, o.Text)
		}
	}
	for _, o := range outcomes {
		if o.code != 0 {
			return verdictCode(o.code)
		}
	}
	return nil
}
