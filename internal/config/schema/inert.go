package schema

import (
	"slices"
	"strings"

	"github.com/havenha/haven/internal/config/notation"
	"github.com/havenha/haven/internal/config/tree"
)

// Inert tells of a key that is read and checked, so that a file of Patroni's is understood, and that nothing in this
// version acts upon. The zero value is that of a key that works.
type Inert struct {
	// Instead is what happens whatever the key says, for the end of a sentence.
	Instead string
	// Fits are values that ask for just that; so does the default.
	Fits []string
	// Refused are values that are too dangerous to ignore: an error. A * stands for every value that does not fit.
	Refused []string
}

// Is tells whether the key has no effect.
func (i Inert) Is() bool { return i.Instead != "" }

// Without lists the values of a key that ask for something that does not happen; none where all of them fit.
func (k *Key) Without(v *tree.Value) []string {
	if !k.Inert.Is() || v == nil || v.Shape == tree.Null {
		return nil
	}
	values := []string{v.Text}
	switch {
	case v.Shape == tree.Mapping && len(v.Fields) > 0:
		return []string{""}
	case v.Shape != tree.Scalar, k.Kind == Texts:
		values = StringsOf(v)
	}
	return slices.DeleteFunc(values, func(s string) bool { return s == "" || k.fits(s) })
}

func (k *Key) fits(s string) bool {
	same := func(other string) bool { return sameValue(k.Kind, s, other) }
	return k.Def != "" && same(k.Def) || slices.ContainsFunc(k.Inert.Fits, same)
}

// sameValue compares what two spellings of a value mean.
func sameValue(kind Kind, a, b string) bool {
	switch kind {
	case Bool:
		return parsedSame(notation.ParseBool, a, b)
	case Duration:
		return parsedSame(notation.ParseDuration, a, b)
	case Size:
		return parsedSame(notation.ParseSize, a, b)
	}
	return strings.EqualFold(a, b)
}

func parsedSame[T comparable](parse func(string) (T, error), a, b string) bool {
	x, errX := parse(a)
	y, errY := parse(b)
	return errX == nil && errY == nil && x == y
}

// inert reports a key that asks for what this version does not do, and apart from those the ones that an operator would
// rely on.
func (w *Walker) inert(path string, f tree.Field, k *Key) {
	values := k.Without(f.Value)
	if w.Inertf == nil || w.Refusef == nil || len(values) == 0 {
		return
	}
	for _, v := range values {
		if slices.Contains(k.Inert.Refused, strings.ToLower(v)) || slices.Contains(k.Inert.Refused, "*") {
			w.Refusef(f.At, "`%s` is `%s`, which would be ignored in this version: %s; write `%s`, or remove the key", path, v, k.Inert.Instead, k.harmless())
			return
		}
	}
	w.Inertf(f.At, "`%s` has no effect in this version: %s", path, k.Inert.Instead)
}

// harmless is a value that may be written for a key without effect.
func (k *Key) harmless() string {
	if len(k.Inert.Fits) > 0 {
		return k.Inert.Fits[0]
	}
	return k.Def
}

// InertAt is what is said of a key without effect, or of one below such a section; nothing for a key that works.
func (s *Table) InertAt(path string) string {
	for nested := true; nested; path, _, nested = tree.CutLast(path) {
		if row := s.At(path); row != nil && row.Key.Inert.Is() {
			return row.Key.Inert.Instead
		}
	}
	return ""
}
