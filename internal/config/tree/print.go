package tree

import (
	"fmt"
	"strings"
)

// Print renders a mapping as YAML, with a comment on each line that says where its value comes from. shown renders the
// scalar, null or empty list or mapping at a path.
func Print(v *Value, shown func(path string, v *Value) string) string {
	var b strings.Builder
	printer{out: &b, shown: shown}.fields("", v, "")
	return b.String()
}

type printer struct {
	out   *strings.Builder
	shown func(path string, v *Value) string
}

func (p printer) fields(path string, v *Value, indent string) {
	for i, f := range v.Fields {
		lead := indent
		if i == 0 && strings.HasSuffix(indent, "- ") {
			indent = strings.Repeat(" ", len(indent))
		}
		p.entry(strings.TrimPrefix(path+"."+f.Name, "."), Quote(&Value{Shape: Scalar, Text: f.Name}), f.Value, lead, indent)
	}
}

func (p printer) entry(path, name string, v *Value, lead, indent string) {
	switch {
	case v.Shape == Mapping && len(v.Fields) > 0:
		fmt.Fprintf(p.out, "%s%s:\n", lead, name)
		p.fields(path, v, indent+"  ")
	case v.Shape == List && len(v.Items) > 0:
		fmt.Fprintf(p.out, "%s%s:\n", lead, name)
		p.items(path, v, indent+"  ")
	default:
		fmt.Fprintf(p.out, "%s%s: %s  # %s\n", lead, name, p.shown(path, v), v.At)
	}
}

func (p printer) items(path string, v *Value, indent string) {
	for i, item := range v.Items {
		inner := fmt.Sprintf("%s[%d]", path, i)
		switch {
		case item.Shape == Mapping && len(item.Fields) > 0:
			p.fields(inner, item, indent+"- ")
		case item.Shape == List && len(item.Items) > 0:
			fmt.Fprintf(p.out, "%s-\n", indent)
			p.items(inner, item, indent+"  ")
		default:
			fmt.Fprintf(p.out, "%s- %s  # %s\n", indent, p.shown(inner, item), item.At)
		}
	}
}
