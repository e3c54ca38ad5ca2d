package postgres

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/havenha/haven/internal/postgres/durable"
	"golang.org/x/sys/unix"
)

// fillingMarker stands beside the data directory while a command of the operator's fills it: such commands want the
// directory itself empty. The command and what it starts hold a lock on it.
func (i *Instance) fillingMarker() string {
	return filepath.Join(filepath.Dir(i.opt.DataDir), "."+filepath.Base(i.opt.DataDir)+".haven.filling")
}

// leftover is what becomes of what a command has made before it failed.
type leftover int

const (
	removeLeft leftover = iota // it is removed
	leaveForIt                 // the next try of the command wants it
	leaveAside                 // it is moved aside
)

// fillBy has a command fill the data directory, which must be absent, empty or an unfinished one.
func (i *Instance) fillBy(ctx context.Context, h Hook, left leftover, systemID string) error {
	lock, err := i.prepareFor(left == leaveForIt)
	if err != nil {
		return err
	}
	defer lock.Close()
	i.filled.Store(true)
	h.Hold = lock
	err = i.RunHook(ctx, h)
	if err == nil {
		err = i.checkFilled(systemID)
	}
	if err == nil {
		err = durable.SyncTree(i.opt.DataDir)
	}
	if err == nil {
		_, err = durable.Remove(i.fillingMarker())
		return err
	}
	lock.Close()
	switch left {
	case leaveForIt:
		return err
	case leaveAside:
		return errors.Join(err, i.clearFailed())
	}
	return errors.Join(err, i.clearFilling())
}

// prepareFor makes the data directory ready for a command.
func (i *Instance) prepareFor(keep bool) (*os.File, error) {
	disk, err := i.Inspect()
	if err != nil {
		return nil, err
	}
	if !keep || disk.Kind != DiskUnfinished || !exists(i.fillingMarker()) {
		if _, err := i.prepareEmpty(); err != nil {
			return nil, err
		}
		// Commands like to make the directory themselves (Patroni removes it before). Where it is a link, a mount, or could not be
		// made by them, it stays.
		if i.opt.RunAs == nil {
			_ = unix.Rmdir(i.opt.DataDir)
		}
		if _, err := i.replaceFile(i.fillingMarker(), []byte(time.Now().UTC().Format(time.RFC3339)+"\n"), 0o600); err != nil {
			return nil, err
		}
	}
	return i.lockFilling()
}

// lockFilling takes the lock of the marker. While a command of an earlier agent lives, it cannot be had.
func (i *Instance) lockFilling() (*os.File, error) {
	f, err := os.Open(i.fillingMarker())
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("a command that was started earlier still fills %s: end it (fuser %s): %w", i.opt.DataDir, i.fillingMarker(), err)
	}
	return f, nil
}

// clearFilling clears the data directory of what a command has left. What one of an earlier agent has left is moved
// aside: a person may have restored something there since.
func (i *Instance) clearFilling() error {
	f, err := i.lockFilling()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	entries, err := os.ReadDir(i.opt.DataDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	case err == nil && len(entries) > 0 && i.filled.Load():
		err = removeContents(i.opt.DataDir, "")
	case err == nil && len(entries) > 0:
		var to string
		if to, err = i.setAside(i.opt.DataDir, time.Now().UTC().Format("20060102T150405Z")); err == nil {
			i.log.Warn("what a command left in the data directory was moved aside", "to", to)
		}
	}
	if err != nil {
		return err
	}
	_, err = durable.Remove(i.fillingMarker())
	return err
}

// checkFilled tells whether what a command has made is a database that can be started, of the cluster that it should be of.
func (i *Instance) checkFilled(systemID string) error {
	if _, err := os.Stat(i.path("PG_VERSION")); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the command said that it has succeeded, but there is no database in %s", i.opt.DataDir)
	}
	c, err := readControl(i.opt.DataDir)
	if err != nil {
		return err
	}
	if c.Version != i.version/10000 {
		return fmt.Errorf("the command made a database of PostgreSQL %d, but the programs are of version %d", c.Version, i.version/10000)
	}
	if systemID != "" && c.SystemID != systemID {
		return fmt.Errorf("the command made a database with the system identifier %s, which is another cluster's: this one has %s", c.SystemID, systemID)
	}
	mode := fs.FileMode(0o700)
	if info, err := os.Stat(i.opt.DataDir); err == nil && info.Mode().Perm()&0o040 != 0 {
		mode = 0o750
	}
	return os.Chmod(i.opt.DataDir, mode)
}
