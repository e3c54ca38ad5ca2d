package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/havenha/haven/internal/postgres/durable"
	"github.com/havenha/haven/internal/postgres/shmem"
)

// MoveAside renames a data directory that holds something to <dir>.<time>.aside in the same parent, leaves an empty
// directory of the same owner and mode in its place, and returns the new path. Tablespaces outside are set aside in the
// same way, and the links in the directory set aside lead to them. Nothing is deleted. The server must not run.
func (i *Instance) MoveAside() (string, error) {
	dir, err := filepath.EvalSymlinks(i.opt.DataDir)
	if err != nil {
		return "", fmt.Errorf("move the data directory aside: %w", err)
	}
	pids, err := i.Processes()
	if err != nil {
		return "", fmt.Errorf("move the data directory aside: %w", err)
	}
	if len(pids) > 0 {
		return "", fmt.Errorf("move the data directory aside: processes %v still run in it", pids)
	}
	links, err := tablespaceLinks(dir)
	if err != nil {
		return "", fmt.Errorf("move the data directory aside: %w", err)
	}
	stamp := time.Now().UTC().Format("20060102T150405Z")
	if err := i.moveTablespaces(dir, links, stamp); err != nil {
		return "", err
	}
	to, err := i.setAside(dir, stamp)
	if err != nil {
		return "", err
	}
	if _, err := durable.Remove(i.tornMarker()); err != nil {
		return to, fmt.Errorf("move the data directory aside: %w", err)
	}
	if err := shmem.Release(to); err != nil {
		i.log.Warn("shared memory of the server that was moved aside remains", "error", err)
	}
	i.log.Warn("data directory moved aside", "from", i.opt.DataDir, "to", to)
	return to, nil
}

// moveTablespaces sets tablespaces aside, before the data directory is: should the first of them refuse, everything is still where it
// was, and whole. From then on until the data directory stands aside itself, a link in it may lead to an empty directory: it is
// marked as torn, so that it is never started.
func (i *Instance) moveTablespaces(dir string, links map[string]string, stamp string) error {
	if len(links) == 0 {
		return nil
	}
	before := exists(i.tornMarker())
	if err := i.markTorn(); err != nil {
		return fmt.Errorf("mark the data directory before its tablespaces are moved aside: %w", err)
	}
	for n, link := range slices.Sorted(maps.Keys(links)) {
		moved, err := i.setAside(links[link], stamp)
		if err != nil && moved == "" && n == 0 && !before {
			_, unmarked := durable.Remove(i.tornMarker())
			return errors.Join(err, unmarked)
		}
		path := filepath.Join(dir, "pg_tblspc", link)
		if err == nil {
			err = errors.Join(os.Remove(path), os.Symlink(moved, path), i.chown(path))
		}
		if err != nil {
			return fmt.Errorf("move tablespace %s aside: %w", links[link], err)
		}
	}
	return nil
}

// tablespaceLinks are the links in pg_tblspc, with the directories outside that they lead to.
func tablespaceLinks(dir string) (map[string]string, error) {
	entries, err := os.ReadDir(filepath.Join(dir, "pg_tblspc"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	links := map[string]string{}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, "pg_tblspc", e.Name()))
		if err == nil && filepath.IsAbs(target) && exists(target) {
			links[e.Name()] = target
		}
	}
	return links, nil
}

// setAside renames one directory and puts an empty one like it in its place. With an error it returns the new path if it was renamed.
func (i *Instance) setAside(dir, stamp string) (string, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return "", fmt.Errorf("move %s aside: %w", dir, err)
	}
	to := fmt.Sprintf("%s.%s.aside", dir, stamp)
	for n := 2; exists(to); n++ {
		to = fmt.Sprintf("%s.%s-%d.aside", dir, stamp, n)
	}
	err = os.Rename(dir, to)
	switch {
	case errors.Is(err, syscall.EBUSY), errors.Is(err, syscall.EXDEV):
		return "", fmt.Errorf("move %s aside: it is the root of a mounted file system and cannot be renamed, so its data cannot be kept and replaced: put the directory one level below the mount point: %w", dir, err)
	case errors.Is(err, fs.ErrPermission):
		return "", fmt.Errorf("move %s aside: its parent directory may not be written: give %s to the user who runs this, or move the directory by hand: %w", dir, filepath.Dir(dir), err)
	case err != nil:
		return "", fmt.Errorf("move %s aside: %w", dir, err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return to, fmt.Errorf("move %s aside: make an empty one in its place: %w", dir, err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		if err := os.Chown(dir, int(st.Uid), int(st.Gid)); err != nil {
			return to, fmt.Errorf("move %s aside: %w", dir, err)
		}
	}
	return to, errors.Join(os.Chmod(dir, info.Mode().Perm()), durable.SyncDir(filepath.Dir(dir)))
}
