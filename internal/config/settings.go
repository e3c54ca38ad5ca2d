package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/havenha/haven/internal/config/notation"
	"github.com/havenha/haven/internal/config/schema"
	"github.com/havenha/haven/internal/config/tree"
)

// PostgresWith is the section postgresql with the dynamic configuration laid under it: what the file or a variable says
// wins, except that the addresses, folders and passwords of the dynamic configuration are ignored. Parameters are
// merged too; for those that the server is given, see ServerSettings.
func (n *Node) PostgresWith(d Dynamic) *Postgres {
	if n.Postgres == nil {
		return nil
	}
	dynamic, err := tree.FromJSON(d.Postgres, tree.Place{Note: "dynamic configuration"})
	if err != nil {
		return n.Postgres
	}
	for _, name := range []string{"connect_address", "proxy_address", "listen", "config_dir", "data_dir", "pgpass", "authentication", "use_slots"} {
		dynamic.Drop(name)
	}
	l := &loader{src: n.src, report: &Report{}, schema: schema.New(), format: n.Format, doc: n.doc.Clone()}
	written := n.written.Find("postgresql").Clone()
	written.Drop("authentication") // settled below, without reading the secrets again
	l.doc.Set("postgresql", tree.Merge(dynamic, written))
	p := l.readPostgres(n)
	p.RemoteMethods = l.copyMethods(d.remoteMethods())
	// These have been settled, and are not the dynamic configuration's to say.
	p.Listen, p.ListenAddresses, p.Port, p.ConnectAddress, p.ProxyAddress = n.Postgres.Listen, n.Postgres.ListenAddresses, n.Postgres.Port, n.Postgres.ConnectAddress, n.Postgres.ProxyAddress
	p.DataDir, p.ConfigDir, p.PgPass, p.RunAs, p.BinDir = n.Postgres.DataDir, n.Postgres.ConfigDir, n.Postgres.PgPass, n.Postgres.RunAs, n.Postgres.BinDir
	p.Superuser, p.Replication, p.Rewind = n.Postgres.Superuser, n.Postgres.Replication, n.Postgres.Rewind
	for name, v := range n.Postgres.Parameters {
		if _, ok := p.Parameters[name]; !ok { // from haven.tls
			if p.Parameters == nil {
				p.Parameters = map[string]string{}
			}
			p.Parameters[name] = v
		}
	}
	return p
}

// controlled is a parameter that must be equal on all members, or that Haven sets: it comes from the dynamic
// configuration only and stands on the server's command line.
type controlled struct {
	name, def string
	valid     func(string) bool
}

func controlledParameters() []controlled {
	atLeast := func(n int) func(string) bool {
		return func(s string) bool { v, err := strconv.Atoi(s); return err == nil && v >= n }
	}
	isBool := func(s string) bool { _, err := notation.ParseBool(s); return err == nil }
	return []controlled{
		{"wal_level", "replica", func(s string) bool {
			return slices.Contains([]string{"hot_standby", "replica", "logical"}, strings.ToLower(s))
		}},
		{"hot_standby", "on", func(s string) bool { b, err := notation.ParseBool(s); return err == nil && b }},
		{"max_connections", "100", atLeast(25)},
		{"max_wal_senders", "10", atLeast(3)},
		{"max_prepared_transactions", "0", atLeast(0)},
		{"max_locks_per_transaction", "64", atLeast(32)},
		{"track_commit_timestamp", "off", isBool},
		{"max_replication_slots", "10", atLeast(4)},
		{"max_worker_processes", "8", atLeast(2)},
		{"wal_log_hints", "on", isBool},
	}
}

// ControlledOrder is the order in which the controlled parameters stand on the server's command line.
func ControlledOrder() []string {
	order := []string{"listen_addresses", "port", "cluster_name"}
	for _, c := range controlledParameters() {
		order = append(order, c.name)
	}
	return order
}

// ServerSettings is what the server of this node is to be configured with while it has a role (primary, replica,
// standby_leader):
//   - controlled: parameters for the command line, see ControlledOrder; from the dynamic configuration only, its values
//     checked (a value that is not valid: warning and default).
//   - params: all others, local ones over dynamic ones, those of the role over both; wal_keep_size among them.
//   - hba, ident: the lines of pg_hba.conf and pg_ident.conf; nil: leave the file as it is.
//   - recovery: parameters of a standby, without primary_conninfo and primary_slot_name; empty for a primary.
//
// members are hosts of further members (from their member keys), which the default pg_hba lets replicate beside those
// of etcd.members. Everything is nil on a node without a database.
func (n *Node) ServerSettings(d Dynamic, role string, members ...string) (controlled, params map[string]string, hba, ident []string, recovery map[string]string, warnings []string) {
	p := n.PostgresWith(d)
	if p == nil {
		return nil, nil, nil, nil, nil, nil
	}
	dynamic := map[string]string{}
	if doc, err := tree.FromJSON(d.Postgres, tree.Place{}); err == nil {
		dynamic = folded(settingsOf(doc.Find("parameters")))
	}
	controlled, warnings = n.controlled(p, dynamic)
	params = folded(p.Parameters)
	for name, v := range folded(p.ParametersByRole[role]) {
		if isControlled(name) {
			warnings = append(warnings, fmt.Sprintf("`parameters_%s.%s` has no effect: the parameter is the same on all members and comes from the dynamic configuration", role, name))
			continue
		}
		params[name] = v
	}
	maps.DeleteFunc(params, func(name, _ string) bool { return isControlled(name) })
	if n.Format == Haven && params["wal_sender_timeout"] == "" {
		params["wal_sender_timeout"] = walSenderTimeout
	}
	warnings = append(warnings, walKeep(params, dynamic)...)
	if d.LogicalSlots() { // as Patroni does
		params["hot_standby_feedback"] = "on"
	}
	recovery = recoverySettings(p, params, role)
	hba, ident = p.HBA, p.Ident
	if lines, ok := p.HBAByRole[role]; ok {
		hba = lines
	}
	if lines, ok := p.IdentByRole[role]; ok {
		ident = lines
	}
	if hba == nil && n.Format == Haven {
		hba = n.DefaultHBA(members...)
	}
	if params["hba_file"] != "" {
		hba = nil
	}
	if params["ident_file"] != "" {
		ident = nil
	}
	slices.Sort(warnings)
	return controlled, params, hba, ident, recovery, warnings
}

// walSenderTimeout is Haven's default of wal_sender_timeout: a frozen synchronous standby holds up every commit until
// its walsender gives up (PostgreSQL's own default is a minute).
const walSenderTimeout = "5s"

// folded lower-cases names, as PostgreSQL ignores their case.
func folded(m map[string]string) map[string]string {
	out := map[string]string{}
	for _, name := range sortedKeys(m) {
		out[strings.ToLower(name)] = m[name]
	}
	return out
}

func isControlled(name string) bool {
	return name == "wal_keep_size" || name == "wal_keep_segments" || slices.Contains(ControlledOrder(), name)
}

func (n *Node) controlled(p *Postgres, dynamic map[string]string) (map[string]string, []string) {
	out := map[string]string{"listen_addresses": p.ListenAddresses, "port": strconv.Itoa(p.Port), "cluster_name": n.Scope}
	var warnings []string
	for _, c := range controlledParameters() {
		v, ok := dynamic[c.name]
		if ok && !c.valid(v) {
			warnings = append(warnings, fmt.Sprintf("postgresql parameter %s=%s failed validation, defaulting to %s", c.name, v, c.def))
			ok = false
		}
		if !ok {
			v = c.def
		}
		if c.name == "wal_level" {
			if v = strings.ToLower(v); v == "hot_standby" {
				v = "replica"
			}
		}
		out[c.name] = v
	}
	return out, warnings
}

// walKeep settles wal_keep_size, which is dynamic only, and converts the older wal_keep_segments (16 MB each).
func walKeep(params, dynamic map[string]string) []string {
	const def = "128MB"
	delete(params, "wal_keep_segments")
	params["wal_keep_size"] = def
	if v, ok := dynamic["wal_keep_size"]; ok {
		bare, err := strconv.ParseInt(v, 10, 64) // without a unit: megabytes (PostgreSQL manual, 20.6.1)
		size := bare << 20
		if err != nil {
			size, err = notation.ParseSize(v)
		}
		if err != nil || size < 16<<20 {
			return []string{fmt.Sprintf("postgresql parameter wal_keep_size=%s failed validation, defaulting to %s", v, def)}
		}
		params["wal_keep_size"] = v
		return nil
	}
	if v, ok := dynamic["wal_keep_segments"]; ok {
		segments, err := strconv.Atoi(v)
		if err != nil || segments < 1 {
			return []string{fmt.Sprintf("postgresql parameter wal_keep_segments=%s failed validation, defaulting to 8", v)}
		}
		params["wal_keep_size"] = fmt.Sprintf("%dMB", segments*16)
	}
	return nil
}

// recoverySettings moves recovery parameters out of params: a primary's file does not hold them.
func recoverySettings(p *Postgres, params map[string]string, role string) map[string]string {
	all := folded(p.RecoveryConf)
	for _, name := range []string{"restore_command", "archive_cleanup_command", "recovery_end_command", "recovery_min_apply_delay", "promote_trigger_file"} {
		if v, ok := params[name]; ok {
			if _, given := all[name]; !given {
				all[name] = v
			}
			delete(params, name)
		}
	}
	managed := func(name, _ string) bool {
		return strings.HasPrefix(name, "recovery_target") || slices.Contains([]string{"primary_conninfo", "primary_slot_name", "standby_mode", "trigger_file"}, name)
	}
	maps.DeleteFunc(params, managed)
	maps.DeleteFunc(all, managed)
	if role == "primary" {
		return map[string]string{}
	}
	all["recovery_target_timeline"] = "latest"
	if role != "standby_leader" {
		delete(all, "recovery_min_apply_delay")
	}
	return all
}
