// Package durable changes files so that after a crash of the system there is the old or the new state, never one between
// (temporary file, fsync, rename, fsync of the directory).
package durable

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Replace puts contents at path; own gives the file to its owner before it takes its place. It reports whether the
// contents are new; nothing is written when they are not.
func Replace(path string, contents []byte, mode fs.FileMode, own func(path string) error) (bool, error) {
	old, err := os.ReadFile(path)
	if err == nil && bytes.Equal(old, contents) {
		return false, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("read %s: %w", path, err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return false, fmt.Errorf("write %s: %w", path, err)
	}
	defer os.Remove(f.Name())
	if err := fillTemp(f, contents, mode, own); err != nil {
		return false, fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return false, fmt.Errorf("write %s: %w", path, err)
	}
	return true, SyncDir(filepath.Dir(path))
}

func fillTemp(f *os.File, contents []byte, mode fs.FileMode, own func(path string) error) error {
	_, err := f.Write(contents)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = own(f.Name())
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// Remove removes a file durably; one that is not there is fine.
func Remove(path string) (bool, error) {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, SyncDir(filepath.Dir(path))
}

// SyncDir makes the entries of a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// SyncTree writes the file system of dir to disk (syncfs(2), as PostgreSQL 17's sync-method=syncfs does): one call
// instead of one for each of thousands of files. Kernels before 5.8 do not report write errors by it.
func SyncTree(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}
