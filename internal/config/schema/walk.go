package schema

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/havenha/haven/internal/config/notation"
	"github.com/havenha/haven/internal/config/tree"
)

// Walker compares what was written with the table of keys. It runs on each source before they are merged, so that a
// fault is reported where it stands, and once.
type Walker struct {
	Strict  bool // a key that is not known is an error
	Errorf  tree.Report
	Warnf   tree.Report
	Inertf  tree.Report // keys without effect; nil: not reported
	Refusef tree.Report // those of them that would be relied on; nil: as above
	Schema  *Table
	Methods []string // names of sections that describe custom methods
}

// Walk compares the value at a path with its row; values below it too.
func (w *Walker) Walk(path string, v *tree.Value, s *Table) {
	if v.Shape == tree.Null {
		return
	}
	switch s.Key.Kind {
	case Section:
		w.section(path, v, s)
	case Sections:
		w.objects(path, v, s)
	case Free:
		w.known(path, v, s)
	case Settings:
		w.settings(path, v)
	case Texts, Lines, Networks, Endpoints:
		w.list(path, v, s)
	case Options:
		if v.Shape == tree.Scalar {
			w.Errorf(v.At, "`%s` is one text: write a list of options, such as [checkpoint: fast, verbose]", path)
		}
	default:
		w.scalar(path, v, s)
	}
}

func (w *Walker) section(path string, v *tree.Value, s *Table) {
	if v.Shape != tree.Mapping {
		w.Errorf(v.At, "`%s` is %s: it takes keys of its own%s", path, Described(v), firstFew(s.names))
		return
	}
	for _, f := range v.Fields {
		full := strings.TrimPrefix(path+"."+f.Name, ".")
		child := s.next(f.Name)
		switch {
		case child == nil:
			w.unknown(full, f, s)
		case child.Key.Unused:
			w.Warnf(f.At, "`%s` is accepted and has no effect%s", trimNodes(full), unusedBecause(full))
		case child.Key.Absent != "" && f.Value.Shape != tree.Null:
			w.Errorf(f.At, "`%s` %s", trimNodes(full), child.Key.Absent)
		default:
			w.Walk(trimNodes(full), f.Value, child)
			w.inert(trimNodes(full), f, &child.Key)
		}
	}
}

// known looks at those keys of a free mapping that mean something.
func (w *Walker) known(path string, v *tree.Value, s *Table) {
	for _, f := range v.Fields {
		if child := s.children[f.Name]; child != nil {
			w.inert(path+"."+f.Name, f, &child.Key)
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

func (w *Walker) unknown(path string, f tree.Field, s *Table) {
	section, _, _ := tree.CutLast(path)
	if (strings.HasSuffix(section, "postgresql") || section == "bootstrap") && slices.Contains(w.Methods, f.Name) {
		return
	}
	hint := cmp.Or(w.Schema.elsewhere(f.Name), DidYouMean(f.Name, s.names))
	if !w.Strict {
		w.Warnf(f.At, "`%s` is not a key that is known, so it has no effect%s", trimNodes(path), hint)
		return
	}
	w.Errorf(f.At, "unknown key `%s`%s", trimNodes(path), hint)
}

func (w *Walker) objects(path string, v *tree.Value, s *Table) {
	if v.Shape != tree.List {
		w.Errorf(v.At, "`%s` is %s: write a list, each element of which begins with `-`", path, Described(v))
		return
	}
	for i, item := range v.Items {
		w.section(fmt.Sprintf("%s[%d]", path, i), item, s.children["[]"])
	}
}

func (w *Walker) settings(path string, v *tree.Value) {
	if v.Shape != tree.Mapping {
		w.Errorf(v.At, "`%s` is %s: write `name: value` lines", path, Described(v))
		return
	}
	for _, f := range v.Fields {
		if f.Value.Shape == tree.List || f.Value.Shape == tree.Mapping {
			w.Errorf(f.Value.At, "`%s.%s` is %s: write one value (a list as text with commas, in quotes)", path, f.Name, Described(f.Value))
		}
	}
}

func (w *Walker) list(path string, v *tree.Value, s *Table) {
	items := v.Items
	switch v.Shape {
	case tree.Scalar:
		items = []*tree.Value{v}
	case tree.Mapping:
		w.Errorf(v.At, "`%s` is a mapping: write a list, or one text", path)
		return
	}
	for _, item := range items {
		if item.Shape != tree.Scalar {
			w.Errorf(item.At, "an element of `%s` is %s: write a text", path, Described(item))
		} else if err := s.Key.Check(item.Text); err != nil {
			w.Errorf(item.At, "`%s`: `%s` is not right: %v", path, MaskInside(item.Text), err)
		}
	}
}

func (w *Walker) scalar(path string, v *tree.Value, s *Table) {
	if v.Shape != tree.Scalar {
		w.Errorf(v.At, "`%s` is %s: write one %s", path, Described(v), s.Key.Kind)
		return
	}
	if err := s.Key.Check(v.Text); err != nil {
		if s.Key.Kind == Secret {
			w.Errorf(v.At, "`%s`: %v", path, err)
			return
		}
		if len(s.Key.Accept) > 0 {
			w.Errorf(v.At, "`%s` is `%s`, which it does not take: %v", path, v.Text, err)
			return
		}
		w.Errorf(v.At, "`%s` is `%s`, which is not a valid %s: %v", path, MaskInside(v.Text), s.Key.Kind, err)
	}
}

// Described says what a value is, for a sentence.
func Described(v *tree.Value) string {
	switch v.Shape {
	case tree.List:
		return "a list"
	case tree.Mapping:
		return "a mapping"
	case tree.Null:
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

// MethodNames are the names under which custom methods of copying and bootstrapping have sections of their own.
func MethodNames(doc *tree.Value) []string {
	var names []string
	for _, path := range []string{"postgresql.create_replica_methods", "postgresql.create_replica_method", "bootstrap.method",
		"bootstrap.dcs.postgresql.create_replica_methods", "bootstrap.dcs.standby_cluster.create_replica_methods"} {
		names = append(names, StringsOf(doc.Find(path))...)
	}
	return names
}

// StringsOf reads a list of texts, or one text with commas.
func StringsOf(v *tree.Value) []string {
	if v == nil {
		return nil
	}
	if v.Shape == tree.Scalar {
		return notation.SplitList(v.Text)
	}
	var out []string
	for _, item := range v.Items {
		if item.Shape == tree.Scalar {
			out = append(out, item.Text)
		}
	}
	return out
}
