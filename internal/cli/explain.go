package cli

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/spf13/cobra"
)

func (c *console) explainCommand() *cobra.Command {
	var list bool
	var replay string
	cmd := &cobra.Command{
		Use: "explain [TERM]", Short: "Say why leadership changed, with the evidence",
		Args: func(cmd *cobra.Command, args []string) error {
			if replay != "" { // the names of a pattern that the shell has filled in
				return nil
			}
			return atMost(1)(cmd, args)
		},
		Long: `Say why leadership changed: the cause and how certain it is, who was chosen and why, what was lost,
and how long each part took. Without TERM: the last change. It shows what the members recorded when it
happened; nothing is guessed afterwards.

--replay FILE... reads a journal (state_dir/nodes/SCOPE/NAME/journal/*.jsonl, - is standard input) and decides each entry
again from its recorded inputs; exit code 9 if a decision differs.`,
		Example: "  haven explain\n  haven explain 12 -o json\n  haven explain --list",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := c.noTSV(); err != nil {
				return err
			}
			if replay != "" {
				return c.replay(append([]string{replay}, args...))
			}
			number, err := termArgument(args)
			if err != nil {
				return err
			}
			return c.show(cmd.Context(), nil, 0, view{show: func(w io.Writer, p picture) error {
				if list {
					return c.listEvents(w, p)
				}
				return c.explain(w, p, number)
			}})
		},
	}
	cmd.Flags().BoolVar(&list, "list", false, "list the recorded changes, the newest first")
	cmd.Flags().StringVar(&replay, "replay", "", "decide the entries of a journal `FILE` again")
	return cmd
}

func termArgument(args []string) (uint64, error) {
	if len(args) == 0 {
		return 0, nil
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(args[0], "#"), 10, 64)
	if err != nil || n == 0 {
		return 0, usage(fmt.Sprintf("%q is not the number of a term", args[0]), "haven explain --list shows them")
	}
	return n, nil
}

func (c *console) explain(w io.Writer, p picture, number uint64) error {
	if len(p.snap.Events) == 0 && number == 0 {
		if c.structured() {
			return c.emit(w, nil)
		}
		_, err := fmt.Fprintf(w, "No change of leadership is recorded in cluster %s.\n", p.scope)
		return err
	}
	for _, e := range slices.Backward(p.snap.Events) {
		if number != 0 && e.Term != number {
			continue
		}
		if c.structured() {
			return c.emit(w, e)
		}
		_, err := fmt.Fprint(w, c.story(e))
		return err
	}
	return &Failure{Code: ExitNotFound, What: fmt.Sprintf("no change of leadership is recorded for term %d", number),
		Means: "The last hundred are kept; a leadership that ended before it accepted writes has none.", Next: "haven explain --list"}
}

func (c *console) listEvents(w io.Writer, p picture) error {
	events := slices.Clone(p.snap.Events)
	slices.Reverse(events)
	if c.structured() {
		if events == nil {
			events = []cluster.Event{}
		}
		return c.emit(w, events)
	}
	if len(events) == 0 {
		return c.explain(w, p, 0)
	}
	rows := [][]string{{"TERM", "KIND", "FROM", "TO", "WHEN (UTC)", "TOOK", "CAUSE"}}
	for _, e := range events {
		begin, end := span(e)
		rows = append(rows, []string{fmt.Sprint(e.Term), e.Kind, or(e.OldLeader, "-"), e.NewLeader, day(begin), duration(begin, end), e.Cause.Text})
	}
	_, err := fmt.Fprint(w, aligned(rows))
	return err
}

// span is when a change began and when it was over, as far as its phases tell.
func span(e cluster.Event) (begin, end time.Time) {
	begin, end = e.Cause.At, e.Cause.At
	for i, ph := range e.Phases {
		if i == 0 || ph.From.Before(begin) {
			begin = ph.From
		}
		if t := ph.From.Add(ph.Took); t.After(end) {
			end = t
		}
	}
	return begin, end
}

func duration(begin, end time.Time) string {
	if !end.After(begin) {
		return "?"
	}
	return took(end.Sub(begin))
}

// story renders one event.
func (c *console) story(e cluster.Event) string {
	var b strings.Builder
	b.WriteString(c.color("1", headline(e)) + "\n\n")
	field := func(label, text string) {
		if text != "" {
			fmt.Fprintf(&b, "%-10s %s\n", label, text)
		}
	}
	field("cause", fmt.Sprintf("%-9s  %s", or(e.Cause.Certainty, cluster.Unknown), or(e.Cause.Text, "no cause was recorded")))
	field("decided by", fmt.Sprintf("%s, term %d      rule: %s", e.NewLeader, e.Term, ruleOf(e)))
	field("chosen", e.Chosen)
	for i, r := range e.Rejected {
		label := "rejected"
		if i > 0 {
			label = ""
		}
		field(label, r)
	}
	field("loss", or(e.Loss, "? (not recorded)"))
	field("result", fmt.Sprintf("timeline %s from %s", unknownNumber(uint64(e.Timeline)), unknownLSN(e.LSN)))
	field("took", phases(e))
	b.WriteString(evidence(e))
	field("not known", notKnown(e))
	return b.String()
}

func headline(e cluster.Event) string {
	who := e.NewLeader
	if e.OldLeader != "" {
		who = e.OldLeader + " → " + e.NewLeader
	}
	begin, end := span(e)
	head := fmt.Sprintf("%s, term %d   %s", strings.ToUpper(or(e.Kind, "change")), e.Term, who)
	if begin.IsZero() {
		return head + "   (when: not known)"
	}
	head += "   " + begin.UTC().Format("2 Jan 2006 15:04:05.000")
	if !end.After(begin) {
		return head + " UTC"
	}
	until := end.UTC().Format("15:04:05.000")
	if e.Kind == "bootstrap" {
		return fmt.Sprintf("%s → %s UTC   (took %s)", head, until, took(end.Sub(begin)))
	}
	return fmt.Sprintf("%s → %s UTC   (writes stopped for about %s)", head, until, took(end.Sub(begin)))
}

// ruleOf says what made it certain that the older leader accepts no writes any more.
func ruleOf(e cluster.Event) string {
	switch e.Fence {
	case cluster.FenceBootstrap:
		return "there was no leader before"
	case cluster.FenceLease:
		return "the lease of " + or(e.OldLeader, "the older leader") + " had ended"
	case cluster.FenceStopped:
		return or(e.OldLeader, "the older leader") + " had verified that its server was gone, and handed over itself"
	case cluster.FenceVoters:
		return "a majority of the synchronous voters was cut off from " + or(e.OldLeader, "the older leader")
	}
	return "? (" + or(string(e.Fence), "not recorded") + ")"
}

func unknownNumber(n uint64) string {
	if n == 0 {
		return "?"
	}
	return fmt.Sprint(n)
}

func unknownLSN(l cluster.LSN) string {
	if l == 0 {
		return "?"
	}
	return l.String()
}

func phases(e cluster.Event) string {
	var parts []string
	for _, ph := range e.Phases {
		parts = append(parts, ph.Name+" "+took(ph.Took))
	}
	return or(strings.Join(parts, " · "), "? (no times were recorded)")
}

// evidence is the log and the cause's own evidence, in order of time.
func evidence(e cluster.Event) string {
	all := append(slices.Clone(e.Cause.Evidence), e.Log...)
	if len(all) == 0 {
		return ""
	}
	slices.SortStableFunc(all, func(a, b cluster.Evidence) int { return cmp.Compare(a.At.UnixNano(), b.At.UnixNano()) })
	rows := [][]string{{"time (UTC)", "member", "event"}}
	for _, l := range all {
		rows = append(rows, []string{clock(l.At), l.Member, l.Text})
	}
	return "\n" + strings.ReplaceAll(strings.TrimPrefix("\n"+aligned(rows), "\n  "), "\n  ", "\n") + "\n"
}

// notKnown lists what the record cannot tell.
func notKnown(e cluster.Event) string {
	var missing []string
	if e.Cause.Certainty != cluster.Observed {
		who := or(e.OldLeader, "the older leader")
		if e.Kind == "bootstrap" {
			return ""
		}
		missing = append(missing, "what happened to "+who+" was not seen directly")
	}
	if e.Loss == "" || strings.Contains(e.Loss, "not known") {
		missing = append(missing, "whether anything acknowledged was lost")
	}
	return strings.Join(missing, "; ")
}
