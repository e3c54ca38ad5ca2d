package config

import (
	"sort"
	"strings"

	"github.com/havenha/haven/internal/config/schema"
	"github.com/havenha/haven/internal/config/tree"
)

// environment makes a document of the PATRONI_* variables, which are laid over the file.
func (l *loader) environment() *tree.Value {
	doc := &tree.Value{Shape: tree.Mapping, At: tree.Place{Note: "the environment"}}
	paths := schema.Variables()
	env := map[string]string{}
	for _, e := range l.src.Env {
		if name, v, ok := strings.Cut(e, "="); ok && strings.HasPrefix(name, "PATRONI_") {
			env[name] = v
		}
	}
	var names []string
	for name := range env {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		path, known := paths[name]
		switch {
		case name == "PATRONI_CONFIGURATION" || env[name] == "":
		case known:
			doc.Set(path, l.fromVariable(name, path, env[name]))
		default:
			l.strangeVariable(doc, name, paths)
		}
	}
	return doc
}

// strangeVariable handles variables that no key belongs to: those of other stores are refused with their section.
func (l *loader) strangeVariable(doc *tree.Value, name string, known map[string]string) {
	for _, section := range []string{"consul", "zookeeper", "exhibitor", "kubernetes", "raft", "citus"} {
		if strings.HasPrefix(name, "PATRONI_"+strings.ToUpper(section)+"_") {
			doc.Put(section, &tree.Value{Shape: tree.Mapping, At: tree.Place{Note: name}})
			return
		}
	}
	var candidates []string
	for k := range known {
		candidates = append(candidates, strings.ToLower(k))
	}
	sort.Strings(candidates)
	hint := schema.DidYouMean(strings.ToLower(name), candidates)
	if i := strings.IndexByte(hint, '`'); i >= 0 {
		hint = hint[:i] + strings.ToUpper(hint[i:])
	}
	l.report.warnf(tree.Place{Note: name}, "this variable belongs to no key, so it has no effect%s", hint)
}

// fromVariable makes a value of a variable's text: a list or a mapping where the key takes one.
func (l *loader) fromVariable(name, path, s string) *tree.Value {
	at := tree.Place{Note: name}
	plain := &tree.Value{Shape: tree.Scalar, Text: s, At: at}
	row := l.schema.At(path)
	if row == nil { // one of several settings, such as bin_name.pg_ctl
		return plain
	}
	trimmed := strings.TrimSpace(s)
	switch row.Key.Kind {
	case schema.Settings:
		if !strings.HasPrefix(trimmed, "{") {
			trimmed = "{" + trimmed + "}"
		}
	case schema.Texts, schema.Endpoints, schema.Free, schema.Networks:
		if !strings.HasPrefix(trimmed, "[") && !strings.HasPrefix(trimmed, "{") {
			return plain
		}
	default:
		return plain
	}
	return tree.ParseInline(trimmed, at, l.report.errorf)
}
