package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/havenha/haven/internal/postgres/conf"
	"github.com/havenha/haven/internal/postgres/durable"
)

const (
	autoFile  = "postgresql.auto.conf"
	hbaFile   = "pg_hba.conf"
	identFile = "pg_ident.conf"
)

// config is the path of a configuration file.
func (i *Instance) config(name string) string { return filepath.Join(i.opt.ConfigDir, name) }

// confFile is the file that the server is started with.
func (i *Instance) confFile() string { return i.config(i.opt.ConfigName + ".conf") }

// baseName is the name of the operator's own file, which ours includes.
func (i *Instance) baseName() string { return i.opt.ConfigName + ".base.conf" }

// Configure writes the configuration files: postgresql.conf (the one that was there at first is
// kept as postgresql.base.conf and included), pg_hba.conf, pg_ident.conf, and for a standby standby.signal in the data directory. A standby
// without upstream gets no primary_conninfo: it streams from nobody. It reports whether anything changed; the caller
// reloads or restarts.
func (i *Instance) Configure(s Settings, up *Upstream, standby bool) (changed bool, err error) {
	i.files.Lock()
	defer i.files.Unlock()
	if err := i.writePgPass(up); err != nil {
		return false, fmt.Errorf("configure: %w", err)
	}
	steps := []func() (bool, error){
		i.fillConfigDir,
		i.keepBase,
		func() (bool, error) {
			return i.replaceFile(i.confFile(), []byte(i.renderConf(s, up, standby)), i.fileMode())
		},
		func() (bool, error) { return i.writeLines(hbaFile, s.HBA, s.Parameters["hba_file"]) },
		func() (bool, error) { return i.writeLines(identFile, s.Ident, s.Parameters["ident_file"]) },
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

// fillConfigDir makes a configuration directory outside of the data directory, and copies the rules into it that it lacks
// and that initdb, or the server of which the data is a copy, has left in the data directory.
func (i *Instance) fillConfigDir() (bool, error) {
	if i.opt.ConfigDir == i.opt.DataDir {
		return false, nil
	}
	if !exists(i.opt.ConfigDir) {
		err := os.MkdirAll(filepath.Dir(i.opt.ConfigDir), 0o755)
		if err == nil {
			err = os.Mkdir(i.opt.ConfigDir, 0o700)
		}
		if err := errors.Join(err, i.chown(i.opt.ConfigDir)); err != nil {
			return false, fmt.Errorf("postgresql.config_dir: %w: make it for the user that runs PostgreSQL, or name another", err)
		}
	}
	changed := false
	for _, name := range []string{hbaFile, identFile} {
		if exists(i.config(name)) || !exists(i.path(name)) {
			continue
		}
		if err := i.copyFile(i.path(name), i.config(name)); err != nil {
			return changed, err
		}
		changed = true
	}
	return changed, nil
}

func (i *Instance) copyFile(from, to string) error {
	raw, err := os.ReadFile(from)
	if err == nil {
		_, err = i.replaceFile(to, raw, i.fileMode())
	}
	return err
}

// keepBase makes the file that ours includes, at first take-over: the operator's own postgresql.conf is renamed. Where the
// configuration directory has none, that of the data directory is copied: initdb's, or the one that came with a copy.
func (i *Instance) keepBase() (bool, error) {
	base := i.config(i.baseName())
	if exists(base) {
		return false, nil
	}
	for _, from := range []string{i.confFile(), i.path("postgresql.base.conf"), i.path("postgresql.conf")} {
		raw, err := os.ReadFile(from)
		switch {
		case errors.Is(err, fs.ErrNotExist), err == nil && strings.HasPrefix(string(raw), conf.AnyHeader):
			continue
		case err != nil:
			return false, err
		case from != i.confFile():
			return true, i.copyFile(from, base)
		}
		if err := os.Rename(from, base); err != nil {
			return false, err
		}
		return true, durable.SyncDir(i.opt.ConfigDir)
	}
	return i.replaceFile(base, []byte("# There was no configuration file of its own.\n"), i.fileMode())
}

func (i *Instance) renderConf(s Settings, up *Upstream, standby bool) string {
	values := map[string]string{
		"hba_file":   i.config(hbaFile),
		"ident_file": i.config(identFile),
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
	b.WriteString(conf.Header + "\n" + conf.Include(firstOf(s.CustomConf, i.baseName())) + "\n")
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
	out["primary_conninfo"] = i.upstreamConninfo(*up, i.logins().Replication, i.resolve(up.Host))
	out["primary_slot_name"] = up.Slot
	return out
}

func (i *Instance) writeLines(name string, lines []string, redirected string) (bool, error) {
	if redirected != "" || (len(lines) == 0 && exists(i.config(name))) {
		return false, nil
	}
	text := conf.Header + "\n" + strings.Join(lines, "\n") + "\n"
	return i.replaceFile(i.config(name), []byte(text), i.fileMode())
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
