package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/havenha/haven/internal/api"
	"go.yaml.in/yaml/v3"
)

// next is the configuration as the person wants it.
func (e *edit) next(ctx context.Context, old map[string]any) (map[string]any, error) {
	next, err := document(mustJSON(old))
	if err != nil {
		return nil, err
	}
	if len(e.set)+len(e.pg) == 0 && e.apply == "" && e.replace == "" {
		return e.edited(ctx, next)
	}
	if e.replace != "" {
		if next, err = e.fileDocument(e.replace); err != nil {
			return nil, err
		}
	}
	if e.apply != "" {
		patch, err := e.fileDocument(e.apply)
		if err != nil {
			return nil, err
		}
		api.Merge(next, patch)
	}
	for _, s := range append(e.set, prefixed("postgresql.parameters.", e.pg)...) {
		if err := assign(next, s); err != nil {
			return nil, err
		}
	}
	return next, nil
}

func prefixed(prefix string, list []string) []string {
	out := make([]string, len(list))
	for i, s := range list {
		out[i] = prefix + s
	}
	return out
}

func (e *edit) fileDocument(name string) (map[string]any, error) {
	content, err := e.input(name)
	if err != nil {
		return nil, err
	}
	return fromYAML(content)
}

// fromYAML reads a YAML mapping as JSON would hold it.
func fromYAML(content []byte) (map[string]any, error) {
	var v map[string]any
	err := yaml.Unmarshal(content, &v)
	var raw []byte
	if err == nil {
		raw, err = json.Marshal(v)
	}
	if err != nil {
		return nil, &Failure{Code: ExitConfig, What: "this is no YAML mapping: " + err.Error(), Means: "Nothing has changed."}
	}
	return document(raw)
}

// assign sets one key by its path, or takes it away, with what it leaves empty above it.
func assign(whole map[string]any, assignment string) error {
	path, text, found := strings.Cut(assignment, "=")
	if !found || strings.TrimSpace(path) == "" {
		return usage(fmt.Sprintf("%q is not of the form KEY=VALUE", assignment), "haven edit-config --set ttl=20")
	}
	holder, err := fromYAML([]byte("value: " + text))
	if err != nil {
		return err
	}
	place(whole, segments(strings.TrimSpace(path)), holder["value"])
	return nil
}

// segments are the parts of a path; below postgresql.parameters the rest is one name.
func segments(path string) []string {
	const parameters = "postgresql.parameters."
	if name, found := strings.CutPrefix(path, parameters); found {
		return []string{"postgresql", "parameters", name}
	}
	return strings.Split(path, ".")
}

func place(whole map[string]any, path []string, value any) {
	key := path[0]
	if len(path) == 1 {
		if value == nil {
			delete(whole, key)
		} else {
			whole[key] = value
		}
		return
	}
	below, is := whole[key].(map[string]any)
	if !is {
		if value == nil {
			return
		}
		below = map[string]any{}
		whole[key] = below
	}
	place(below, path[1:], value)
	if value == nil && len(below) == 0 {
		delete(whole, key)
	}
}

// edited is what the person leaves in the editor.
func (e *edit) edited(ctx context.Context, whole map[string]any) (map[string]any, error) {
	if !e.c.inTTY || !e.c.outTTY {
		return nil, refused("an editor needs a terminal", "haven edit-config --set KEY=VALUE, or --apply FILE")
	}
	text, err := e.yaml(whole)
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp("", "haven-config-*.yaml") // of mode 0600: it may hold secrets
	if err != nil {
		return nil, err
	}
	e.draft = f.Name()
	_, err = f.Write(text)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = e.openEditor(ctx)
	}
	if err != nil {
		return nil, e.keep(err)
	}
	content, err := os.ReadFile(e.draft)
	if err != nil {
		return nil, err
	}
	next, err := fromYAML(content)
	return next, e.keep(err)
}

func (e *edit) openEditor(ctx context.Context) error {
	program := e.c.getenv("EDITOR")
	for _, known := range []string{"editor", "vi"} {
		if _, err := exec.LookPath(known); program == "" && err == nil {
			program = known
		}
	}
	if program == "" {
		return refused("there is no editor: EDITOR is not set, and neither editor nor vi is installed", "EDITOR=nano haven edit-config, or --set KEY=VALUE")
	}
	cmd := exec.CommandContext(ctx, "sh", "-c", program+` "$1"`, program, e.draft) // EDITOR may bring options of its own
	cmd.Stdin, cmd.Stdout, cmd.Stderr = e.c.in, e.c.out, e.c.err
	if err := cmd.Run(); err != nil {
		return refused(fmt.Sprintf("the editor (%s) failed: %v", program, err), "")
	}
	return nil
}
