package config

import (
	"fmt"
	"slices"
	"strings"
)

// walker compares what was written with the table of keys. It runs on each source before they are merged, so that a
// fault is reported where it stands, and once.
type walker struct {
	format  Format
	report  *Report
	schema  *schema
	methods []string // names of sections that describe custom methods
}

func (w *walker) walk(path string, v *value, s *schema) {
	if v.shape == null {
		return
	}
	switch s.key.kind {
	case aSection:
		w.section(path, v, s)
	case objects:
		w.objects(path, v, s)
	case free:
	case settings:
		w.settings(path, v)
	case texts, lines, networks, endpoints:
		w.list(path, v, s)
	case options:
		if v.shape == scalar {
			w.report.errorf(v.at, "`%s` is one text: write a list of options, such as [checkpoint: fast, verbose]", path)
		}
	default:
		w.scalar(path, v, s)
	}
}

func (w *walker) section(path string, v *value, s *schema) {
	if v.shape != mapping {
		w.report.errorf(v.at, "`%s` is %s: it takes keys of its own%s", path, described(v), firstFew(s.names))
		return
	}
	for _, f := range v.fields {
		full := strings.TrimPrefix(path+"."+f.name, ".")
		child := s.next(f.name)
		switch {
		case child == nil:
			w.unknown(full, f, s)
		case child.key.unused:
			w.report.warnf(f.at, "`%s` is accepted and has no effect%s", trimNodes(full), unusedBecause(full))
		case child.key.absent != "" && f.value.shape != null:
			w.report.errorf(f.at, "`%s` %s", trimNodes(full), child.key.absent)
		default:
			w.walk(trimNodes(full), f.value, child)
		}
	}
}

// trimNodes takes nodes.<name>. off a path: keys below it are told as where they end up.
func trimNodes(path string) string {
	if rest, ok := strings.CutPrefix(path, "nodes."); ok {
		if _, inner, ok := strings.Cut(rest, "."); ok {
			return inner
		}
	}
	return path
}

func unusedBecause(path string) string {
	switch path {
	case "bootstrap.users":
		return " since Patroni 4.0; use `bootstrap.databases` or `post_bootstrap`"
	case "postgresql.use_slots":
		return " here: it is read from the dynamic configuration only"
	}
	return ": Haven has no need of it"
}

func (w *walker) unknown(path string, f field, s *schema) {
	section, _, _ := cutLast(path)
	if (strings.HasSuffix(section, "postgresql") || section == "bootstrap") && slices.Contains(w.methods, f.name) {
		return
	}
	hint := cmpOr(w.schema.elsewhere(f.name), didYouMean(f.name, s.names))
	if w.format == Patroni {
		w.report.warnf(f.at, "`%s` is not a key that is known, so it has no effect%s", trimNodes(path), hint)
		return
	}
	w.report.errorf(f.at, "unknown key `%s`%s", trimNodes(path), hint)
}

func (w *walker) objects(path string, v *value, s *schema) {
	if v.shape != list {
		w.report.errorf(v.at, "`%s` is %s: write a list, each element of which begins with `-`", path, described(v))
		return
	}
	for i, item := range v.items {
		w.section(fmt.Sprintf("%s[%d]", path, i), item, s.children["[]"])
	}
}

func (w *walker) settings(path string, v *value) {
	if v.shape != mapping {
		w.report.errorf(v.at, "`%s` is %s: write `name: value` lines", path, described(v))
		return
	}
	for _, f := range v.fields {
		if f.value.shape == list || f.value.shape == mapping {
			w.report.errorf(f.value.at, "`%s.%s` is %s: write one value (a list as text with commas, in quotes)", path, f.name, described(f.value))
		}
	}
}

func (w *walker) list(path string, v *value, s *schema) {
	items := v.items
	switch v.shape {
	case scalar:
		items = []*value{v}
	case mapping:
		w.report.errorf(v.at, "`%s` is a mapping: write a list, or one text", path)
		return
	}
	for _, item := range items {
		if item.shape != scalar {
			w.report.errorf(item.at, "an element of `%s` is %s: write a text", path, described(item))
		} else if err := s.key.check(item.text); err != nil {
			w.report.errorf(item.at, "`%s`: `%s` is not right: %v", path, maskInside(item.text), err)
		}
	}
}

func (w *walker) scalar(path string, v *value, s *schema) {
	if v.shape != scalar {
		w.report.errorf(v.at, "`%s` is %s: write one %s", path, described(v), s.key.kind)
		return
	}
	if err := s.key.check(v.text); err != nil {
		if s.key.kind == aSecret {
			w.report.errorf(v.at, "`%s`: %v", path, err)
			return
		}
		if len(s.key.accept) > 0 {
			w.report.errorf(v.at, "`%s` is `%s`, which it does not take: %v", path, v.text, err)
			return
		}
		w.report.errorf(v.at, "`%s` is `%s`, which is not a valid %s: %v", path, maskInside(v.text), s.key.kind, err)
	}
}

func described(v *value) string {
	switch v.shape {
	case list:
		return "a list"
	case mapping:
		return "a mapping"
	case null:
		return "empty"
	}
	return "a single value"
}

func firstFew(names []string) string {
	var out []string
	for _, n := range names {
		if n != "*" && n != "[]" && len(out) < 3 {
			out = append(out, n)
		}
	}
	if len(out) == 0 {
		return ""
	}
	return ", such as " + strings.Join(out, ", ")
}

// methodNames are the names under which custom methods of copying and bootstrapping have sections of their own.
func methodNames(doc *value) []string {
	var names []string
	for _, path := range []string{"postgresql.create_replica_methods", "postgresql.create_replica_method", "bootstrap.method",
		"bootstrap.dcs.postgresql.create_replica_methods"} {
		names = append(names, stringsOf(doc.find(path))...)
	}
	return names
}

// stringsOf reads a list of texts, or one text with commas.
func stringsOf(v *value) []string {
	if v == nil {
		return nil
	}
	if v.shape == scalar {
		return splitList(v.text)
	}
	var out []string
	for _, item := range v.items {
		if item.shape == scalar {
			out = append(out, item.text)
		}
	}
	return out
}
