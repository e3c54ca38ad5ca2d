package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// DiskKind is what stands at the path of the data directory.
type DiskKind int

// The kinds of a data directory.
const (
	DiskAbsent     DiskKind = iota // no such directory
	DiskEmpty                      // a directory without entries
	DiskUnfinished                 // our marker: everything in it is an unfinished copy or initdb of ours
	DiskData                       // a data directory
	DiskForeign                    // not empty, and not a data directory
)

// String is the kind in a word.
func (k DiskKind) String() string {
	return [...]string{"absent", "empty", "unfinished", "data", "foreign"}[k]
}

// Disk is what Inspect saw.
type Disk struct {
	Kind          DiskKind
	Control       Control // for DiskData
	StandbySignal bool
	// Torn: a rewind, or the moving aside of tablespaces, began here and did not end. The data must not be started, only moved aside and replaced.
	Torn bool
	// Copy: a base backup that was never started (it has a backup_label); it can only become a standby.
	Copy bool
}

const (
	markerFile = "haven.unfinished" // inside the data directory, while it is being filled
	workDir    = "haven.new-*"      // inside the data directory: where it is filled
)

// Inspect looks at the data directory without changing anything. A directory that cannot be read, or whose control
// file is damaged, is an error: nothing may be concluded about it.
func (i *Instance) Inspect() (Disk, error) {
	dir := i.opt.DataDir
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return Disk{Kind: DiskAbsent}, nil
	}
	if err != nil {
		return Disk{}, fmt.Errorf("look at the data directory: %w", err)
	}
	if len(entries) == 0 {
		return Disk{Kind: DiskEmpty}, nil
	}
	if exists(i.path(markerFile)) || exists(i.fillingMarker()) {
		return Disk{Kind: DiskUnfinished}, nil
	}
	if !exists(i.path("PG_VERSION")) {
		return Disk{Kind: DiskForeign}, nil
	}
	d := Disk{Kind: DiskData, StandbySignal: exists(i.path("standby.signal")), Torn: exists(i.tornMarker()), Copy: exists(i.path("backup_label"))}
	d.Control, err = readControl(dir)
	return d, err
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// CheckDataDir tells what would keep PostgreSQL from running in dir as acct (nil: as the user we are): not a directory,
// another owner, a mode other than 0700 or 0750 (PostgreSQL manual, "Creating a Database Cluster"), a read-only mount.
// An absent directory is fine if the nearest existing parent is not read-only.
func CheckDataDir(dir string, acct *Account) error {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return checkMount(dir, nearestParent(dir))
	}
	if err != nil {
		return fmt.Errorf("data directory %s cannot be looked at: %w", dir, err)
	}
	if !info.IsDir() {
		return fmt.Errorf("data directory %s is a file, not a directory: move it away, or set postgresql.data_dir to another path", dir)
	}
	want, name := os.Geteuid(), fmt.Sprintf("uid %d", os.Geteuid())
	if acct != nil {
		want, name = acct.UID, acct.Name
	}
	if uid := ownerOf(info); uid != want {
		return fmt.Errorf("data directory %s belongs to uid %d, but PostgreSQL runs as %s (uid %d): chown -R %d %s", dir, uid, name, want, want, dir)
	}
	if mode := info.Mode().Perm(); mode != 0o700 && mode != 0o750 {
		return fmt.Errorf("data directory %s has mode %04o, and PostgreSQL accepts only 0700 and 0750: chmod 0700 %s", dir, mode, dir)
	}
	return checkMount(dir, dir)
}

func nearestParent(dir string) string {
	for dir != filepath.Dir(dir) && !exists(dir) {
		dir = filepath.Dir(dir)
	}
	return dir
}

func checkMount(dir, at string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(at, &st); err != nil {
		return fmt.Errorf("data directory %s: statfs %s: %w", dir, at, err)
	}
	if st.Flags&unix.ST_RDONLY != 0 {
		return fmt.Errorf("data directory %s is on a file system that is mounted read-only: remount it read-write, or set postgresql.data_dir to another path", dir)
	}
	return nil
}
