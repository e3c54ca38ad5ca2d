package shmem_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/havenha/haven/internal/postgres/pgtest"
	"github.com/havenha/haven/internal/postgres/pidfile"
	"github.com/havenha/haven/internal/postgres/shmem"
	"golang.org/x/sys/unix"
)

// A killed server leaves a segment and files of dynamic shared memory. They are released once it is dead, and only then;
// what is another directory's stays.
func TestReleaseAfterAKill(t *testing.T) {
	for _, dir := range pgtest.BinDirs() {
		t.Run(filepath.Base(filepath.Dir(dir)), func(t *testing.T) {
			o := pgtest.Options(t, "a")
			o.BinDir = dir
			settings := pgtest.Settings()
			settings.Parameters["dynamic_shared_memory_type"] = "posix"
			i := pgtest.PrimaryWith(t, o, settings)
			f, err := pidfile.Read(o.DataDir)
			pgtest.Must(t, err)

			if err := shmem.Release(o.DataDir); !errors.Is(err, shmem.ErrAttached) {
				t.Errorf("with the server running: %v", err)
			}
			files := mapped(t, f.PID)
			if len(files) == 0 {
				t.Fatal("the server maps no dynamic shared memory")
			}
			pgtest.Must(t, i.Kill(pgtest.Context(t)))
			if !there(f.Segment) || len(kept(files)) == 0 {
				t.Fatal("a killed server leaves nothing behind: then there is nothing to release")
			}
			pgtest.Must(t, shmem.ReleaseBelow(filepath.Dir(o.DataDir)))
			if there(f.Segment) {
				t.Errorf("segment %d is still there", f.Segment)
			}
			if left := kept(files); len(left) > 0 {
				t.Errorf("still there: %v", left)
			}
			pgtest.Must(t, shmem.Release(o.DataDir)) // twice is no error
			_, err = i.Start(pgtest.Context(t), settings)
			pgtest.Must(t, err)
		})
	}
}

// TestReleaseLeavesAnothersSegment: what a stale postmaster.pid names may be another server's by now.
func TestReleaseLeavesAnothersSegment(t *testing.T) {
	o := pgtest.Options(t, "a")
	i := pgtest.Primary(t, o)
	raw, err := os.ReadFile(filepath.Join(o.DataDir, "postmaster.pid"))
	pgtest.Must(t, err)
	f, err := pidfile.Read(o.DataDir)
	pgtest.Must(t, err)
	pgtest.Must(t, i.Kill(pgtest.Context(t)))
	other := t.TempDir()
	pgtest.Must(t, os.WriteFile(filepath.Join(other, "postmaster.pid"), raw, 0o600))
	if err := shmem.Release(other); err != nil || !there(f.Segment) {
		t.Errorf("the segment of another directory: there %v, %v", there(f.Segment), err)
	}
}

func there(segment int) bool {
	var d unix.SysvShmDesc
	_, err := unix.SysvShmCtl(segment, unix.IPC_STAT, &d)
	return err == nil
}

// mapped are the files of dynamic shared memory that a process has mapped.
func mapped(t *testing.T, pid int) []string {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	pgtest.Must(t, err)
	var files []string
	for line := range strings.Lines(string(raw)) {
		if at := strings.Index(line, "/dev/shm/PostgreSQL."); at >= 0 {
			files = append(files, strings.TrimSpace(line[at:]))
		}
	}
	return files
}

func kept(files []string) []string {
	return slices.DeleteFunc(slices.Clone(files), func(f string) bool {
		_, err := os.Stat(f)
		return err != nil
	})
}
