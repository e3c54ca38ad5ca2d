package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/havenha/haven/internal/postgres/basebackup"
	"github.com/havenha/haven/internal/postgres/programs"
	"github.com/havenha/haven/internal/postgres/session"
	"github.com/jackc/pgx/v5/pgconn"
)

// Clone copies the upstream's data directory into an absent, empty or unfinished one, with all WAL that the copy needs
// and its manifest (PostgreSQL manual, "Streaming Replication Protocol", BASE_BACKUP). progress, which may be nil, is
// told bytes received and bytes estimated. A directory that holds anything else is ErrNotEmpty and not touched. When
// BaseBackupOptions are given, pg_basebackup makes the copy. The caller configures the copy as a standby.
func (i *Instance) Clone(ctx context.Context, up Upstream, progress func(done, total int64)) error {
	return i.clone(ctx, up, i.opt.BaseBackupOptions, progress)
}

func (i *Instance) clone(ctx context.Context, up Upstream, options []string, progress func(done, total int64)) error {
	if progress == nil {
		progress = func(int64, int64) {}
	}
	err := i.populate("clone", func(dir string, m *marker) error {
		if len(options) > 0 {
			return i.runBaseBackup(ctx, up, dir, options)
		}
		return i.streamBaseBackup(ctx, up, dir, m, progress)
	})
	if err != nil {
		return fmt.Errorf("copy the database from %s: %w", up.Address(), err)
	}
	return nil
}

func (i *Instance) runBaseBackup(ctx context.Context, up Upstream, dir string, options []string) error {
	if err := i.writePgPass(&up); err != nil {
		return err
	}
	args := []string{"--pgdata=" + dir, "-X", "stream", "--no-sync", "--dbname=" + i.upstreamConninfo(up, i.logins().Replication, "")}
	return i.run(i.command(ctx, i.bin("pg_basebackup"), append(args, options...)...))
}

// streamBaseBackup speaks the protocol. Files are written by this process and given to RunAs.
func (i *Instance) streamBaseBackup(ctx context.Context, up Upstream, dir string, m *marker, progress func(done, total int64)) error {
	conn, err := i.connectUpstream(ctx, up)
	if err != nil {
		return err
	}
	version := programs.ParseVersion(conn.ParameterStatus("server_version"))
	if version/10000 != i.version/10000 {
		session.Close(conn)
		return fmt.Errorf("the server there is PostgreSQL %d, but the programs here are of %d: a physical copy needs the same major version", version/10000, i.version/10000)
	}
	// The slot lives as long as this session and keeps the WAL that the copy will need, however long it takes.
	slot := fmt.Sprintf("haven_clone_%d_%d", conn.PID(), os.Getpid())
	if _, err := session.Query(ctx, conn, "CREATE_REPLICATION_SLOT "+session.QuoteIdent(slot)+" TEMPORARY PHYSICAL RESERVE_WAL"); err != nil {
		var refused *pgconn.PgError
		if !errors.As(err, &refused) || refused.Code != codeLimitExceeded {
			session.Close(conn)
			return fmt.Errorf("reserve the WAL that the copy needs: %w", err)
		}
		i.log.Warn("all replication slots of the upstream are in use; the copy fails if its WAL is removed meanwhile", "upstream", up.Address())
	}
	var own *basebackup.Owner
	if a := i.opt.RunAs; a != nil && os.Geteuid() == 0 {
		own = &basebackup.Owner{UID: a.UID, GID: a.GID}
	}
	claim := func(space string) error { return i.claimTablespace(space, m) }
	if err := basebackup.Receive(ctx, conn, version, basebackup.Target{Dir: dir, Own: own, Claim: claim, Progress: progress}); err != nil {
		return err
	}
	_, err = readControl(dir) // whole, or it is no copy: it is sent last of all files but WAL
	return err
}

// claimTablespace takes an absent or empty directory outside, and says so in the marker before anything is put there.
func (i *Instance) claimTablespace(dir string, m *marker) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	case err != nil:
		return err
	case len(entries) > 0:
		return fmt.Errorf("tablespace directory %s: %w", dir, ErrNotEmpty)
	}
	if err := i.chown(dir); err != nil {
		return err
	}
	m.Tablespaces = append(m.Tablespaces, dir)
	return i.writeMarker(m)
}

// codeLimitExceeded is the server's answer when max_replication_slots are in use.
const codeLimitExceeded = "53400"
