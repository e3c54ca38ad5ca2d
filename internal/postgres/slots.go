package postgres

import (
	"context"
	"fmt"
	"net"

	"github.com/havenha/haven/internal/postgres/session"
	"github.com/havenha/haven/internal/postgres/slots"
	"github.com/jackc/pgx/v5/pgconn"
)

// KeepSlots brings the slots of the local server in order; see slots.Apply.
func (i *Instance) KeepSlots(ctx context.Context, p slots.Plan) error {
	dial := func(ctx context.Context, database string) (*pgconn.PgConn, error) {
		return i.connect(ctx, database, nil)
	}
	return slots.Apply(ctx, dial, p, func(what, slot string) { i.log.Info("replication slot "+what, "slot", slot) })
}

// connectRewind opens a session on another member's server, as whom pg_rewind connects.
func (i *Instance) connectRewind(ctx context.Context, up Upstream) (*pgconn.PgConn, error) {
	cfg, err := connConfig(up.Host, up.Port, i.opt.Database, i.logins().Rewind, i.opt.Name)
	if err != nil {
		return nil, err
	}
	cfg.RuntimeParams["search_path"] = "pg_catalog"
	cfg.RuntimeParams["statement_timeout"] = "5000"
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", net.JoinHostPort(up.Host, up.Port), err)
	}
	return conn, nil
}

// UpstreamSlots lists the slots of another member's server.
func (i *Instance) UpstreamSlots(ctx context.Context, up Upstream) ([]slots.Slot, error) {
	conn, err := i.connectRewind(ctx, up)
	if err != nil {
		return nil, err
	}
	defer session.Close(conn)
	return slots.List(ctx, conn)
}

// FetchSlots reads the state of logical slots of a primary, for InstallSlots; see slots.Fetch.
func (i *Instance) FetchSlots(ctx context.Context, up Upstream, names []string) ([]slots.State, error) {
	conn, err := i.connectRewind(ctx, up)
	if err != nil {
		return nil, err
	}
	defer session.Close(conn)
	return slots.Fetch(ctx, conn, names)
}

// HoldsWAL tells whether the WAL that a slot decodes from is in the data directory.
func (i *Instance) HoldsWAL(s slots.State) (bool, error) {
	c, err := readControl(i.opt.DataDir)
	if err != nil {
		return false, err
	}
	return slots.HasWAL(i.opt.DataDir, uint64(c.SegmentSize), s.Restart)
}

// InstallSlots puts copies of a primary's logical slots into the data directory of the standby, while no server runs in it.
// It stops at the first one that cannot be put there.
func (i *Instance) InstallSlots(list []slots.State) error {
	left, err := i.Processes()
	if err != nil || len(left) > 0 {
		return fmt.Errorf("copy slots: %d processes of the server still run (%v)", len(left), err)
	}
	for _, s := range list {
		if err := slots.Install(i.opt.DataDir, s, i.chown); err != nil {
			return fmt.Errorf("copy slots: %w", err)
		}
		i.log.Info("logical replication slot copied from the primary", "slot", s.Name, "confirmed", s.Confirmed)
	}
	return nil
}

// TerminateWalsender ends the replication connection that process pid serves; another kind of process is left alone.
func (i *Instance) TerminateWalsender(ctx context.Context, pid int) error {
	sql := fmt.Sprintf("SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_replication WHERE pid = %d", pid)
	if _, err := i.query(ctx, sql); err != nil {
		return fmt.Errorf("terminate walsender %d: %w", pid, err)
	}
	return nil
}
