package postgres

import (
	"maps"
	"slices"
	"strconv"

	"github.com/havenha/haven/internal/postgres/conf"
)

// Settings are what a reload may change; the caller makes them from the configuration, for the role at hand.
type Settings struct {
	// Controlled are those of Patroni's list that are the same on all members; they are given on the command line too,
	// so that no file overrides them.
	Controlled map[string]string
	// Parameters are all others, which stand in the file only.
	Parameters map[string]string
	// CustomConf is a file that is included in place of the base configuration; empty: none.
	CustomConf string
	// SyncNames is synchronous_standby_names. It is always written: empty means that nobody is waited for.
	SyncNames string
	// HBA and Ident are the whole contents of pg_hba.conf and pg_ident.conf, by lines; empty: the file stays as it is.
	HBA, Ident []string
	// Recovery are further recovery parameters of a standby, such as restore_command.
	Recovery map[string]string
}

// arguments are the server's command line, in Patroni's order.
func (i *Instance) arguments(s Settings, raised map[string]string) []string {
	args := []string{"-D", i.opt.DataDir, "--config-file=" + i.confFile(),
		"--listen_addresses=" + i.opt.ListenAddresses, "--port=" + strconv.Itoa(i.opt.Port), "--cluster_name=" + i.opt.Scope}
	values := maps.Clone(s.Controlled)
	if values == nil {
		values = map[string]string{}
	}
	maps.Copy(values, raised)
	names := conf.Order()
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, name := range names {
		if v, ok := values[name]; ok {
			args = append(args, "--"+name+"="+v)
		}
	}
	return args
}

// raisedForStandby are the parameters that a standby must not have lower than its primary had when it wrote the control
// file (PostgreSQL manual, "Administrator's Overview" of hot standby), with the values that are too low raised.
func raisedForStandby(s Settings, c Control) map[string]string {
	need := []struct {
		name     string
		standard int
		value    int
	}{
		{"max_connections", 100, c.MaxConnections},
		{"max_worker_processes", 8, c.MaxWorkerProcesses},
		{"max_wal_senders", 10, c.MaxWalSenders},
		{"max_prepared_transactions", 0, c.MaxPreparedXacts},
		{"max_locks_per_transaction", 64, c.MaxLocksPerXact},
	}
	raised := map[string]string{}
	for _, n := range need {
		have := n.standard
		if v, err := strconv.Atoi(firstOf(s.Controlled[n.name], s.Parameters[n.name])); err == nil {
			have = v
		}
		if have < n.value {
			raised[n.name] = strconv.Itoa(n.value)
		}
	}
	return raised
}
