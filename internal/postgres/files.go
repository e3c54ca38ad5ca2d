package postgres

import (
	"io/fs"
	"os"
	"syscall"

	"github.com/havenha/haven/internal/postgres/durable"
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

func (i *Instance) replaceFile(path string, contents []byte, mode fs.FileMode) (bool, error) {
	return durable.Replace(path, contents, mode, i.chown)
}

// fileMode is the mode for files in the data directory: readable by the group when the directory is (initdb
// --allow-group-access).
func (i *Instance) fileMode() fs.FileMode {
	if info, err := os.Stat(i.opt.DataDir); err == nil && info.Mode().Perm()&0o040 != 0 {
		return 0o640
	}
	return 0o600
}
