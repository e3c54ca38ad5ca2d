package postgres

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

func ownerOf(info fs.FileInfo) int {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return int(st.Uid)
	}
	return -1
}

// chown gives a path to RunAs; without RunAs it is ours already.
func (i *Instance) chown(path string) error {
	if a := i.opt.RunAs; a != nil && os.Geteuid() == 0 {
		return os.Lchown(path, a.UID, a.GID)
	}
	return nil
}

// replaceFile puts contents at path atomically and durably, owned by RunAs. It reports whether the contents are new;
// nothing is written when they are not.
func (i *Instance) replaceFile(path string, contents []byte, mode fs.FileMode) (bool, error) {
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
	if err := i.fillTemp(f, contents, mode); err != nil {
		return false, fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return false, fmt.Errorf("write %s: %w", path, err)
	}
	return true, syncDir(filepath.Dir(path))
}

func (i *Instance) fillTemp(f *os.File, contents []byte, mode fs.FileMode) error {
	_, err := f.Write(contents)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = i.chown(f.Name())
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// removeFile removes a file durably; one that is not there is fine.
func removeFile(path string) (bool, error) {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// fileMode is the mode for files in the data directory: readable by the group when the directory is (initdb
// --allow-group-access).
func (i *Instance) fileMode() fs.FileMode {
	if info, err := os.Stat(i.opt.DataDir); err == nil && info.Mode().Perm()&0o040 != 0 {
		return 0o640
	}
	return 0o600
}
