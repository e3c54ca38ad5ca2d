package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/havenha/haven/internal/api"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/dcs"
	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"
)

// edit is a change of the dynamic configuration that a person makes.
type edit struct {
	c              *console
	set, pg        []string
	apply, replace string
	yes, planOnly  bool
	draft          string // the file in which an edited text is kept until it is in force
}

func (c *console) editConfigCommand() *cobra.Command {
	e := &edit{c: c}
	cmd := &cobra.Command{
		Use: "edit-config [CLUSTER]", Short: "Change the dynamic configuration", Args: atMost(1),
		Long: `Change the dynamic configuration, which holds for all members: in an editor ($EDITOR, else editor, else vi), by
--set and --pg, or from a file. The difference is shown, and asked about, before anything is written. A value that is
not valid is refused; if somebody else has changed the configuration meanwhile, nothing is written (exit code 7).

Below postgresql.parameters the rest of a path is one name. The value null takes a key away.`,
		Example: `  haven edit-config
  haven edit-config --set ttl=20 --set synchronous_mode=true --plan
  haven edit-config --pg work_mem=16MB --pg log_min_duration_statement=null --yes
  haven edit-config --apply changes.yml
  haven show-config | sed s/30/20/ | haven edit-config --replace - --yes`,
		RunE: func(cmd *cobra.Command, args []string) error { return e.run(cmd.Context(), args) },
	}
	f := cmd.Flags()
	f.StringArrayVarP(&e.set, "set", "s", nil, "set `KEY=VALUE`; the value is YAML")
	f.StringArrayVarP(&e.pg, "pg", "p", nil, "set a parameter of PostgreSQL, `NAME=VALUE`")
	f.StringVar(&e.apply, "apply", "", "merge a YAML `FILE` (- is standard input) into the configuration")
	f.StringVar(&e.replace, "replace", "", "put a YAML `FILE` (- is standard input) in its place")
	f.BoolVar(&e.planOnly, "plan", false, "show the difference, and write nothing")
	f.BoolVar(&e.planOnly, "dry-run", false, "the same as --plan")
	_ = f.MarkHidden("dry-run") // the flag is there
	yesFlag(cmd, &e.yes)
	return cmd
}

func (e *edit) run(ctx context.Context, args []string) error {
	if err := e.c.noTSV(); err != nil {
		return err
	}
	r, err := e.c.reader(scopeIn(args))
	if err != nil {
		return err
	}
	defer r.close()
	p, err := r.read(ctx)
	switch {
	case err != nil && p.snap.Config == nil: // one that cannot be used can be corrected all the same
		return err
	case p.snap.Config == nil:
		return noConfig(p)
	case p.stale:
		return &Failure{Code: ExitUnreachable, What: p.from + " cannot read etcd", Means: "Nothing has changed.", Next: "make etcd reachable, then try again"}
	}
	old, err := document(p.snap.Config.Raw)
	if err != nil {
		return &Failure{Code: ExitFailed, What: "the dynamic configuration is not valid JSON: " + err.Error(), Next: "put another in its place: PUT /config of a member"}
	}
	next, err := e.next(ctx, old)
	if err != nil {
		return err
	}
	return e.finish(ctx, r, p, old, next)
}

// document reads a JSON object, with its numbers as they are written.
func document(raw []byte) (map[string]any, error) {
	var out map[string]any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	err := d.Decode(&out)
	if err == nil && out == nil {
		out = map[string]any{}
	}
	return out, err
}

// finish shows the difference, asks, and writes.
func (e *edit) finish(ctx context.Context, r *reader, p picture, old, next map[string]any) error {
	before, err := e.text(old, old)
	if err != nil {
		return err
	}
	after, err := e.text(next, old)
	if err != nil {
		return err
	}
	raw, err := compact(next)
	if err != nil {
		return err
	}
	if was, err := compact(old); err != nil || bytes.Equal(was, raw) {
		e.discard()
		return errors.Join(err, e.result("Not changed", ""))
	}
	now, then := "dynamic configuration, now", "dynamic configuration, then"
	if e.c.ctl != nil {
		now, then = "", ""
	}
	changes := string(diff.Diff(now, before, then, after))
	if faults := api.Mistakes(raw, p.snap.Config.Raw); len(faults) > 0 {
		return e.keep(refused("the configuration was not changed:\n"+strings.Join(faults, "\n"), "correct it, and try again"))
	}
	if e.planOnly {
		e.discard()
		return e.result("Nothing was written (--plan)", changes)
	}
	if !e.c.structured() && !e.c.quiet {
		fmt.Fprint(e.c.out, e.colored(changes))
	}
	if err := e.ask(ctx); err != nil {
		return e.keep(err)
	}
	if err := e.write(ctx, r, p, raw); err != nil {
		return e.keep(err)
	}
	e.discard()
	if e.c.structured() {
		return e.result("Configuration changed", changes)
	}
	return e.result("Configuration changed", "")
}

func (e *edit) ask(ctx context.Context) error {
	if !e.yes && (e.apply == "-" || e.replace == "-" || !e.c.inTTY && e.c.ctl == nil) {
		return refused("Use --force option to apply changes", "add --yes; --plan shows them")
	}
	return e.c.agree(ctx, e.yes, "Apply these changes?")
}

// changed is the outcome for machines.
type changed struct {
	Result string `json:"result"`
	Diff   string `json:"diff,omitempty"`
}

func (e *edit) result(text, changes string) error {
	if e.c.structured() {
		return e.c.emit(e.c.out, changed{text, changes})
	}
	if changes != "" {
		fmt.Fprint(e.c.out, e.colored(changes))
	}
	_, err := fmt.Fprintln(e.c.out, text)
	return err
}

// text is a configuration as YAML. Of a secret it shows only whether it differs from that of the other.
func (e *edit) text(whole, other map[string]any) ([]byte, error) {
	shown, err := document(mustJSON(whole))
	if err != nil {
		return nil, err
	}
	return e.yaml(hidden("", shown, other))
}

func mustJSON(v any) []byte {
	content, err := json.Marshal(v)
	if err != nil {
		return nil // of values that came from JSON or YAML: document says what is wrong
	}
	return content
}

func (e *edit) yaml(v any) ([]byte, error) {
	form := *e.c
	form.output = "yaml"
	var b bytes.Buffer
	err := form.emit(&b, v)
	return append(bytes.TrimRight(b.Bytes(), "\n"), '\n'), err
}

// hidden is masked, with a word where a secret is another than in what it is held against.
func hidden(key string, v, other any) any {
	whole, isMap := v.(map[string]any)
	if !isMap {
		shown := masked(key, v)
		if text, is := shown.(string); is && strings.Contains(text, config.Mask) && string(mustJSON(v)) != string(mustJSON(other)) {
			return text + " (another)"
		}
		return shown
	}
	against, _ := other.(map[string]any)
	for k := range whole {
		whole[k] = hidden(strings.ToLower(k), whole[k], against[k])
	}
	return whole
}

// colored paints a difference on a terminal.
func (e *edit) colored(changes string) string {
	lines := strings.SplitAfter(changes, "\n")
	var b strings.Builder
	for _, l := range lines {
		text := strings.TrimSuffix(l, "\n")
		switch {
		case strings.HasPrefix(l, "diff "):
			continue
		case strings.HasPrefix(l, "+"):
			text = e.c.color("32", text)
		case strings.HasPrefix(l, "-"):
			text = e.c.color("31", text)
		case strings.HasPrefix(l, "@@"):
			text = e.c.color("36", text)
		}
		b.WriteString(text + l[len(strings.TrimSuffix(l, "\n")):])
	}
	return b.String()
}

// write replaces the configuration that was read, and only that one.
func (e *edit) write(ctx context.Context, r *reader, p picture, raw json.RawMessage) error {
	ctx, cancel := context.WithTimeout(ctx, e.c.wait(changeTimeout))
	defer cancel()
	if r.store == nil {
		return e.send(ctx, r, p, raw)
	}
	err := r.store.PutConfig(ctx, raw, p.snap.Config.ModRev)
	if errors.Is(err, dcs.ErrConflict) {
		return aborted()
	}
	return err
}

// send writes through a member that was named by its URL.
func (e *edit) send(ctx context.Context, r *reader, p picture, raw json.RawMessage) error {
	a, err := r.client.DoIf(ctx, http.MethodPut, r.bases[0], "/config", raw, p.snap.Config.ModRev)
	switch {
	case err != nil:
		return &Failure{Code: ExitUnreachable, What: err.Error(), Means: "It is not known whether the configuration was changed.", Next: "haven show-config"}
	case a.Code == http.StatusOK:
		return nil
	case a.Code == http.StatusConflict:
		return aborted()
	}
	return &Failure{Code: exitOfAnswer(a), What: a.Text(), Means: "Nothing has changed.", Next: nextFor(a)}
}

func aborted() *Failure {
	return &Failure{Code: ExitConflict, What: "Config modification aborted due to concurrent changes",
		Means: "Somebody else has changed the configuration since it was read; that change stands. Nothing of yours was written.", Next: "try again"}
}

// keep tells where an edited text is kept that has not come into force.
func (e *edit) keep(err error) error {
	var f *Failure
	if e.draft != "" && errors.As(err, &f) {
		copied := *f
		copied.Next = strings.TrimPrefix(copied.Next+"\n", "\n") + "your text is in " + e.draft + ": haven edit-config --replace " + e.draft
		return &copied
	}
	return err
}

func (e *edit) discard() {
	if e.draft != "" {
		_ = os.Remove(e.draft) // a leftover does no harm
		e.draft = ""
	}
}

// input reads a file that was named, or standard input.
func (e *edit) input(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(e.c.in)
	}
	content, err := os.ReadFile(name)
	if err != nil {
		return nil, &Failure{Code: ExitNotFound, What: err.Error(), Means: "Nothing has changed."}
	}
	return content, nil
}
