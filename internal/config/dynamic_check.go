package config

import (
	"encoding/json"
	"strings"

	"github.com/havenha/haven/internal/config/schema"
	"github.com/havenha/haven/internal/config/tree"
)

// dcsPath is where the dynamic configuration stands in a file, and in the table of keys.
const dcsPath = "bootstrap.dcs"

// CheckDynamic reports what is wrong with a dynamic configuration that is about to be stored. Its faults have no place
// in a file. The check is strict: a key that neither Haven nor Patroni knows is an error, since a person has just
// mistyped it; a key without effect in this version is a warning.
func CheckDynamic(raw json.RawMessage) Report {
	var r Report
	at := tree.Place{Note: "dynamic configuration"}
	doc, err := tree.FromJSON(raw, at)
	if err != nil {
		r.errorf(at, "%v", err)
		return r
	}
	w := walkDynamic(doc, schema.New())
	w.Errorf, w.Warnf, w.Inertf, w.Refusef = below(r.errorf), below(r.warnf), below(r.warnf), below(r.errorf)
	w.Walk(dcsPath, doc, w.Schema.At(dcsPath))
	permanentSlots(doc, primaryCluster, r.errorf)
	ignoredSlots(doc, r.errorf)
	if v := doc.Find("haven.clone_limit"); v != nil && v.Shape == tree.Scalar {
		if _, _, err := parseLimit(v.Text); err != nil {
			r.errorf(v.At, "`haven.clone_limit` is `%s`, which is not right: %v", v.Text, err)
		}
	}
	return r
}

// inert warns of keys without effect; what else is wrong with a key was said when it was read.
func (r *dynamicReader) inert() {
	warn := below(func(_ tree.Place, format string, args ...any) { r.warn(format, args...) })
	silent := func(tree.Place, string, ...any) {}
	w := walkDynamic(r.doc, r.schema)
	w.Errorf, w.Warnf, w.Inertf, w.Refusef = silent, silent, warn, warn
	w.Walk(dcsPath, r.doc, r.schema.At(dcsPath))
	if d := (Dynamic{StandbyCluster: r.raw("standby_cluster")}); d.StandbyCluster != nil {
		if _, ok := d.Standby(); !ok {
			r.warn("`standby_cluster` has no effect: it names neither host nor port nor restore_command")
		}
	}
}

func walkDynamic(doc *tree.Value, table *schema.Table) *schema.Walker {
	whole := &tree.Value{Shape: tree.Mapping, At: doc.At}
	whole.Set(dcsPath, doc)
	methods := schema.MethodNames(whole)
	if p := doc.Field("postgresql"); p != nil {
		for _, f := range p.Fields { // of a method that only a node's own file names
			if f.Value.Field("command") != nil {
				methods = append(methods, f.Name)
			}
		}
	}
	return &schema.Walker{Strict: true, Schema: table, Methods: methods}
}

// below tells paths as they are within the dynamic configuration.
func below(report tree.Report) tree.Report {
	return func(at tree.Place, format string, args ...any) {
		for i, a := range args {
			if s, ok := a.(string); ok {
				args[i] = strings.TrimPrefix(s, dcsPath+".")
			}
		}
		report(at, format, args...)
	}
}
