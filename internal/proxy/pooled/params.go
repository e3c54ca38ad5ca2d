package pooled

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
	"unique"

	"github.com/havenha/haven/internal/pgwire"
)

// params are the values of the tracked parameters, joined. Two that are equal are the same, so that comparing costs nothing.
type params = unique.Handle[string]

const between = "\x00"

// tracked are the parameters that a client takes along from server to server. They are those which servers report when they
// change, so that what a client has set is known without reading SQL.
type tracked []string

// nameless is the place of application_name.
const nameless = 5

func track(extra []string) tracked {
	all := tracked{"client_encoding", "DateStyle", "TimeZone", "IntervalStyle", "standard_conforming_strings", "application_name"}
	for _, name := range extra {
		if all.at(name) < 0 {
			all = append(all, name)
		}
	}
	return all
}

// at is the place of a parameter; -1: it is not tracked.
func (t tracked) at(name string) int {
	return slices.IndexFunc(t, func(n string) bool { return strings.EqualFold(n, name) })
}

// of are the values that a server reported.
func (t tracked) of(reported []pgwire.Param) params {
	values := make([]string, len(t))
	for _, p := range reported {
		if i := t.at(p.Name); i >= 0 {
			values[i] = p.Value
		}
	}
	for i, v := range values {
		values[i] = encoded(v, values[0])
	}
	return unique.Make(strings.Join(values, between))
}

// inEncoding is between a value that is not ASCII and the encoding in which it was reported: that of the client at that time.
const inEncoding = "\x01"

func encoded(v, encoding string) string {
	if ascii(v) {
		return v
	}
	return v + inEncoding + encoding
}

// decoded takes apart what encoded has made.
func decoded(v string) (value, encoding string) {
	if i := strings.LastIndex(v, inEncoding); i >= 0 && !ascii(v) {
		return v[:i], v[i+len(inEncoding):]
	}
	return v, ""
}

func ascii(v string) bool {
	return strings.IndexFunc(v, func(r rune) bool { return r >= utf8.RuneSelf }) < 0
}

// with is p with one value changed, which was reported in the encoding of p.
func (t tracked) with(p params, at int, value string) params {
	values := strings.Split(p.Value(), between)
	value = encoded(value, values[0])
	if values[at] == value {
		return p
	}
	values[at] = value
	return unique.Make(strings.Join(values, between))
}

// value is one of p's.
func (t tracked) value(p params, at int) string {
	v, _ := decoded(strings.Split(p.Value(), between)[at])
	return v
}

// meaning are the values that say what a text means, such as TimeZone: all but application_name.
func (t tracked) meaning(p params) string {
	values := strings.Split(p.Value(), between)
	values[nameless] = ""
	return strings.Join(values, between)
}

// wish is what a client asks for in its startup packet.
type wish struct {
	at    int
	value string
}

// wishes reads startup parameters: tracked ones are granted, ignored ones ignored, and others refused, as PgBouncer does.
func (d *Door) wishes(given []pgwire.Param) ([]wish, *pgwire.Error) {
	var out []wish
	for _, p := range given {
		if p.Name == "replication" {
			continue
		}
		if p.Name == "options" && !d.ignored("options") {
			inner, err := options(p.Value)
			if err != nil {
				return nil, err
			}
			more, err := d.wishes(inner)
			if err != nil {
				return nil, err
			}
			out = append(out, more...)
			continue
		}
		switch i := d.tracked.at(p.Name); {
		case i >= 0 && !strings.Contains(p.Value, between):
			out = append(out, wish{i, p.Value})
		case !d.ignored(p.Name):
			return nil, &pgwire.Error{Code: "08P01", Message: "unsupported startup parameter: " + p.Name,
				Hint: "Name it in pool.ignore_startup_parameters, or, if servers report it, in pool.track_extra_parameters."}
		}
	}
	return out, nil
}

// called takes application_name out of wishes: there are as many as clients, perhaps, and any is granted, cleaned as servers up to
// PostgreSQL 15 do it (pg_clean_ascii, NAMEDATALEN). nil: it is not among them.
func called(wishes []wish) (others []wish, name *string) {
	for _, w := range wishes {
		if w.at != nameless {
			others = append(others, wish{w.at, encoded(w.value, "UTF8")})
			continue
		}
		clean := []byte(w.value[:min(len(w.value), maxAppName)])
		for i, b := range clean {
			if b < ' ' || b > '~' {
				clean[i] = '?'
			}
		}
		text := string(clean)
		name = &text
	}
	return others, name
}

// maxAppName is the length of the longest application_name, in bytes.
const maxAppName = 63

func (d *Door) ignored(name string) bool {
	return slices.ContainsFunc(d.terms.Load().Pool.IgnoreStartupParameters, func(n string) bool { return strings.EqualFold(n, name) })
}

// options takes the startup parameter options apart: words -c name=value and --name=value, a backslash before what is to be
// taken as it is (libpq, "options").
func options(text string) ([]pgwire.Param, *pgwire.Error) {
	var out []pgwire.Param
	refused := &pgwire.Error{Code: "08P01", Message: "unsupported startup parameter in options: " + text}
	words := split(text)
	for i := 0; i < len(words); i++ {
		w := words[i]
		switch {
		case w == "-c" && i+1 < len(words):
			i++
			w = words[i]
		case strings.HasPrefix(w, "-c"):
			w = w[2:]
		case strings.HasPrefix(w, "--"):
			w = w[2:]
		default:
			return nil, refused
		}
		name, value, ok := strings.Cut(w, "=")
		if !ok || name == "" || strings.EqualFold(name, "options") {
			return nil, refused
		}
		out = append(out, pgwire.Param{Name: strings.ReplaceAll(name, "-", "_"), Value: value})
	}
	return out, nil
}

func split(text string) []string {
	var out []string
	var word strings.Builder
	in := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text):
			i++
			word.WriteByte(text[i])
			in = true
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\v' || c == '\f':
			if in {
				out = append(out, word.String())
				word.Reset()
				in = false
			}
		default:
			word.WriteByte(c)
			in = true
		}
	}
	if in {
		out = append(out, word.String())
	}
	return out
}

// change is a statement that turns one set of values into another.
func (t tracked) change(from, to params) string {
	old, values := strings.Split(from.Value(), between), strings.Split(to.Value(), between)
	var wishes []wish
	for i, v := range values {
		if v != old[i] {
			wishes = append(wishes, wish{i, v})
		}
	}
	return t.statement(wishes)
}

func (t tracked) statement(wishes []wish) string {
	var b strings.Builder
	b.WriteString("SELECT ")
	for i, w := range wishes {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "pg_catalog.set_config(%s, %s, false)", literal(t[w.at]), literal(w.value))
	}
	return b.String()
}

// literal is a value as SQL. What is not plain ASCII goes as hexadecimal digits, so that neither the encoding of the session
// nor standard_conforming_strings can give it another meaning.
func literal(v string) string {
	if quotable(v) {
		return "'" + v + "'"
	}
	v, encoding := decoded(v)
	if encoding == "" || !quotable(encoding) {
		encoding = "UTF8"
	}
	return "pg_catalog.convert_from(pg_catalog.decode('" + hex.EncodeToString([]byte(v)) + "', 'hex'), '" + encoding + "')"
}

// quotable tells whether a text means the same between quotes, whatever the settings.
func quotable(v string) bool {
	for i := range len(v) {
		if c := v[i]; c < ' ' || c > '~' || c == '\'' || c == '\\' {
			return false
		}
	}
	return true
}
