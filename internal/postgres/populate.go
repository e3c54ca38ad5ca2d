package postgres

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/havenha/haven/internal/postgres/durable"
)

// marker is the contents of haven.unfinished. Whatever stands in a directory that bears it was put there by us.
type marker struct {
	Operation   string    `json:"operation"`
	Begun       time.Time `json:"begun"`
	Tablespaces []string  `json:"tablespaces,omitempty"` // directories outside that were empty before we filled them
}

// populate fills the data directory: fill makes its contents in a directory inside it, from where they are moved up
// when they are complete. Until then our marker stands in the data directory, also across a crash, and a later populate
// clears the remains away. When fill fails, only what was made here is removed.
func (i *Instance) populate(operation string, fill func(dir string, m *marker) error) (err error) {
	made, err := i.prepareEmpty()
	if err != nil {
		return err
	}
	m := &marker{Operation: operation, Begun: time.Now().UTC()}
	defer func() {
		if err != nil {
			err = errors.Join(err, i.clearUnfinished(made))
		}
	}()
	if err := i.writeMarker(m); err != nil {
		return err
	}
	// A new name each time: a program that outlived an earlier agent may still write into the old one.
	work, err := os.MkdirTemp(i.opt.DataDir, workDir)
	if err != nil {
		return err
	}
	if err := i.chown(work); err != nil {
		return err
	}
	if err := fill(work, m); err != nil {
		return err
	}
	return i.moveUp(work, m)
}

func (i *Instance) writeMarker(m *marker) error {
	raw, err := json.Marshal(m)
	if err != nil {
		return err
	}
	_, err = i.replaceFile(i.path(markerFile), raw, 0o600)
	return err
}

// prepareEmpty makes sure of an empty data directory, and tells whether it had to be made.
func (i *Instance) prepareEmpty() (made bool, err error) {
	if err := i.clearFilling(); err != nil {
		return false, err
	}
	disk, err := i.Inspect()
	if err != nil {
		return false, err
	}
	switch disk.Kind {
	case DiskAbsent:
		if err := os.MkdirAll(filepath.Dir(i.opt.DataDir), 0o755); err != nil {
			return false, err
		}
		made = true
		if err := os.Mkdir(i.opt.DataDir, 0o700); err != nil {
			return false, err
		}
	case DiskUnfinished:
		if pids, err := i.Processes(); err != nil || len(pids) > 0 {
			return false, errors.Join(err, fmt.Errorf("processes %v still run in the unfinished data directory", pids))
		}
		if err := i.clearUnfinished(false); err != nil {
			return false, err
		}
	case DiskData, DiskForeign:
		return false, fmt.Errorf("%s: %w: it is left as it is; move it aside, or set postgresql.data_dir to another path", i.opt.DataDir, ErrNotEmpty)
	}
	if err := i.clearTorn(); err != nil {
		return made, err
	}
	return made, errors.Join(os.Chmod(i.opt.DataDir, 0o700), i.chown(i.opt.DataDir))
}

// clearUnfinished removes everything from a directory that bears our marker, the marker last.
func (i *Instance) clearUnfinished(andDir bool) error {
	raw, err := os.ReadFile(i.path(markerFile))
	if errors.Is(err, fs.ErrNotExist) {
		if andDir {
			return os.Remove(i.opt.DataDir) // fails if it is not empty, rightly
		}
		return nil
	}
	if err != nil {
		return err
	}
	var m marker
	if json.Unmarshal(raw, &m) == nil {
		for _, dir := range m.Tablespaces {
			if err := removeContents(dir, ""); err != nil {
				return err
			}
		}
	}
	if err := removeContents(i.opt.DataDir, markerFile); err != nil {
		return err
	}
	if err := os.Remove(i.path(markerFile)); err != nil {
		return err
	}
	if andDir {
		return os.Remove(i.opt.DataDir)
	}
	return durable.SyncDir(i.opt.DataDir)
}

func removeContents(dir, except string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if e.Name() == except {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// moveUp makes the finished contents durable, moves them to their place and takes the marker away.
func (i *Instance) moveUp(work string, m *marker) error {
	for _, dir := range append([]string{work}, m.Tablespaces...) {
		if err := durable.SyncTree(dir); err != nil {
			return fmt.Errorf("make %s durable: %w", dir, err)
		}
	}
	entries, err := os.ReadDir(work)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := os.Rename(filepath.Join(work, e.Name()), i.path(e.Name())); err != nil {
			return err
		}
	}
	if info, err := os.Stat(i.path("PG_VERSION")); err == nil && info.Mode().Perm()&0o040 != 0 {
		if err := os.Chmod(i.opt.DataDir, 0o750); err != nil {
			return err
		}
	}
	if err := errors.Join(os.Remove(work), durable.SyncDir(i.opt.DataDir)); err != nil {
		return err
	}
	_, err = durable.Remove(i.path(markerFile))
	return err
}
