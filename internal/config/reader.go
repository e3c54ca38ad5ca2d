package config

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The accessors below read a key, or its default, which they write into the document so that what is printed is what
// is in force. A value of the wrong kind has been reported before: it reads as zero.

// given returns what was written for a key; nil when that is nothing, or null.
func (l *loader) given(path string) *value {
	if v := l.doc.find(path); v != nil && v.shape != null {
		return v
	}
	return nil
}

// refused tells whether a key was set to null on purpose.
func (l *loader) refused(path string) bool {
	v := l.doc.find(path)
	return v != nil && v.shape == null
}

func (l *loader) leaf(path string) *value {
	if v := l.given(path); v != nil {
		return v
	}
	k := l.schema.at(path)
	if k == nil {
		return nil
	}
	def := k.key.defaultIn(l.format)
	if def == "" {
		return nil
	}
	return l.derive(path, def, "default")
}

// derive fills in a value that was not written, with a note of where it comes from.
func (l *loader) derive(path, s, note string) *value {
	v := text(s, note)
	l.doc.set(path, v)
	return v
}

func (l *loader) text(path string) string {
	if v := l.leaf(path); v != nil {
		return v.text
	}
	return ""
}

func (l *loader) abs(path string) string {
	v := l.leaf(path)
	p := l.path(v)
	if v != nil && v.shape == scalar {
		v.text = p
	}
	return p
}

// existing is the absolute path of a file that must be there when it is named.
func (l *loader) existing(path string) string {
	name := l.abs(path)
	if v := l.given(path); v != nil && v.at.written() && v.shape == scalar {
		f, err := os.Open(name)
		switch {
		case os.IsNotExist(err):
			l.report.errorf(v.at, "`%s`: there is no file %s", path, name)
		case err != nil:
			l.report.errorf(v.at, "`%s`: %s may not be read by this user: give it to the user that runs haven", path, name)
		default:
			f.Close()
		}
	}
	return name
}

func (l *loader) bool(path string) bool {
	b, err := parseBool(l.text(path))
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
	d, err := parseDuration(l.text(path))
	if err != nil {
		return 0
	}
	return d
}

func (l *loader) size(path string) int64 {
	n, err := parseSize(l.text(path))
	if err != nil {
		return 0
	}
	return n
}

func (l *loader) rate(path string) int {
	n, err := parseRate(l.text(path))
	if err != nil {
		return 0
	}
	return n
}

func (l *loader) strings(path string) []string { return stringsOf(l.leaf(path)) }

// lines reads a list of lines, or one text of several lines.
func (l *loader) lines(path string) []string {
	v := l.given(path)
	if v == nil {
		return nil
	}
	if v.shape == scalar {
		return strings.Split(strings.TrimRight(v.text, "\n"), "\n")
	}
	return slices.Clone(stringsOf(v))
}

// settings reads a mapping of names to single values. Booleans become on and off, as PostgreSQL spells them.
func (l *loader) settings(path string) map[string]string {
	return settingsOf(l.given(path))
}

func settingsOf(v *value) map[string]string {
	if v == nil || v.shape != mapping {
		return nil
	}
	out := map[string]string{}
	for _, f := range v.fields {
		if f.value.shape == scalar {
			out[f.name] = f.value.setting()
		}
	}
	return out
}

func (v *value) setting() string {
	if b, ok := yamlBool(v.text); ok && !v.quoted {
		if b {
			return "on"
		}
		return "off"
	}
	return v.text
}

// options makes --name=value options of a list of texts and single pairs, or of a mapping.
func (l *loader) options(path string, forbidden ...string) []string {
	v := l.given(path)
	if v == nil {
		return nil
	}
	var out []string
	add := func(at place, name, val string, with bool) {
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
	pairs := func(m *value) {
		for _, f := range m.fields {
			b, isBool := yamlBool(f.value.text)
			switch {
			case isBool && !f.value.quoted && !b:
			case isBool && !f.value.quoted, f.value.shape == null:
				add(f.at, f.name, "", false)
			default:
				add(f.at, f.name, f.value.text, true)
			}
		}
	}
	pairs(v)
	for _, item := range v.items {
		if item.shape == scalar {
			add(item.at, item.text, "", false)
		} else {
			pairs(item)
		}
	}
	return out
}
