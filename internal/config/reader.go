package config

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/havenha/haven/internal/config/notation"
	"github.com/havenha/haven/internal/config/schema"
	"github.com/havenha/haven/internal/config/tree"
)

// The accessors below read a key, or its default, which they write into the document so that what is printed is what
// is in force. A value of the wrong kind has been reported before: it reads as zero.

// given returns what was written for a key; nil when that is nothing, or null.
func (l *loader) given(path string) *tree.Value {
	if v := l.doc.Find(path); v != nil && v.Shape != tree.Null {
		return v
	}
	return nil
}

// refused tells whether a key was set to null on purpose.
func (l *loader) refused(path string) bool {
	v := l.doc.Find(path)
	return v != nil && v.Shape == tree.Null
}

func (l *loader) leaf(path string) *tree.Value {
	if v := l.given(path); v != nil {
		return v
	}
	k := l.schema.At(path)
	if k == nil {
		return nil
	}
	def := k.Key.DefaultIn(l.format == Haven)
	if def == "" {
		return nil
	}
	return l.derive(path, def, "default")
}

// derive fills in a value that was not written, with a note of where it comes from.
func (l *loader) derive(path, s, note string) *tree.Value {
	v := tree.Text(s, note)
	l.doc.Set(path, v)
	return v
}

func (l *loader) text(path string) string {
	if v := l.leaf(path); v != nil {
		return v.Text
	}
	return ""
}

func (l *loader) abs(path string) string {
	v := l.leaf(path)
	p := l.path(v)
	if v != nil && v.Shape == tree.Scalar {
		v.Text = p
	}
	return p
}

// existing is the absolute path of a file that must be there when it is named.
func (l *loader) existing(path string) string {
	name := l.abs(path)
	if v := l.given(path); v != nil && v.At.Written() && v.Shape == tree.Scalar && !l.kept[path] {
		f, err := os.Open(name)
		switch {
		case os.IsNotExist(err):
			l.report.errorf(v.At, "`%s`: there is no file %s", path, name)
		case err != nil:
			l.report.errorf(v.At, "`%s`: %s may not be read by this user: give it to the user that runs haven", path, name)
		default:
			f.Close()
		}
	}
	return name
}

func (l *loader) bool(path string) bool {
	b, err := notation.ParseBool(l.text(path))
	return b && err == nil
}

func (l *loader) number(path string) int {
	n, err := strconv.Atoi(l.text(path))
	if err != nil {
		return 0
	}
	return n
}

func (l *loader) duration(path string) time.Duration {
	d, err := notation.ParseDuration(l.text(path))
	if err != nil {
		return 0
	}
	return d
}

func (l *loader) size(path string) int64 {
	n, err := notation.ParseSize(l.text(path))
	if err != nil {
		return 0
	}
	return n
}

func (l *loader) rate(path string) int {
	n, err := notation.ParseRate(l.text(path))
	if err != nil {
		return 0
	}
	return n
}

func (l *loader) fileMode(path string) uint32 {
	m, err := notation.ParseFileMode(l.text(path))
	if err != nil {
		return 0
	}
	return m
}

func (l *loader) strings(path string) []string { return schema.StringsOf(l.leaf(path)) }

// lines reads a list of lines, or one text of several lines.
func (l *loader) lines(path string) []string {
	v := l.given(path)
	if v == nil {
		return nil
	}
	if v.Shape == tree.Scalar {
		return strings.Split(strings.TrimRight(v.Text, "\n"), "\n")
	}
	return slices.Clone(schema.StringsOf(v))
}

// settings reads a mapping of names to single values. Booleans become on and off, as PostgreSQL spells them.
func (l *loader) settings(path string) map[string]string {
	return settingsOf(l.given(path))
}

func settingsOf(v *tree.Value) map[string]string {
	if v == nil || v.Shape != tree.Mapping {
		return nil
	}
	out := map[string]string{}
	for _, f := range v.Fields {
		if f.Value.Shape == tree.Scalar {
			out[f.Name] = f.Value.Setting()
		}
	}
	return out
}

// options makes --name=value options of a list of texts and single pairs, or of a mapping.
func (l *loader) options(path string, forbidden ...string) []string {
	v := l.given(path)
	if v == nil {
		return nil
	}
	var out []string
	add := func(at tree.Place, name, val string, with bool) {
		name = strings.TrimLeft(name, "-")
		plain, _, _ := strings.Cut(name, "=")
		switch {
		case slices.Contains(forbidden, plain):
			l.report.errorf(at, "`%s` may not hold `%s`, which Haven sets itself: remove it", path, plain)
		case with:
			out = append(out, "--"+name+"="+val)
		default:
			out = append(out, "--"+name)
		}
	}
	pairs := func(m *tree.Value) {
		for _, f := range m.Fields {
			b, isBool := notation.YAMLBool(f.Value.Text)
			switch {
			case isBool && !f.Value.Quoted && !b:
			case isBool && !f.Value.Quoted, f.Value.Shape == tree.Null:
				add(f.At, f.Name, "", false)
			default:
				add(f.At, f.Name, f.Value.Text, true)
			}
		}
	}
	pairs(v)
	for _, item := range v.Items {
		if item.Shape == tree.Scalar {
			add(item.At, item.Text, "", false)
		} else {
			pairs(item)
		}
	}
	return out
}
