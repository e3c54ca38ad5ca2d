package postgres

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Room is what the file systems of the data directory and of pg_wal have left for the server's user, in bytes. It asks the
// system (statfs(2)), which a remote file system may answer late.
func (i *Instance) Room() (data, wal uint64, err error) {
	if data, err = free(nearestParent(i.opt.DataDir)); err != nil {
		return 0, 0, fmt.Errorf("room for data: %w", err)
	}
	if wal = data; exists(i.path("pg_wal")) {
		if wal, err = free(i.path("pg_wal")); err != nil {
			return 0, 0, fmt.Errorf("room for WAL: %w", err)
		}
	}
	return data, wal, nil
}

func free(path string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", path, err)
	}
	return st.Bavail * uint64(st.Bsize), nil
}
