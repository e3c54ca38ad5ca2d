package schema

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/havenha/haven/internal/config/notation"
	"github.com/havenha/haven/internal/config/tree"
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

// Kind is what a key takes.
type Kind string

// The kinds of values; the words appear in faults and in the reference.
const (
	Section   Kind = "section"
	Text      Kind = "text"
	Secret    Kind = "secret"
	Path      Kind = "path"
	Number    Kind = "number"
	Bool      Kind = "boolean"
	Duration  Kind = "duration"
	Size      Kind = "size"
	Rate      Kind = "rate"
	Address   Kind = "address"
	Listen    Kind = "listen address"
	Sockets   Kind = "list of addresses"
	FileMode  Kind = "octal mode"
	Host      Kind = "host"
	Network   Kind = "network"
	Texts     Kind = "list of texts"     // or one text with commas
	Networks  Kind = "list of networks"  // or one text with commas
	Endpoints Kind = "list of endpoints" // or one text with commas
	Lines     Kind = "list of lines"     // or one text with line breaks
	Options   Kind = "options"           // list of texts and single pairs, or a mapping
	Sections  Kind = "list of sections"
	Settings  Kind = "mapping of settings" // name → scalar
	Free      Kind = "anything"
)

// Key is one row of the table of keys: the one source of what is known, checked, defaulted and documented.
type Key struct {
	Path   string // [] stands for the elements of a list, * for any name
	Kind   Kind
	Def    string // default, where one text says it
	Haven  string // default in Haven format, where it differs
	Shown  string // default as the reference tells it, where it is derived
	Reload ReloadClass
	Accept []string // the words that are accepted
	Min    int64    // of numbers; checked where Max is set
	Max    int64
	Unused bool   // Patroni's, accepted and without effect here
	Absent string // not in this version: what to say
	Inert  Inert  // has no effect in this version
	Text   string
}

// DefaultIn is the default in one of the formats.
func (k *Key) DefaultIn(haven bool) string {
	if haven && k.Haven != "" {
		return k.Haven
	}
	return k.Def
}

// Table is the table as a tree.
type Table struct {
	Key      Key
	children map[string]*Table
	names    []string // of children, in the order of the table
}

// New makes the tree of the whole table.
func New() *Table {
	root := &Table{Key: Key{Kind: Section}}
	for _, k := range Keys() {
		root.insert(k)
	}
	root.mirror("postgresql", "bootstrap.dcs.postgresql")
	for _, k := range root.names {
		if k != "nodes" {
			root.At("nodes.*").share(k, root.children[k])
		}
	}
	return root
}

// Keys is the table, in the order of the sections.
func Keys() []Key {
	return slices.Concat(commonKeys(), etcdKeys(), postgresKeys(), bootstrapKeys(), dynamicKeys(), restKeys(), proxyKeys())
}

func (s *Table) insert(k Key) {
	if k.Reload == "" {
		k.Reload = ReloadNow
	}
	at := s
	for step := range strings.SplitSeq(strings.ReplaceAll(k.Path, "[]", ".[]"), ".") {
		at = at.child(step)
	}
	at.Key = k
	if k.Kind == Secret {
		file := Key{Path: k.Path + "_file", Kind: Path, Reload: k.Reload, Text: "File that holds it; not readable by all."}
		s.insert(file)
	}
}

func (s *Table) child(name string) *Table {
	if c := s.children[name]; c != nil {
		return c
	}
	c := &Table{Key: Key{Kind: Section, Reload: ReloadNow}}
	s.share(name, c)
	return c
}

func (s *Table) share(name string, c *Table) {
	if s.children == nil {
		s.children = map[string]*Table{}
	}
	if s.children[name] == nil {
		s.names = append(s.names, name)
	}
	s.children[name] = c
}

// mirror makes the keys of one section known in another too.
func (s *Table) mirror(from, to string) {
	target := s.At(to)
	source := s.At(from)
	for _, name := range source.names {
		if target.children[name] == nil {
			target.share(name, source.children[name])
		}
	}
}

// At finds the row for a concrete path such as proxy.listeners[0].mode; nil when the key is not known.
func (s *Table) At(path string) *Table {
	for step := range strings.SplitSeq(path, ".") {
		name, _, indexed := tree.CutIndex(step)
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

func (s *Table) next(name string) *Table {
	if c := s.children[name]; c != nil {
		return c
	}
	return s.children["*"]
}

// Nearest is the row of the longest known part of a path: a parameter belongs to parameters, and an item to its list.
func (s *Table) Nearest(path string) Key {
	for {
		if found := s.At(path); found != nil {
			return found.Key
		}
		dir, last, nested := tree.CutLast(path)
		if list, _, indexed := tree.CutIndex(last); indexed {
			path = strings.TrimSuffix(path, last) + list
			continue
		}
		if !nested {
			return Key{Reload: ReloadRestart}
		}
		path = dir
	}
}

// Check judges a scalar; the error says what to write instead.
func (k *Key) Check(v string) error {
	var err error
	switch k.Kind {
	case Bool:
		_, err = notation.ParseBool(v)
	case Duration:
		_, err = notation.ParseDuration(v)
	case Size:
		_, err = notation.ParseSize(v)
	case Rate:
		_, err = notation.ParseRate(v)
	case Number:
		err = k.checkNumber(v)
	case Address:
		_, _, err = notation.SplitAddress(v)
	case Listen:
		_, _, err = notation.SplitListen(v)
	case Sockets:
		_, _, err = notation.SplitSockets(v)
	case FileMode:
		_, err = notation.ParseFileMode(v)
	case Host:
		if v == "" {
			return fmt.Errorf("write a host name or an address")
		}
		err = notation.CheckHost(v)
	case Network, Networks:
		for _, part := range notation.SplitList(v) {
			if _, err = notation.ParseNetwork(part); err != nil {
				return err
			}
		}
	case Endpoints:
		for _, part := range notation.SplitList(v) {
			if err = notation.CheckEndpoint(part); err != nil {
				return err
			}
		}
	}
	if err == nil && len(k.Accept) > 0 && !slices.Contains(k.Accept, strings.ToLower(v)) {
		err = fmt.Errorf("write %s%s", Enumerate(k.Accept), DidYouMean(v, k.Accept))
	}
	return err
}

func (k *Key) checkNumber(v string) error {
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil {
		return fmt.Errorf("write a whole number")
	}
	if k.Max != 0 && (n < k.Min || n > k.Max) {
		return fmt.Errorf("it must be between %d and %d", k.Min, k.Max)
	}
	return nil
}

// Enumerate lists words as a sentence does.
func Enumerate(words []string) string {
	if len(words) == 1 {
		return words[0]
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}
