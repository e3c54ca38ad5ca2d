package config

import (
	"fmt"
	"strings"
)

// mask stands for a secret in everything that is printed.
const mask = "******"

// Print renders the effective configuration as YAML, with a comment on each line that says where its value comes from.
// Secrets are shown as ******.
func (n *Node) Print() string {
	var b strings.Builder
	p := printer{out: &b, schema: newSchema()}
	p.fields("", n.doc, "")
	return b.String()
}

type printer struct {
	out    *strings.Builder
	schema *schema
}

func (p printer) fields(path string, v *value, indent string) {
	for i, f := range v.fields {
		lead := indent
		if i == 0 && strings.HasSuffix(indent, "- ") {
			indent = strings.Repeat(" ", len(indent))
		}
		p.entry(strings.TrimPrefix(path+"."+f.name, "."), quoteYAML(&value{shape: scalar, text: f.name}), f.value, lead, indent)
	}
}

func (p printer) entry(path, name string, v *value, lead, indent string) {
	switch {
	case v.shape == mapping && len(v.fields) > 0:
		fmt.Fprintf(p.out, "%s%s:\n", lead, name)
		p.fields(path, v, indent+"  ")
	case v.shape == list && len(v.items) > 0:
		fmt.Fprintf(p.out, "%s%s:\n", lead, name)
		p.items(path, v, indent+"  ")
	default:
		fmt.Fprintf(p.out, "%s%s: %s  # %s\n", lead, name, p.shown(path, v), v.at)
	}
}

func (p printer) items(path string, v *value, indent string) {
	for i, item := range v.items {
		inner := fmt.Sprintf("%s[%d]", path, i)
		switch {
		case item.shape == mapping && len(item.fields) > 0:
			p.fields(inner, item, indent+"- ")
		case item.shape == list && len(item.items) > 0:
			fmt.Fprintf(p.out, "%s-\n", indent)
			p.items(inner, item, indent+"  ")
		default:
			fmt.Fprintf(p.out, "%s- %s  # %s\n", indent, p.shown(inner, item), item.at)
		}
	}
}

func (p printer) shown(path string, v *value) string {
	if v.shape == scalar && isSecret(path, p.schema) {
		return mask
	}
	return maskInside(quoteYAML(v))
}

// isSecret tells whether a key holds a secret: by the table, and by its name where the table leaves it open (extra
// keys of custom methods, tags, parameters such as ssl_passphrase_command).
func isSecret(path string, s *schema) bool {
	if k := s.at(path); k != nil && k.key.kind == aSecret {
		return true
	}
	_, last, _ := cutLast(path)
	last = strings.ToLower(last)
	if strings.HasSuffix(last, "_file") || last == "etcd_token" {
		return false
	}
	for _, word := range []string{"password", "passphrase", "secret"} {
		if strings.Contains(last, word) {
			return last != "password_encryption"
		}
	}
	return false
}

// maskInside hides passwords within connection strings, URLs and commands.
func maskInside(s string) string {
	for _, word := range []string{"password=", "PASSWORD="} {
		if i := strings.Index(s, word); i >= 0 {
			rest := s[i+len(word):]
			end := strings.IndexAny(rest, " &\"")
			if end < 0 {
				end = len(rest)
			}
			s = s[:i+len(word)] + mask + rest[end:]
		}
	}
	if scheme := strings.Index(s, "://"); scheme >= 0 {
		authority := s[scheme+3:]
		if end := strings.IndexAny(authority, "/ ?"); end >= 0 {
			authority = authority[:end]
		}
		user, _, found := strings.Cut(authority, "@")
		if name, _, ok := strings.Cut(user, ":"); found && ok {
			s = strings.Replace(s, user+"@", name+":"+mask+"@", 1)
		}
	}
	return s
}

// Diff tells which keys differ between two configurations of a node: those that a reload applies, and those that wait
// for a restart of the agent or (on a node with data) cannot change at all. Values are not told: they may be secrets.
func Diff(old, new *Node) (apply []string, needRestart []string) {
	was, is := flat(old), flat(new)
	changed := map[string]bool{}
	for path, v := range is {
		if before, ok := was[path]; !ok || before != v {
			changed[path] = true
		}
	}
	for path := range was {
		if _, ok := is[path]; !ok {
			changed[path] = true
		}
	}
	s := newSchema()
	for _, path := range sortedKeys(changed) {
		class := s.nearestKey(path).reload
		section, _, _ := strings.Cut(path, ".")
		added := was[section+"?"] != is[section+"?"] // a whole role came or went
		if class == ReloadNow && !added {
			apply = append(apply, path)
		} else if !strings.HasSuffix(path, "?") {
			needRestart = append(needRestart, path)
		}
	}
	return apply, needRestart
}

// flat is every leaf of a configuration, and for each role section whether it is there, under its name and a question mark.
func flat(n *Node) map[string]string {
	out := map[string]string{}
	n.doc.leaves("", func(path string, v *value) { out[path] = fmt.Sprint(v.shape, v.text) })
	for _, section := range []string{"postgresql", "proxy", "bootstrap"} {
		v := n.doc.field(section)
		out[section+"?"] = fmt.Sprint(v != nil && v.shape != null)
	}
	return out
}
