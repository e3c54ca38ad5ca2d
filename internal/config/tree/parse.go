package tree

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

// Report takes what is wrong with a text, and where.
type Report func(at Place, format string, args ...any)

// Parse reads one YAML document. It returns nil where the text is not one; report is then told why.
func Parse(file string, content []byte, report Report) *Value {
	at := Place{File: file}
	if !readable(at, content, report) {
		return nil
	}
	dec := yaml.NewDecoder(bytes.NewReader(content))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			report(at, "the file is empty: it needs at least `haven: {format: 1}` and the section of a role (postgresql, proxy or etcd)")
			return nil
		}
		syntaxFault(file, content, err, report)
		return nil
	}
	var second yaml.Node
	if err := dec.Decode(&second); err == nil {
		report(Place{File: file, Line: second.Line, Column: second.Column}, "a second YAML document begins here: one file describes one cluster, so remove the line `---` or use the section `nodes`")
		return nil
	} else if !errors.Is(err, io.EOF) {
		syntaxFault(file, content, err, report)
		return nil
	}
	t := treeBuilder{file: file, report: report, open: map[*yaml.Node]bool{}}
	v := t.build(doc.Content[0])
	if v.Shape == Null {
		report(at, "the file holds no keys: it needs at least `haven: {format: 1}` and the section of a role (postgresql, proxy or etcd)")
		return nil
	}
	if v.Shape != Mapping {
		report(v.At, "the file is not a list of `key: value` lines")
		return nil
	}
	return v
}

// ParseInline reads a list or a mapping that stands in a variable; all of it is at that place.
func ParseInline(text string, at Place, report Report) *Value {
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil || len(doc.Content) == 0 {
		report(at, "this is neither a list with commas nor YAML: %v", err)
		return &Value{At: at}
	}
	t := treeBuilder{report: report, open: map[*yaml.Node]bool{}}
	v := t.build(doc.Content[0])
	v.Stamp(at)
	return v
}

func readable(at Place, content []byte, report Report) bool {
	if bytes.IndexByte(content, 0) >= 0 {
		report(at, "this is not a text file: it holds zero bytes")
		return false
	}
	if utf8.Valid(content) {
		return true
	}
	at.Line, at.Column = 1, 1
	for len(content) > 0 {
		c, n := utf8.DecodeRune(content)
		if c == utf8.RuneError && n == 1 {
			break
		}
		at.Column++
		if c == '\n' {
			at.Line, at.Column = at.Line+1, 1
		}
		content = content[n:]
	}
	report(at, "this character is not UTF-8: save the file in UTF-8")
	return false
}

// syntaxFault turns the parser's message into a place and a text. The parser names a line at most.
func syntaxFault(file string, content []byte, err error, report Report) {
	lines := strings.Split(string(content), "\n")
	for i, l := range lines {
		blank := l[:len(l)-len(strings.TrimLeft(l, " \t"))]
		if tab := strings.IndexByte(blank, '\t'); tab >= 0 && len(blank) < len(l) {
			report(Place{File: file, Line: i + 1, Column: tab + 1}, "a tab indents this line, which YAML does not allow: use spaces")
			return
		}
	}
	what := strings.TrimPrefix(err.Error(), "yaml: ")
	at := Place{File: file}
	if m := regexp.MustCompile(`^line (\d+): `).FindStringSubmatch(what); m != nil {
		at.Line, _ = strconv.Atoi(m[1])
		at.Column = 1
		what = what[len(m[0]):]
		if at.Line <= len(lines) && at.Line > 0 {
			l := lines[at.Line-1]
			at.Column += len(l) - len(strings.TrimLeft(l, " "))
		}
	}
	report(at, "this is not YAML: %s (the cause may stand a line above)", what)
}

type treeBuilder struct {
	file   string
	report Report
	open   map[*yaml.Node]bool
	count  int
}

func (t *treeBuilder) place(n *yaml.Node) Place {
	return Place{File: t.file, Line: n.Line, Column: n.Column}
}

func (t *treeBuilder) build(n *yaml.Node) *Value {
	v := &Value{At: t.place(n)}
	t.count++
	if t.count > maxValues {
		if t.count == maxValues+1 {
			t.report(v.At, "the file holds more than %d values once its aliases are expanded", maxValues)
		}
		return v
	}
	switch n.Kind {
	case yaml.AliasNode:
		return t.alias(n)
	case yaml.SequenceNode:
		v.Shape = List
		for _, item := range n.Content {
			v.Items = append(v.Items, t.build(item))
		}
	case yaml.MappingNode:
		t.mapping(n, v)
	default:
		v.Quoted = n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0
		v.Text, v.Shape = n.Value, Scalar
		if n.Tag == "!!null" && !v.Quoted {
			v.Shape, v.Empty = Null, n.Value == ""
		}
	}
	return v
}

func (t *treeBuilder) alias(n *yaml.Node) *Value {
	if t.open[n.Alias] {
		t.report(t.place(n), "the alias `*%s` contains itself", n.Value)
		return &Value{At: t.place(n)}
	}
	t.open[n.Alias] = true
	defer delete(t.open, n.Alias)
	return t.build(n.Alias)
}

func (t *treeBuilder) mapping(n *yaml.Node, v *Value) {
	v.Shape = Mapping
	var inherited []*Value
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, at := n.Content[i], t.place(n.Content[i])
		if k.Kind != yaml.ScalarNode {
			t.report(at, "a key must be a single word, not a list or a mapping")
			continue
		}
		child := t.build(n.Content[i+1])
		if k.Tag == "!!merge" {
			inherited = append(inherited, child)
			continue
		}
		if first := v.Entry(k.Value); first != nil {
			t.report(at, "the key `%s` stands here a second time; the first is in line %d, and only one of them would count", k.Value, first.At.Line)
			continue
		}
		v.Fields = append(v.Fields, Field{Name: k.Value, At: at, Value: child})
	}
	for _, from := range inherited {
		t.inherit(v, from)
	}
}

// inherit adds the fields of a merge key (<<) that v has not itself.
func (t *treeBuilder) inherit(v, from *Value) {
	sources := []*Value{from}
	if from.Shape == List {
		sources = from.Items
	}
	for _, s := range sources {
		if s.Shape != Mapping {
			t.report(s.At, "`<<` takes an alias of a mapping")
			continue
		}
		for _, f := range s.Fields {
			if v.Entry(f.Name) == nil {
				v.Fields = append(v.Fields, f)
			}
		}
	}
}

// Quote renders a scalar for print.
func Quote(v *Value) string {
	switch {
	case v.Shape == Null:
		return "null"
	case v.Shape == List:
		return "[]"
	case v.Shape == Mapping:
		return "{}"
	}
	n := yaml.Node{Kind: yaml.ScalarNode, Value: v.Text}
	if v.Quoted || v.Text == "" || strings.ContainsAny(v.Text, "\n\r") {
		n.Style, n.Tag = yaml.DoubleQuotedStyle, "!!str"
	}
	out, err := yaml.Marshal(&n)
	if err != nil {
		return fmt.Sprintf("%q", v.Text)
	}
	return strings.TrimSpace(string(out))
}
