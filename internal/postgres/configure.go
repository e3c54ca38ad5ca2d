package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"strconv"
	"strings"

	"github.com/havenha/haven/internal/postgres/conf"
	"github.com/havenha/haven/internal/postgres/durable"
)

const (
	confFile = "postgresql.conf"
	baseFile = "postgresql.base.conf"
	autoFile = "postgresql.auto.conf"
)

// Configure writes the configuration files of the data directory: postgresql.conf (the one that was there at first is
// kept as postgresql.base.conf and included), pg_hba.conf, pg_ident.conf, and for a standby standby.signal. A standby
// without upstream gets no primary_conninfo: it streams from nobody. It reports whether anything changed; the caller
// reloads or restarts.
func (i *Instance) Configure(s Settings, up *Upstream, standby bool) (changed bool, err error) {
	i.files.Lock()
	defer i.files.Unlock()
	if err := i.writePgPass(up); err != nil {
		return false, fmt.Errorf("configure: %w", err)
	}
	steps := []func() (bool, error){
		i.keepBase,
		func() (bool, error) {
			return i.replaceFile(i.path(confFile), []byte(i.renderConf(s, up, standby)), i.fileMode())
		},
		func() (bool, error) { return i.writeLines("pg_hba.conf", s.HBA, s.Parameters["hba_file"]) },
		func() (bool, error) { return i.writeLines("pg_ident.conf", s.Ident, s.Parameters["ident_file"]) },
		i.stripAuto,
		func() (bool, error) { return i.signalFiles(standby) },
	}
	for _, step := range steps {
		did, err := step()
		if err != nil {
			return changed, fmt.Errorf("configure: %w", err)
		}
		changed = changed || did
	}
	return changed, nil
}

// keepBase renames the operator's own postgresql.conf at first take-over.
func (i *Instance) keepBase() (bool, error) {
	if exists(i.path(baseFile)) {
		return false, nil
	}
	raw, err := os.ReadFile(i.path(confFile))
	if errors.Is(err, fs.ErrNotExist) || (err == nil && strings.HasPrefix(string(raw), conf.AnyHeader)) {
		return i.replaceFile(i.path(baseFile), []byte("# There was no configuration file of its own.\n"), i.fileMode())
	}
	if err != nil {
		return false, err
	}
	if err := os.Rename(i.path(confFile), i.path(baseFile)); err != nil {
		return false, err
	}
	return true, durable.SyncDir(i.opt.DataDir)
}

func (i *Instance) renderConf(s Settings, up *Upstream, standby bool) string {
	values := map[string]string{
		"hba_file":   i.path("pg_hba.conf"),
		"ident_file": i.path("pg_ident.conf"),
	}
	recovery := map[string]string{}
	for _, from := range []map[string]string{s.Parameters, s.Controlled} {
		for name, value := range from {
			if conf.IsRecoveryParameter(name) {
				recovery[name] = value
			} else {
				values[name] = value
			}
		}
	}
	values["listen_addresses"] = i.opt.ListenAddresses
	values["port"] = strconv.Itoa(i.opt.Port)
	values["cluster_name"] = i.opt.Scope
	values["synchronous_standby_names"] = s.SyncNames
	if i.opt.SocketDir != "" {
		values["unix_socket_directories"] = i.opt.SocketDir
	}
	var b strings.Builder
	b.WriteString(conf.Header + "\n" + conf.Include(firstOf(s.CustomConf, baseFile)) + "\n")
	conf.WriteSorted(&b, values)
	if standby {
		b.WriteString("\n# recovery.conf\n")
		maps.Copy(recovery, s.Recovery)
		conf.WriteSorted(&b, i.recoverySettings(recovery, up))
	}
	return b.String()
}

func (i *Instance) recoverySettings(given map[string]string, up *Upstream) map[string]string {
	out := map[string]string{"recovery_target_timeline": "latest"}
	for _, name := range []string{"", "_lsn", "_name", "_time", "_xid"} {
		out["recovery_target"+name] = ""
	}
	for name, value := range given {
		if !strings.HasPrefix(name, "recovery_target") && name != "primary_conninfo" && name != "primary_slot_name" {
			out[name] = value
		}
	}
	if up == nil {
		// Written, not left out: the operator's base file may hold an old one.
		out["primary_conninfo"], out["primary_slot_name"] = "", ""
		return out
	}
	out["primary_conninfo"] = i.upstreamConninfo(*up, i.opt.Replication, i.resolve(up.Host))
	out["primary_slot_name"] = up.Slot
	return out
}

func (i *Instance) writeLines(name string, lines []string, redirected string) (bool, error) {
	if redirected != "" || (len(lines) == 0 && exists(i.path(name))) {
		return false, nil
	}
	text := conf.Header + "\n" + strings.Join(lines, "\n") + "\n"
	return i.replaceFile(i.path(name), []byte(text), i.fileMode())
}

// stripAuto removes recovery parameters from postgresql.auto.conf, where pg_basebackup -R and ALTER SYSTEM put them; it
// is read last and would win over postgresql.conf.
func (i *Instance) stripAuto() (bool, error) {
	raw, err := os.ReadFile(i.path(autoFile))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return i.replaceFile(i.path(autoFile), []byte(conf.WithoutRecovery(string(raw))), i.fileMode())
}

func (i *Instance) signalFiles(standby bool) (bool, error) {
	if standby {
		return i.replaceSignal("standby.signal")
	}
	a, err := durable.Remove(i.path("standby.signal"))
	if err != nil {
		return a, err
	}
	b, err := durable.Remove(i.path("recovery.signal"))
	return a || b, err
}

func (i *Instance) replaceSignal(name string) (bool, error) {
	if exists(i.path(name)) {
		return false, nil
	}
	// replaceFile compares contents, and an absent file is as empty as this one; so the file is made by itself.
	f, err := os.OpenFile(i.path(name), os.O_CREATE|os.O_WRONLY|os.O_EXCL, i.fileMode())
	if err != nil {
		return false, err
	}
	return true, errors.Join(i.chown(f.Name()), f.Sync(), f.Close(), durable.SyncDir(i.opt.DataDir))
}
