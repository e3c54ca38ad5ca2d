package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/havenha/haven/internal/postgres/durable"
)

// tornMarker stands beside the data directory while pg_rewind works in it. (Inside, pg_rewind itself would remove it:
// it removes what the source does not have.) A rewind that was cut short leaves a control file as if nothing had
// happened, over data that cannot be started.
func (i *Instance) tornMarker() string {
	return filepath.Join(filepath.Dir(i.opt.DataDir), "."+filepath.Base(i.opt.DataDir)+".haven.rewinding")
}

// Rewind makes the stopped local data directory a copy of an earlier state of the upstream's history, by pg_rewind. The
// upstream must be a primary. A server that was not stopped cleanly is first brought through crash recovery.
// pg_rewind brings the upstream's configuration files along: call Configure afterwards.
//
// ErrNoRewind: it cannot be used here. ErrSameTimeline: it would do nothing though the histories may differ.
// ErrNoCheckpoint: run Checkpoint on the upstream, then try again. After any other error the data directory may be torn (Disk.Torn tells) and must be replaced by a new copy.
func (i *Instance) Rewind(ctx context.Context, up Upstream) error {
	if err := i.mayRewind(); err != nil {
		return fmt.Errorf("rewind: %w", err)
	}
	if err := i.recoverCrash(ctx); err != nil {
		return fmt.Errorf("rewind: %w", err)
	}
	disk, err := i.Inspect()
	if err != nil {
		return fmt.Errorf("rewind: %w", err)
	}
	sysid, timeline, _, err := i.Identify(ctx, up)
	if err != nil {
		return fmt.Errorf("rewind: %w", err)
	}
	if sysid != disk.Control.SystemID {
		return fmt.Errorf("rewind: the server at %s has system identifier %s, ours is %s: it is another cluster", up.Address(), sysid, disk.Control.SystemID)
	}
	if timeline == disk.Control.Timeline {
		return fmt.Errorf("rewind: %w (%d)", ErrSameTimeline, timeline)
	}
	if err := i.runRewind(ctx, up); err != nil {
		return fmt.Errorf("rewind: %w", err)
	}
	i.log.Info("rewound", "from", up.Address(), "timeline", int(timeline))
	return nil
}

func (i *Instance) mayRewind() error {
	if !exists(i.bin("pg_rewind")) {
		return fmt.Errorf("%w: there is no pg_rewind in %s", ErrNoRewind, i.opt.BinDir)
	}
	disk, err := i.Inspect()
	if err != nil {
		return err
	}
	switch {
	case disk.Kind != DiskData:
		return fmt.Errorf("%w: %s is no data directory (%s)", ErrNoRewind, i.opt.DataDir, disk.Kind)
	case disk.Torn:
		return ErrTorn
	case !disk.Control.Checksums && !disk.Control.WalLogHints:
		return fmt.Errorf("%w: the data has neither checksums nor was it written with wal_log_hints=on", ErrNoRewind)
	}
	pids, err := i.Processes()
	if err != nil {
		return err
	}
	if len(pids) > 0 {
		return fmt.Errorf("processes %v of the server still run", pids)
	}
	return nil
}

// recoverCrash runs crash recovery by a single-user server where the server was not stopped cleanly. It is the same that
// pg_rewind would do, but with the signal files out of the way: with them a single-user server refuses to start. It may
// write WAL of its own and so is only for data that is to be rewound.
func (i *Instance) recoverCrash(ctx context.Context) error {
	disk, err := i.Inspect()
	if err != nil {
		return err
	}
	if disk.Control.Clean() {
		return nil
	}
	if exists(i.path("backup_label")) {
		return fmt.Errorf("%w: the data directory is a copy that was never started", ErrNoRewind)
	}
	if _, err := i.signalFiles(false); err != nil {
		return err
	}
	if err := i.clearZombieLocks(); err != nil {
		return err
	}
	args := []string{"--single", "-D", i.opt.DataDir, "-c", "config_file=" + i.confFile(),
		"-c", "archive_mode=off", "-c", "synchronous_standby_names=", "template1"}
	cmd := i.command(ctx, i.bin("postgres"), args...)
	cmd.Dir = i.opt.DataDir
	if err := i.run(cmd); err != nil { // its input is empty: it recovers and ends
		return fmt.Errorf("crash recovery: %w", err)
	}
	return nil
}

func (i *Instance) runRewind(ctx context.Context, up Upstream) error {
	if err := i.writePgPass(&up); err != nil {
		return err
	}
	if _, err := i.signalFiles(false); err != nil {
		return err
	}
	f, err := os.Create(i.tornMarker())
	if err != nil {
		return fmt.Errorf("mark the data directory as being rewound: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close(), durable.SyncDir(filepath.Dir(i.tornMarker()))); err != nil {
		return err
	}
	args := []string{"--target-pgdata=" + i.opt.DataDir, "--source-server=" + i.upstreamConninfo(up, i.opt.Rewind, "")}
	cmd := i.command(ctx, i.bin("pg_rewind"), append(args, i.opt.RewindOptions...)...)
	cmd.Env = append(cmd.Env, "LC_ALL=C")
	out, err := i.output(cmd)
	if err != nil {
		return err
	}
	if _, err := durable.Remove(i.tornMarker()); err != nil {
		return err
	}
	// Up to PostgreSQL 15 pg_rewind takes the upstream's timeline from its last checkpoint, and does nothing, with exit
	// status 0, while that is of the time before the promotion.
	if strings.Contains(out, "on the same timeline") {
		return ErrNoCheckpoint
	}
	return nil
}
