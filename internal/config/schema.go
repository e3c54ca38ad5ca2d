package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// ReloadClass says what a change of a key needs.
type ReloadClass string

// ReloadNow: changed by a reload. ReloadRestart: needs a restart of the agent, while PostgreSQL goes on.
// ReloadFixed: not changed once the node has data.
const (
	ReloadNow     ReloadClass = "R"
	ReloadRestart ReloadClass = "S"
	ReloadFixed   ReloadClass = "-"
)

type kind string

// The kinds of values; the words appear in faults and in the reference.
const (
	aSection  kind = "section"
	aText     kind = "text"
	aSecret   kind = "secret"
	aPath     kind = "path"
	aNumber   kind = "number"
	aBool     kind = "boolean"
	aTime     kind = "duration"
	aSize     kind = "size"
	aRate     kind = "rate"
	anAddress kind = "address"
	aListen   kind = "listen address"
	aHost     kind = "host"
	aNetwork  kind = "network"
	texts     kind = "list of texts"     // or one text with commas
	networks  kind = "list of networks"  // or one text with commas
	endpoints kind = "list of endpoints" // or one text with commas
	lines     kind = "list of lines"     // or one text with line breaks
	options   kind = "options"           // list of texts and single pairs, or a mapping
	objects   kind = "list of sections"
	settings  kind = "mapping of settings" // name → scalar
	free      kind = "anything"
)

// key is one row of the table of keys: the one source of what is known, checked, defaulted and documented.
type key struct {
	path   string // [] stands for the elements of a list, * for any name
	kind   kind
	def    string // default, where one text says it
	haven  string // default in Haven format, where it differs
	shown  string // default as the reference tells it, where it is derived
	reload ReloadClass
	accept []string // the words that are accepted
	min    int64    // of numbers; checked where max is set
	max    int64
	unused bool   // Patroni's, accepted and without effect here
	absent string // not in this version: what to say
	text   string
}

func (k *key) defaultIn(f Format) string {
	if f == Haven && k.haven != "" {
		return k.haven
	}
	return k.def
}

// schema is the table as a tree.
type schema struct {
	key      key
	children map[string]*schema
	names    []string // of children, in the order of the table
}

func newSchema() *schema {
	root := &schema{key: key{kind: aSection}}
	for _, k := range allKeys() {
		root.insert(k)
	}
	root.mirror("postgresql", "bootstrap.dcs.postgresql")
	for _, k := range root.names {
		if k != "nodes" {
			root.at("nodes.*").share(k, root.children[k])
		}
	}
	return root
}

func allKeys() []key {
	return slices.Concat(commonKeys(), etcdKeys(), postgresKeys(), bootstrapKeys(), dynamicKeys(), restKeys(), proxyKeys())
}

func (s *schema) insert(k key) {
	if k.reload == "" {
		k.reload = ReloadNow
	}
	at := s
	for step := range strings.SplitSeq(strings.ReplaceAll(k.path, "[]", ".[]"), ".") {
		at = at.child(step)
	}
	at.key = k
	if k.kind == aSecret {
		file := key{path: k.path + "_file", kind: aPath, reload: k.reload, text: "File that holds it; not readable by all."}
		s.insert(file)
	}
}

func (s *schema) child(name string) *schema {
	if c := s.children[name]; c != nil {
		return c
	}
	c := &schema{key: key{kind: aSection, reload: ReloadNow}}
	s.share(name, c)
	return c
}

func (s *schema) share(name string, c *schema) {
	if s.children == nil {
		s.children = map[string]*schema{}
	}
	if s.children[name] == nil {
		s.names = append(s.names, name)
	}
	s.children[name] = c
}

// mirror makes the keys of one section known in another too.
func (s *schema) mirror(from, to string) {
	target := s.at(to)
	source := s.at(from)
	for _, name := range source.names {
		if target.children[name] == nil {
			target.share(name, source.children[name])
		}
	}
}

// at finds the row for a concrete path such as proxy.listeners[0].mode; nil when the key is not known.
func (s *schema) at(path string) *schema {
	for step := range strings.SplitSeq(path, ".") {
		name, _, indexed := cutIndex(step)
		if s = s.next(name); s == nil {
			return nil
		}
		if indexed {
			if s = s.children["[]"]; s == nil {
				return nil
			}
		}
	}
	return s
}

func (s *schema) next(name string) *schema {
	if c := s.children[name]; c != nil {
		return c
	}
	return s.children["*"]
}

// nearestKey is the row of the longest known part of a path: a parameter belongs to parameters.
func (s *schema) nearestKey(path string) key {
	for {
		if found := s.at(path); found != nil {
			return found.key
		}
		dir, _, nested := cutLast(path)
		if !nested {
			return key{reload: ReloadRestart}
		}
		path = dir
	}
}

// check judges a scalar; the error says what to write instead.
func (k *key) check(v string) error {
	var err error
	switch k.kind {
	case aBool:
		_, err = parseBool(v)
	case aTime:
		_, err = parseDuration(v)
	case aSize:
		_, err = parseSize(v)
	case aRate:
		_, err = parseRate(v)
	case aNumber:
		err = k.checkNumber(v)
	case anAddress:
		_, _, err = splitAddress(v)
	case aListen:
		_, _, err = splitListen(v)
	case aHost:
		if v == "" {
			return fmt.Errorf("write a host name or an address")
		}
		err = checkHost(v)
	case aNetwork, networks:
		for _, part := range splitList(v) {
			if _, err = parseNetwork(part); err != nil {
				return err
			}
		}
	case endpoints:
		for _, part := range splitList(v) {
			if err = checkEndpoint(part); err != nil {
				return err
			}
		}
	}
	if err == nil && len(k.accept) > 0 && !slices.Contains(k.accept, strings.ToLower(v)) {
		err = fmt.Errorf("write %s%s", enumerate(k.accept), didYouMean(v, k.accept))
	}
	return err
}

func (k *key) checkNumber(v string) error {
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return fmt.Errorf("write a whole number")
	}
	if k.max != 0 && (n < k.min || n > k.max) {
		return fmt.Errorf("it must be between %d and %d", k.min, k.max)
	}
	return nil
}

func enumerate(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// KeyDoc documents one key.
type KeyDoc struct {
	Path string
	Kind string
	// Default is that of Haven format; PatroniDefault is set where Patroni format has another.
	Default, PatroniDefault string
	Reload                  ReloadClass
	Text                    string
}

// Reference is every key that has an effect, in the order of the sections, from the table that the reader itself uses.
func Reference() []KeyDoc {
	var out []KeyDoc
	for _, k := range allKeys() {
		if k.unused || k.absent != "" {
			continue
		}
		d := KeyDoc{Path: k.path, Kind: string(k.kind), Default: k.defaultIn(Haven), Reload: k.reload, Text: k.text}
		if k.shown != "" {
			d.Default = k.shown
		}
		if k.haven != "" || k.shown != "" {
			d.PatroniDefault = k.def
		}
		if d.Reload == "" {
			d.Reload = ReloadNow
		}
		if len(k.accept) > 0 {
			d.Kind = enumerate(k.accept)
		}
		out = append(out, d)
		if k.kind == aSecret {
			out = append(out, KeyDoc{Path: k.path + "_file", Kind: string(aPath), Reload: d.Reload, Text: "File that holds it; not readable by all."})
		}
	}
	return out
}
