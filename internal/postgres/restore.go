package postgres

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"strings"
	"time"

	"github.com/havenha/haven/internal/postgres/conf"
	"github.com/havenha/haven/internal/postgres/durable"
	"github.com/havenha/haven/internal/postgres/session"
)

// Restoring is how the operator's own command makes a cluster's first database (Patroni, custom bootstrap).
type Restoring struct {
	Name, Command string
	Args          []string // after --scope and --datadir
	NoParams      bool     // Command gets Args alone
	// KeepRecovery: what the command has written of recovery settings and signal files stays as it is. Otherwise Recovery
	// are the settings to recover with; nil: the server starts as a primary.
	KeepRecovery bool
	Recovery     map[string]string
}

// Restore has a command make the database in an absent or empty data directory. What it has made when it fails is moved
// aside. The caller goes on with StartRestored.
func (i *Instance) Restore(ctx context.Context, r Restoring) error {
	args := r.Args
	if !r.NoParams {
		args = append([]string{"--scope=" + i.opt.Scope, "--datadir=" + i.opt.DataDir}, args...)
	}
	i.log.Info("Running custom bootstrap script: " + r.Command)
	h := Hook{What: "bootstrap." + r.Name, Line: r.Command, Args: args, Grace: commandGrace}
	if err := i.fillBy(ctx, h, leaveAside, ""); err != nil {
		return fmt.Errorf("custom bootstrap failed: %w", err)
	}
	return nil
}

// StartRestored configures and starts what Restore has made, and waits until recovery is over, however long that takes.
// Meanwhile the superuser may log in locally without a password, since that in the backup is not known; the caller sets
// it, and configures the server anew.
func (i *Instance) StartRestored(ctx context.Context, s Settings, r Restoring) (*Server, error) {
	s.Parameters = maps.Clone(s.Parameters)
	delete(s.Parameters, "hba_file")
	s.HBA = i.trustingHBA()
	if err := i.configureRestored(s, r); err != nil {
		return nil, fmt.Errorf("configure what was restored: %w", err)
	}
	server, err := i.Start(ctx, s)
	if server == nil || err != nil && !errors.Is(err, ErrNotReady) {
		return server, err
	}
	return server, i.awaitRestored(ctx, server)
}

func (i *Instance) configureRestored(s Settings, r Restoring) error {
	i.files.Lock()
	defer i.files.Unlock()
	recover := r.Recovery != nil && !r.KeepRecovery
	text := i.renderConf(s, nil, false)
	if recover {
		var b strings.Builder
		b.WriteString("\n# recovery.conf\n")
		conf.WriteSorted(&b, recoverBy(r.Recovery))
		text += b.String()
	}
	steps := []func() (bool, error){
		i.fillConfigDir,
		i.keepBase,
		func() (bool, error) { return i.replaceFile(i.confFile(), []byte(text), i.fileMode()) },
		func() (bool, error) { return i.writeLines(hbaFile, s.HBA, "") },
		func() (bool, error) { return i.writeLines(identFile, s.Ident, s.Parameters["ident_file"]) },
	}
	if !r.KeepRecovery {
		steps = append(steps, i.stripAuto, func() (bool, error) { return i.signalFiles(false) })
	}
	if recover {
		signal := "recovery.signal"
		if on := strings.ToLower(r.Recovery["standby_mode"]); on == "on" || on == "true" || on == "yes" || on == "1" {
			signal = "standby.signal"
		}
		steps = append(steps, func() (bool, error) { return i.replaceSignal(signal) })
	}
	for _, step := range steps {
		if _, err := step(); err != nil {
			return err
		}
	}
	return nil
}

// recoverBy are the settings to recover with. A server that stops at its target and waits for a person would keep the
// bootstrap waiting, so it goes on unless the operator says otherwise.
func recoverBy(given map[string]string) map[string]string {
	out := map[string]string{}
	target := false
	for name, value := range given {
		name = strings.ToLower(name)
		if name == "standby_mode" || !conf.IsRecoveryParameter(name) {
			continue
		}
		out[name] = value
		target = target || strings.HasPrefix(name, "recovery_target") && name != "recovery_target_timeline"
	}
	if target && out["recovery_target_action"] == "" {
		out["recovery_target_action"] = "promote"
	}
	return out
}

// trustingHBA lets the superuser in from this host.
func (i *Instance) trustingHBA() []string {
	user := session.QuoteIdent(i.logins().Superuser.Username)
	lines := []string{"local all " + user + " trust"}
	for _, addr := range append([]string{"127.0.0.1", "::1"}, strings.Split(i.localHost(), ",")...) {
		if ip := net.ParseIP(addr); ip != nil {
			bits := "/32"
			if ip.To4() == nil {
				bits = "/128"
			}
			lines = append(lines, "host all "+user+" "+addr+bits+" trust")
		}
	}
	return lines
}

// awaitRestored waits for the end of recovery.
func (i *Instance) awaitRestored(ctx context.Context, s *Server) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	i.log.Info("waiting for end of recovery after bootstrap")
	for {
		rows, err := i.heartQuery(ctx, "SELECT pg_is_in_recovery()")
		if err == nil && rows[0][0] == "f" {
			return nil
		}
		select {
		case <-s.Exited():
			return fmt.Errorf("the server ended before its recovery did (%s): %s", s.ExitStatus(), i.logTail(0))
		case <-ctx.Done():
			return fmt.Errorf("wait for the end of recovery: %w", errors.Join(ctx.Err(), err))
		case <-tick.C:
		}
	}
}

// FinishRestored puts the settings in force that hold from now on, and restarts the server for it: those that only a
// recovery needed are gone then. s.HBA must hold lines: they take the place of those that let the superuser in.
func (i *Instance) FinishRestored(ctx context.Context, s Settings) (*Server, error) {
	// Also where the server is told to use another file: this one let the superuser in.
	if _, err := i.writeLines(hbaFile, s.HBA, ""); err != nil {
		return nil, err
	}
	if _, err := i.Configure(s, nil, false); err != nil {
		return nil, err
	}
	if err := i.Stop(ctx, StopFast, nil); err != nil {
		return nil, err
	}
	return i.Start(ctx, s)
}

// ReadHBA are the lines of pg_hba.conf; none where there is no such file. While the configuration's own directory has none,
// they are those of the data directory.
func (i *Instance) ReadHBA() ([]string, error) {
	b, err := os.ReadFile(i.config(hbaFile))
	if errors.Is(err, os.ErrNotExist) {
		b, err = os.ReadFile(i.path(hbaFile))
	}
	if errors.Is(err, os.ErrNotExist) || err == nil && strings.TrimSpace(string(b)) == "" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n"), nil
}

// clearFailed moves aside what a failed command has made.
func (i *Instance) clearFailed() error {
	to, err := i.setAside(i.opt.DataDir, time.Now().UTC().Format("20060102T150405Z"))
	if err == nil {
		i.log.Warn("what the failed command had made was moved aside", "to", to)
		_, err = durable.Remove(i.fillingMarker())
	}
	return err
}
