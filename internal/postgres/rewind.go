package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/havenha/haven/internal/postgres/durable"
)

// tornMarker stands beside the data directory while pg_rewind works in it, or its tablespaces are moved aside. (Inside, pg_rewind itself would remove it:
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
// ErrNoAnswer: the upstream could not be asked, nothing was rewound. ErrNoCheckpoint: run Checkpoint on the upstream, then try again. After any other error the data directory may be torn (Disk.Torn tells) and must be replaced by a new copy.
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
		return fmt.Errorf("rewind: %w: %w", ErrNoAnswer, err)
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

// markTorn writes the marker durably. It tells on which file system the data is.
func (i *Instance) markTorn() error {
	on, err := device(i.opt.DataDir)
	if err == nil {
		_, err = i.replaceFile(i.tornMarker(), []byte(on), 0o600)
	}
	return err
}

// clearTorn removes the marker from beside an empty data directory: a person or a crash has taken away what was torn. If the directory
// is on another file system now, that of the data may only not be mounted, and nothing is to be put in its place.
func (i *Instance) clearTorn() error {
	on, err := device(i.opt.DataDir)
	if err != nil {
		return err
	}
	was, err := os.ReadFile(i.tornMarker())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && len(was) > 0 && string(was) != on {
		return fmt.Errorf("%s is empty, and %s says that its data, which a rewind has left torn, was on another file system (device %s; now %s): mount that, or delete the marker if the data is gone for good",
			i.opt.DataDir, i.tornMarker(), was, on)
	}
	if err == nil {
		_, err = durable.Remove(i.tornMarker())
	}
	return err
}

// device is the number of the file system that a directory is on.
func device(dir string) (string, error) {
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		return "", fmt.Errorf("stat %s: %w", dir, err)
	}
	return fmt.Sprint(st.Dev), nil
}

func (i *Instance) runRewind(ctx context.Context, up Upstream) error {
	if err := i.writePgPass(&up); err != nil {
		return err
	}
	if _, err := i.signalFiles(false); err != nil {
		return err
	}
	if err := i.markTorn(); err != nil {
		return fmt.Errorf("mark the data directory as being rewound: %w", err)
	}
	args := []string{"--target-pgdata=" + i.opt.DataDir, "--source-server=" + i.upstreamConninfo(up, i.logins().Rewind, "")}
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
