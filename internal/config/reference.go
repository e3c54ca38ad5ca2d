package config

import "github.com/havenha/haven/internal/config/schema"

// KeyDoc documents one key.
type KeyDoc struct {
	Path string
	Kind string
	// Default is that of Haven format; PatroniDefault is set where Patroni format has another.
	Default, PatroniDefault string
	Reload                  schema.ReloadClass
	Text                    string
	// Inert is what happens whatever the key says; empty for a key that has an effect.
	Inert string
}

// Reference is every key that is read, in the order of the sections, from the table that the reader itself uses.
func Reference() []KeyDoc {
	var out []KeyDoc
	table := schema.New()
	for _, k := range schema.Keys() {
		if k.Unused || k.Absent != "" {
			continue
		}
		d := KeyDoc{Path: k.Path, Kind: string(k.Kind), Default: k.DefaultIn(true), Reload: k.Reload, Text: k.Text, Inert: table.InertAt(k.Path)}
		if k.Shown != "" {
			d.Default = k.Shown
		}
		if k.Haven != "" || k.Shown != "" {
			d.PatroniDefault = k.Def
		}
		if d.Reload == "" {
			d.Reload = schema.ReloadNow
		}
		if len(k.Accept) > 0 {
			d.Kind = schema.Enumerate(k.Accept)
		}
		out = append(out, d)
		if k.Kind == schema.Secret {
			out = append(out, KeyDoc{Path: k.Path + "_file", Kind: string(schema.Path), Reload: d.Reload, Text: "File that holds it; not readable by all."})
		}
	}
	return out
}
