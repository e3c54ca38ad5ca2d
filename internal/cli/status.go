package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/havenha/haven/internal/api"
	"github.com/havenha/haven/internal/app"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/dcs/etcd"
	"github.com/spf13/cobra"
)

// sideTimeout bounds what status asks beside the store.
const sideTimeout = time.Second

func (c *console) statusCommand() *cobra.Command {
	var exitCode bool
	cmd := &cobra.Command{
		Use: "status [CLUSTER]", Short: "Say how the cluster is, and what to do", Args: atMost(1),
		Long: `Say how the cluster is. The first line is the verdict; below it stand its reasons, the leader, the members
with their lag, who could take over, and what to do next.

With --exit-code: 0 healthy, 20 degraded, 21 critical, 22 unknown.`,
		Example: "  haven status\n  haven status --watch\n  haven status -o json --exit-code",
	}
	every := watchFlag(cmd)
	cmd.Flags().BoolVar(&exitCode, "exit-code", false, "tell the verdict by the exit code")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := c.noTSV(); err != nil {
			return err
		}
		r, err := c.reader(scopeIn(args))
		if err != nil {
			return err
		}
		defer r.close()
		return c.status(cmd.Context(), r, time.Duration(*every), exitCode)
	}
	return cmd
}

func (c *console) status(ctx context.Context, r *reader, every time.Duration, exitCode bool) error {
	v := view{
		show: func(w io.Writer, p picture) error {
			a := r.assess(ctx, p)
			if c.structured() {
				return c.emit(w, a)
			}
			_, err := fmt.Fprint(w, c.statusText(a))
			return err
		},
		summary: func(p picture) string {
			a := assess(p, r.askWrites(ctx, p), nil)
			return strings.ToUpper(string(a.Verdict)) + "  " + summary(p)
		},
	}
	if every != 0 {
		return c.follow(ctx, r, every, v)
	}
	p, err := r.read(ctx)
	if err != nil {
		if exitCode && exitOf(ctx, err) == ExitUnreachable {
			fmt.Fprintln(c.err, "haven: "+err.Error())
			return verdictCode(ExitUnknown)
		}
		return err
	}
	a := r.assess(ctx, p)
	if c.structured() {
		err = c.emit(c.out, a)
	} else {
		_, err = fmt.Fprint(c.out, c.statusText(a))
	}
	if err == nil && exitCode && a.Verdict != healthy {
		return verdictCode(a.Verdict.code())
	}
	return err
}

// assess asks the leader and etcd's members, and judges.
func (r *reader) assess(ctx context.Context, p picture) assessment {
	var w writes
	var v *votes
	var problems []string
	var asked sync.WaitGroup
	asked.Go(func() { problems = r.askProblems(ctx, p) })
	asked.Go(func() { w = r.askWrites(ctx, p) })
	asked.Go(func() { v = r.askVotes(ctx) })
	asked.Wait()
	a := assess(p, w, v)
	for _, problem := range problems {
		a.worse(degraded, problem, "")
	}
	return a
}

// askProblems asks every member what it finds wrong with itself. One that does not answer is told of elsewhere.
func (r *reader) askProblems(ctx context.Context, p picture) []string {
	ctx, cancel := context.WithTimeout(ctx, sideTimeout)
	defer cancel()
	found := make([][]string, len(p.snap.Members))
	var asked sync.WaitGroup
	for i, m := range p.snap.Members {
		if m.APIBase() == "" || m.Haven == nil {
			continue
		}
		asked.Go(func() {
			a, err := r.client.Do(ctx, "GET", m.APIBase(), "/haven/health?own=true", nil)
			var h api.Health
			if err == nil && json.Unmarshal(a.Body, &h) == nil {
				found[i] = h.Problems
			}
		})
	}
	asked.Wait()
	return slices.Concat(found...)
}

// askWrites asks the leader's health check, as a load balancer does.
func (r *reader) askWrites(ctx context.Context, p picture) writes {
	m, found := p.snap.Member(p.leader())
	if !found || m.APIBase() == "" {
		return writes{State: "unknown", Why: "the leader has no REST address"}
	}
	ctx, cancel := context.WithTimeout(ctx, sideTimeout)
	defer cancel()
	began := time.Now()
	a, err := r.client.Do(ctx, "GET", m.APIBase(), "/leader", nil)
	switch {
	case err != nil:
		return writes{State: "unknown", Why: fmt.Sprintf("the REST API of %s does not answer from here (%s)", m.Name, m.APIBase())}
	case a.Code != 200:
		return writes{State: "no", Why: fmt.Sprintf("its health check says %d", a.Code)}
	}
	return writes{State: "ok", Took: time.Since(began).Seconds()}
}

// askVotes asks each member of etcd that the configuration names; nil where it does not name them all.
func (r *reader) askVotes(ctx context.Context) *votes {
	if r.node == nil || r.node.Etcd.UseProxies || r.node.Etcd.SRV != "" || len(r.node.Etcd.Hosts) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, sideTimeout)
	defer cancel()
	var answering atomic.Int64
	var asked sync.WaitGroup
	for _, host := range r.node.Etcd.Hosts {
		asked.Go(func() {
			if pingOne(ctx, r.node, host) {
				answering.Add(1)
			}
		})
	}
	asked.Wait()
	n, up := len(r.node.Etcd.Hosts), int(answering.Load())
	return &votes{Members: n, Answering: up, Tolerance: up - (n/2 + 1)}
}

func pingOne(ctx context.Context, node *config.Node, host string) bool {
	o, err := app.StoreOptions(node, slog.New(slog.DiscardHandler))
	if err != nil {
		return false
	}
	for _, e := range o.Endpoints {
		if strings.HasSuffix(e, strings.TrimPrefix(strings.TrimPrefix(host, "http://"), "https://")) {
			o.Endpoints = []string{e}
			break
		}
	}
	o.Discover = false
	client, err := etcd.Open(o)
	if err != nil {
		return false
	}
	defer func() { _ = client.Close() }() // it only waits for its own calls
	return client.Ping(ctx) == nil
}

// statusText renders an assessment. Symbols and colours are for terminals.
func (c *console) statusText(a assessment) string {
	sep, mark := "; ", ""
	if c.outTTY {
		sep = " · "
		mark = map[verdict]string{healthy: "● ", degraded: "▲ ", critical: "✖ ", unknown: "? "}[a.Verdict]
	}
	color := map[verdict]string{healthy: "32;1", degraded: "33;1", critical: "31;1", unknown: "35;1"}[a.Verdict]
	var b strings.Builder
	b.WriteString(c.color(color, mark+strings.ToUpper(string(a.Verdict))) + "   " + a.headline(sep) + "\n")
	for i, why := range a.Why {
		label := "why"
		if i > 0 {
			label = ""
		}
		fmt.Fprintf(&b, "  %-9s %s\n", label, why)
	}
	fmt.Fprintf(&b, "  %-9s %s\n", "leader", a.leaderText(sep))
	fmt.Fprintf(&b, "  %-9s %s\n", "tolerance", a.toleranceText(sep))
	fmt.Fprintf(&b, "  %-9s %s\n\n", "sync", a.syncText())
	b.WriteString(aligned(a.table()))
	fmt.Fprintf(&b, "\n  %-9s %s UTC, from %s\n", "as of", a.AsOf.UTC().Format("2 Jan 2006 15:04:05"), a.From)
	for _, next := range a.Next {
		fmt.Fprintf(&b, "  %-9s %s\n", "next:", next)
	}
	return b.String()
}

func (a assessment) leaderText(sep string) string {
	text := or(a.Leader, "none")
	if a.Since != nil {
		text += fmt.Sprintf(" for %s (term %d, timeline %s)", short(a.AsOf.Sub(*a.Since)), a.Term, unknownNumber(uint64(a.Timeline)))
	} else if a.Leader != "" {
		text += " (since when: ?, it writes no terms)"
	}
	if a.Last == nil {
		return text
	}
	begin, _ := span(*a.Last)
	return text + fmt.Sprintf("%slast change: %s, %s: %s   -> haven explain", sep, a.Last.Kind, day(begin), a.Last.Cause.Text)
}

func (a assessment) toleranceText(sep string) string {
	v := "votes: ? (only a configuration file names etcd's members)"
	if a.Votes != nil {
		v = fmt.Sprintf("votes: %d of %d members of etcd answer, %d more may fail", a.Votes.Answering, a.Votes.Members, max(0, a.Votes.Tolerance))
	}
	return v + sep + fmt.Sprintf("data: standbys that could take over: %d", a.Data)
}

func (a assessment) syncText() string {
	switch {
	case a.Sync == string(config.SyncOff):
		return "off: a commit is acknowledged before any standby has it"
	case len(a.SyncSet) == 0:
		return a.Sync + ": no standby is synchronous"
	case a.Sync == string(config.SyncQuorum):
		return "quorum: commits wait for some of " + strings.Join(a.SyncSet, ", ")
	}
	return "on: commits wait for " + strings.Join(a.SyncSet, ", ")
}

func (a assessment) table() [][]string {
	rows := [][]string{{"MEMBER", "ROLE", "STATE", "TL", "RECEIVE LAG", "REPLAY LAG", "ELIGIBLE"}}
	for _, m := range a.Members {
		receive, replay, can := lagText(m.ReceiveLag), lagText(m.ReplayLag), m.Eligible
		if m.Name == a.Leader {
			receive, replay, can = "-", "-", "-"
		}
		if can == "unknown" {
			can = "?"
		}
		if m.Why != "" {
			can += ": " + m.Why
		}
		rows = append(rows, []string{m.Name, m.Role, or(withProgress(m.State, m.Progress), "?"), unknownNumber(uint64(m.Timeline)), receive, replay, can})
	}
	if len(rows) == 1 {
		rows = [][]string{{"no members"}}
	}
	return rows
}

func lagText(n *uint64) string {
	if n == nil {
		return "?"
	}
	return size(*n)
}
