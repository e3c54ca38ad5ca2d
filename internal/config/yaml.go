package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxValues bounds how many values one document may hold once its aliases are expanded, so that a few lines of
// nested aliases cannot take all memory.
const maxValues = 100_000

// parse reads one YAML document. It returns nil where the text is not one; the report then says why.
func parse(file string, content []byte, r *Report) *value {
	at := place{file: file}
	if !readable(at, content, r) {
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(content))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			r.errorf(at, "the file is empty: it needs at least `haven: {format: 1}` and the section of a role (postgresql, proxy or etcd)")
			return nil
		}
		syntaxFault(file, content, err, r)
		return nil
	}
	var second yaml.Node
	if err := dec.Decode(&second); err == nil {
		r.errorf(place{file: file, line: second.Line, column: second.Column}, "a second YAML document begins here: one file describes one cluster, so remove the line `---` or use the section `nodes`")
		return nil
	} else if !errors.Is(err, io.EOF) {
		syntaxFault(file, content, err, r)
		return nil
	}
	t := treeBuilder{file: file, report: r, open: map[*yaml.Node]bool{}}
	v := t.build(doc.Content[0])
	if v.shape == null {
		r.errorf(at, "the file holds no keys: it needs at least `haven: {format: 1}` and the section of a role (postgresql, proxy or etcd)")
		return nil
	}
	if v.shape != mapping {
		r.errorf(v.at, "the file is not a list of `key: value` lines")
		return nil
	}
	return v
}

func readable(at place, content []byte, r *Report) bool {
	if bytes.IndexByte(content, 0) >= 0 {
		r.errorf(at, "this is not a text file: it holds zero bytes")
		return false
	}
	if utf8.Valid(content) {
		return true
	}
	at.line, at.column = 1, 1
	for len(content) > 0 {
		c, n := utf8.DecodeRune(content)
		if c == utf8.RuneError && n == 1 {
			break
		}
		at.column++
		if c == '\n' {
			at.line, at.column = at.line+1, 1
		}
		content = content[n:]
	}
	r.errorf(at, "this character is not UTF-8: save the file in UTF-8")
	return false
}

// syntaxFault turns the parser's message into a place and a text. The parser names a line at most.
func syntaxFault(file string, content []byte, err error, r *Report) {
	lines := strings.Split(string(content), "\n")
	for i, l := range lines {
		blank := l[:len(l)-len(strings.TrimLeft(l, " \t"))]
		if tab := strings.IndexByte(blank, '\t'); tab >= 0 && len(blank) < len(l) {
			r.errorf(place{file: file, line: i + 1, column: tab + 1}, "a tab indents this line, which YAML does not allow: use spaces")
			return
		}
	}
	what := strings.TrimPrefix(err.Error(), "yaml: ")
	at := place{file: file}
	if m := regexp.MustCompile(`^line (\d+): `).FindStringSubmatch(what); m != nil {
		at.line, _ = strconv.Atoi(m[1])
		at.column = 1
		what = what[len(m[0]):]
		if at.line <= len(lines) && at.line > 0 {
			l := lines[at.line-1]
			at.column += len(l) - len(strings.TrimLeft(l, " "))
		}
	}
	r.errorf(at, "this is not YAML: %s (the cause may stand a line above)", what)
}

type treeBuilder struct {
	file   string
	report *Report
	open   map[*yaml.Node]bool
	count  int
}

func (t *treeBuilder) place(n *yaml.Node) place {
	return place{file: t.file, line: n.Line, column: n.Column}
}

func (t *treeBuilder) build(n *yaml.Node) *value {
	v := &value{at: t.place(n)}
	t.count++
	if t.count > maxValues {
		if t.count == maxValues+1 {
			t.report.errorf(v.at, "the file holds more than %d values once its aliases are expanded", maxValues)
		}
		return v
	}
	switch n.Kind {
	case yaml.AliasNode:
		return t.alias(n)
	case yaml.SequenceNode:
		v.shape = list
		for _, item := range n.Content {
			v.items = append(v.items, t.build(item))
		}
	case yaml.MappingNode:
		t.mapping(n, v)
	default:
		v.quoted = n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
		v.text, v.shape = n.Value, scalar
		if n.Tag == "!!null" && !v.quoted {
			v.shape, v.empty = null, n.Value == ""
		}
	}
	return v
}

func (t *treeBuilder) alias(n *yaml.Node) *value {
	if t.open[n.Alias] {
		t.report.errorf(t.place(n), "the alias `*%s` contains itself", n.Value)
		return &value{at: t.place(n)}
	}
	t.open[n.Alias] = true
	defer delete(t.open, n.Alias)
	return t.build(n.Alias)
}

func (t *treeBuilder) mapping(n *yaml.Node, v *value) {
	v.shape = mapping
	var inherited []*value
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, at := n.Content[i], t.place(n.Content[i])
		if k.Kind != yaml.ScalarNode {
			t.report.errorf(at, "a key must be a single word, not a list or a mapping")
			continue
		}
		child := t.build(n.Content[i+1])
		if k.Tag == "!!merge" {
			inherited = append(inherited, child)
			continue
		}
		if first := v.entry(k.Value); first != nil {
			t.report.errorf(at, "the key `%s` stands here a second time; the first is in line %d, and only one of them would count", k.Value, first.at.line)
			continue
		}
		v.fields = append(v.fields, field{name: k.Value, at: at, value: child})
	}
	for _, from := range inherited {
		t.inherit(v, from)
	}
}

// inherit adds the fields of a merge key (<<) that v has not itself.
func (t *treeBuilder) inherit(v, from *value) {
	sources := []*value{from}
	if from.shape == list {
		sources = from.items
	}
	for _, s := range sources {
		if s.shape != mapping {
			t.report.errorf(s.at, "`<<` takes an alias of a mapping")
			continue
		}
		for _, f := range s.fields {
			if v.entry(f.name) == nil {
				v.fields = append(v.fields, f)
			}
		}
	}
}

// quoteYAML renders a scalar for print.
func quoteYAML(v *value) string {
	switch {
	case v.shape == null:
		return "null"
	case v.shape == list:
		return "[]"
	case v.shape == mapping:
		return "{}"
	}
	n := yaml.Node{Kind: yaml.ScalarNode, Value: v.text}
	if v.quoted || v.text == "" || strings.ContainsAny(v.text, "\n\r") {
		n.Style, n.Tag = yaml.DoubleQuotedStyle, "!!str"
	}
	out, err := yaml.Marshal(&n)
	if err != nil {
		return fmt.Sprintf("%q", v.text)
	}
	return strings.TrimSpace(string(out))
}
