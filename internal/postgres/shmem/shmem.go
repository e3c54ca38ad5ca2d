// Package shmem releases the shared memory that a killed server has left behind. A server that starts in the same data
// directory does so by itself; where the directory is set aside or deleted nobody would, and the kernel's table of System
// V segments holds 4,096 (kernel.shmmni), after which no server starts on that host.
//
// A server has one small segment of System V, which shows by its attachments whether processes of the server live, and
// whose header (struct PGShmemHeader in storage/pg_shmem.h) names the data directory's device and inode and the control
// segment of the dynamic shared memory. That is a file in /dev/shm (struct dsm_control_header in storage/ipc/dsm.c) which
// lists the other files.
package shmem

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/havenha/haven/internal/postgres/pidfile"
	"golang.org/x/sys/unix"
)

const (
	magic        = 679834894
	magicDynamic = 0x9a503d32

	atControl = 24 // offset of the dynamic control segment's handle in the header; device and inode are its last words
	smallest  = 48 // header, in bytes
	largest   = 4096

	firstItem = 16 // offset of the first item of the control segment
)

// memory is where Linux keeps POSIX shared memory (shm_overview(7)).
const memory = "/dev/shm"

// ErrAttached says that a process still uses the segment: the server is not dead.
var ErrAttached = errors.New("processes are attached to the server's shared memory")

// Release removes what the server of the data directory dir has left: the segment that its postmaster.pid names, and the
// files of its dynamic shared memory. A segment that is gone, or that belongs to another directory, is no error.
func Release(dir string) error {
	f, err := pidfile.Read(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && f.Segment < 0 {
		return nil // it was shut down in good order
	}
	if err != nil {
		return fmt.Errorf("shared memory of %s: %w", dir, err)
	}
	segment := f.Segment
	var d unix.SysvShmDesc
	if _, err := unix.SysvShmCtl(segment, unix.IPC_STAT, &d); err != nil {
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EIDRM) || errors.Is(err, unix.EACCES) {
			return nil // gone, and the identifier perhaps another's by now
		}
		return fmt.Errorf("shared memory segment %d: %w", segment, err)
	}
	if d.Segsz < smallest || d.Segsz > largest {
		return nil
	}
	control, ours, err := header(dir, segment)
	if err != nil || !ours {
		return err
	}
	if d.Nattch > 0 {
		return fmt.Errorf("shared memory segment %d: %w", segment, ErrAttached)
	}
	dynamic := releaseDynamic(control)
	if _, err := unix.SysvShmCtl(segment, unix.IPC_RMID, nil); err != nil && !errors.Is(err, unix.EINVAL) {
		return errors.Join(dynamic, fmt.Errorf("remove shared memory segment %d: %w", segment, err))
	}
	return dynamic
}

// RemoveAll deletes a directory, and what servers that were killed in it have left.
func RemoveAll(dir string) error {
	return errors.Join(ReleaseBelow(dir), os.RemoveAll(dir))
}

// ReleaseBelow does so for every data directory below root, which is about to be deleted.
func ReleaseBelow(root string) error {
	var errs error
	walk := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil // what cannot be read, or has gone meanwhile, is not ours to judge
		}
		if _, err := os.Stat(filepath.Join(path, "PG_VERSION")); err != nil {
			return nil
		}
		errs = errors.Join(errs, Release(path))
		return fs.SkipDir
	})
	return errors.Join(errs, walk)
}

// header reads the handle of the dynamic control segment, and whether the segment is that of the server in dir.
func header(dir string, segment int) (control uint32, ours bool, err error) {
	info, err := os.Stat(dir)
	if err != nil {
		return 0, false, err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false, nil
	}
	raw, err := unix.SysvShmAttach(segment, 0, unix.SHM_RDONLY)
	if err != nil {
		return 0, false, fmt.Errorf("attach shared memory segment %d: %w", segment, err)
	}
	device, inode := word64(raw[len(raw)-16:]), word64(raw[len(raw)-8:])
	ours = word32(raw) == magic && device == st.Dev && inode == st.Ino
	control = word32(raw[atControl:])
	return control, ours, unix.SysvShmDetach(raw)
}

// releaseDynamic removes the files of dynamic shared memory that the control segment lists, and itself. There are none
// where dynamic_shared_memory_type is another than posix.
func releaseDynamic(control uint32) error {
	if control == 0 {
		return nil
	}
	raw, err := os.ReadFile(file(control))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("dynamic shared memory: %w", err)
	}
	if len(raw) < firstItem || word32(raw) != magicDynamic || word32(raw[8:]) == 0 {
		return nil
	}
	used, room := int(word32(raw[4:])), int(word32(raw[8:]))
	item := (len(raw) - firstItem) / room // its size differs between major versions
	var errs error
	for n := range min(used, room) {
		at := firstItem + n*item
		if item < 8 || at+8 > len(raw) {
			break
		}
		if handle, uses := word32(raw[at:]), word32(raw[at+4:]); uses > 0 {
			errs = errors.Join(errs, removed(file(handle)))
		}
	}
	return errors.Join(errs, removed(file(control)))
}

func removed(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func file(handle uint32) string {
	return filepath.Join(memory, "PostgreSQL."+strconv.FormatUint(uint64(handle), 10))
}

func word32(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }
func word64(b []byte) uint64 { return binary.NativeEndian.Uint64(b) }
