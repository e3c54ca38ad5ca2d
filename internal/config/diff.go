package config

import (
	"fmt"
	"strings"

	"github.com/havenha/haven/internal/config/schema"
	"github.com/havenha/haven/internal/config/tree"
)

// Mask stands for a secret in everything that is printed.
const Mask = schema.Mask

// SecretName tells whether the last part of a key says that it holds a secret.
func SecretName(last string) bool { return schema.SecretName(last) }

// MaskInside hides passwords within connection strings, URLs and commands.
func MaskInside(s string) string { return schema.MaskInside(s) }

// Print renders the effective configuration as YAML, with a comment on each line that says where its value comes from.
// Secrets are shown as ******.
func (n *Node) Print() string {
	table := schema.New()
	return tree.Print(n.doc, func(path string, v *tree.Value) string {
		if v.Shape == tree.Scalar && schema.IsSecret(path, table) {
			return schema.Mask
		}
		return schema.MaskInside(tree.Quote(v))
	})
}

// Diff tells which keys differ between two configurations of a node: those that a reload applies, and those that wait
// for a restart of the agent or (on a node with data) cannot change at all. Values are not told: they may be secrets.
func Diff(old, new *Node) (apply []string, needRestart []string) {
	was, is := flat(old), flat(new)
	changed := map[string]bool{}
	for path, v := range is {
		if before, ok := was[path]; !ok || before != v {
			changed[path] = true
		}
	}
	for path := range was {
		if _, ok := is[path]; !ok {
			changed[path] = true
		}
	}
	s := schema.New()
	for _, path := range sortedKeys(changed) {
		class := s.Nearest(path).Reload
		section, _, _ := strings.Cut(path, ".")
		added := was[section+"?"] != is[section+"?"] // a whole role came or went
		if class == schema.ReloadNow && !added {
			apply = append(apply, path)
		} else if !strings.HasSuffix(path, "?") {
			needRestart = append(needRestart, path)
		}
	}
	return apply, needRestart
}

// roleSections are those whose presence decides what a node does.
func roleSections() []string { return []string{"postgresql", "proxy", "bootstrap"} }

// flat is every leaf of a configuration, and for each role section whether it is there, under its name and a question mark.
func flat(n *Node) map[string]string {
	out := map[string]string{}
	n.doc.Leaves("", func(path string, v *tree.Value) { out[path] = fmt.Sprint(v.Shape, v.Text) })
	for _, section := range roleSections() {
		out[section+"?"] = fmt.Sprint(n.has(section))
	}
	return out
}

// has tells whether a section is there.
func (n *Node) has(section string) bool {
	v := n.doc.Field(section)
	return v != nil && v.Shape != tree.Null
}
