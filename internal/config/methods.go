package config

import (
	"slices"
	"strings"

	"github.com/havenha/haven/internal/config/notation"
	"github.com/havenha/haven/internal/config/schema"
	"github.com/havenha/haven/internal/config/tree"
)

// BaseBackupMethod is the name of the built-in way to make a copy, and InitDBMethod of that to make a cluster.
const (
	BaseBackupMethod = "basebackup"
	InitDBMethod     = "initdb"
)

// Method is a command of the operator's that makes a copy or a cluster: the section of that name.
type Method struct {
	Name    string
	Command string // its own name where the section gives none; empty for the built-in methods
	// Args are the keys of the section that are the operator's own, as --key=value in the order in which they were written.
	Args []string
	// NoParams: the command gets Args alone.
	NoParams bool
	// NoLeader and KeepData are for methods of copying: it works without a member to copy from; the remains of an earlier
	// try are left for it.
	NoLeader, KeepData bool
	// KeepRecovery and Recovery are for methods of bootstrapping: the recovery settings that the command has written are
	// kept; those to recover with (nil: none, so that the server starts as a primary).
	KeepRecovery bool
	Recovery     map[string]string
}

// replicaMethods reads create_replica_methods with the sections that it names; a copy by replication where it names none.
func (l *loader) replicaMethods() []Method {
	names := l.strings("postgresql.create_replica_methods")
	if v := l.given("postgresql.create_replica_methods"); v == nil || !v.At.Written() {
		if older := l.strings("postgresql.create_replica_method"); len(older) > 0 {
			names = older
		}
	}
	return l.copyMethods(names)
}

// copyMethods are the ways to make a copy of those names.
func (l *loader) copyMethods(names []string) []Method {
	if len(names) == 0 {
		names = []string{BaseBackupMethod}
	}
	out := make([]Method, 0, len(names))
	for _, name := range names {
		if name == BaseBackupMethod {
			out = append(out, Method{Name: name})
			continue
		}
		// Without no_params Patroni hands even its own words on.
		out = append(out, methodOf(name, l.given("postgresql").Field(name), "no_params", "no_leader", "keep_data"))
	}
	return out
}

// bootstrapMethod reads bootstrap.method with its section.
func (l *loader) bootstrapMethod() Method {
	name := l.text("bootstrap.method")
	if name == InitDBMethod || name == "" {
		return Method{Name: InitDBMethod}
	}
	section := l.given("bootstrap").Field(name)
	m := methodOf(name, section)
	if section == nil || section.Field("command").TextOr("") == "" {
		l.report.errorf(l.doc.Nearest("bootstrap.method"), "`bootstrap.method` is `%s`, but there is no `bootstrap.%s.command`: name the command that makes the database", name, name)
	}
	return m
}

// methodOf reads one section; own are Patroni's words in it that are handed on like the operator's, unless no_params is set.
func methodOf(name string, section *tree.Value, own ...string) Method {
	m := Method{Name: name, Command: name}
	if section == nil || section.Shape != tree.Mapping {
		return m
	}
	yes := func(key string) bool {
		b, err := notation.ParseBool(section.Field(key).TextOr("off"))
		return err == nil && b
	}
	m.NoParams, m.NoLeader, m.KeepData, m.KeepRecovery = yes("no_params"), yes("no_leader"), yes("keep_data"), yes("keep_existing_recovery_conf")
	if v := section.Field("command"); v != nil && v.Shape == tree.Scalar {
		m.Command = v.Text
	}
	m.Recovery = settingsOf(section.Field("recovery_conf"))
	reserved := []string{"command", "no_params", "no_leader", "keep_data", "keep_existing_recovery_conf", "recovery_conf", "scope", "datadir", "connstring", "role"}
	for _, f := range section.Fields {
		if slices.Contains(reserved, f.Name) && (m.NoParams || !slices.Contains(own, f.Name)) {
			continue
		}
		m.Args = append(m.Args, "--"+f.Name+"="+pythonText(f.Value))
	}
	return m
}

// pythonText is a value as Python's str prints it, since commands were written for that.
func pythonText(v *tree.Value) string {
	switch {
	case v.Shape == tree.Null:
		return "None"
	case v.Shape == tree.List:
		return "['" + strings.Join(schema.StringsOf(v), "', '") + "']"
	}
	if b, ok := notation.YAMLBool(v.Text); ok && !v.Quoted {
		if b {
			return "True"
		}
		return "False"
	}
	return v.Text
}
