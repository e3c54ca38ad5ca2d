package postgres

import (
	"context"
	"fmt"
	"time"
)

// CopyMethod is one way to make a copy of the cluster's database.
type CopyMethod struct {
	Name string
	// Command is the operator's; empty: the copy is made over the replication protocol, or by pg_basebackup where Options
	// are given.
	Command string
	Options []string // of pg_basebackup
	Args    []string // of Command, before those that are always given
	// NoParams: Command gets Args alone. KeepData: what an earlier try has left is left for it.
	NoParams, KeepData bool
	// SystemID is the cluster's; a copy of another one is none. Empty: any.
	SystemID string
}

// commandGrace is how long a command that fills the data directory has to end when it is told to (Patroni: 10 s).
const commandGrace = 10 * time.Second

// CloneBy makes a copy by one method, as Clone does. up may be nil for a command: then there is nobody to copy from. The
// command gets --scope, --role=replica, --datadir and --connstring, whose password is in the file that PGPASSFILE names
// (Patroni, "Building custom replicas").
func (i *Instance) CloneBy(ctx context.Context, up *Upstream, m CopyMethod, progress func(done, total int64)) error {
	if m.Command == "" {
		if up == nil {
			return fmt.Errorf("copy by %s: there is no member to copy from", m.Name)
		}
		return i.clone(ctx, *up, m.Options, progress)
	}
	conninfo := ""
	if up != nil {
		conninfo = i.upstreamConninfo(*up, i.logins().Replication, "")
	}
	if err := i.writePgPass(up); err != nil {
		return fmt.Errorf("copy by %s: %w", m.Name, err)
	}
	args := m.Args
	if !m.NoParams {
		args = append(append([]string{}, args...), "--scope="+i.opt.Scope, "--role=replica", "--datadir="+i.opt.DataDir, "--connstring="+conninfo)
	}
	h := Hook{What: "postgresql." + m.Name, Line: m.Command, Args: args, Env: []string{"PGPASSFILE=" + i.opt.PgPass}, Grace: commandGrace}
	left := removeLeft
	if m.KeepData {
		left = leaveForIt
	}
	if err := i.fillBy(ctx, h, left, m.SystemID); err != nil {
		return fmt.Errorf("Error creating replica using method %s: %w", m.Name, err)
	}
	i.log.Info("replica has been created using " + m.Name)
	return nil
}
