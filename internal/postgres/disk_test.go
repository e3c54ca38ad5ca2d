package postgres_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
	"github.com/havenha/haven/internal/postgres/programs"
	"golang.org/x/sys/unix"
)

func TestMoveAsideKeepsEverything(t *testing.T) {
	o := pgtest.Options(t, "a")
	a := pgtest.New(t, o)
	pgtest.Init(t, a, o)
	seen := map[string]bool{}
	for range 2 {
		pgtest.Must(t, os.WriteFile(filepath.Join(o.DataDir, "PG_VERSION"), []byte("15\n"), 0o600))
		to, err := a.MoveAside()
		pgtest.Must(t, err)
		if seen[to] || !strings.HasSuffix(to, ".aside") || filepath.Dir(to) != filepath.Dir(o.DataDir) {
			t.Errorf("moved to %s", to)
		}
		seen[to] = true
		if _, err := os.Stat(filepath.Join(to, "PG_VERSION")); err != nil {
			t.Errorf("the data is not there: %v", err)
		}
		if d, err := a.Inspect(); err != nil || d.Kind != postgres.DiskEmpty {
			t.Errorf("in its place is %v, %v", d.Kind, err)
		}
		pgtest.Must(t, postgres.CheckDataDir(o.DataDir, o.RunAs))
	}
}

func TestMoveAsideRefusesWhileTheServerRuns(t *testing.T) {
	o := pgtest.Options(t, "a")
	a := pgtest.Primary(t, o)
	if _, err := a.MoveAside(); err == nil || !strings.Contains(err.Error(), "still run") {
		t.Errorf("moving a running server's directory: %v", err)
	}
}

func TestFailedInitDBLeavesNothing(t *testing.T) {
	o := pgtest.Options(t, "a")
	o.InitDB = []string{"--encoding=KLINGON"}
	a := pgtest.New(t, o)
	if err := a.InitDB(pgtest.Context(t)); err == nil || !strings.Contains(err.Error(), "KLINGON") {
		t.Errorf("initdb with a wrong option: %v", err)
	}
	if d, err := a.Inspect(); err != nil || d.Kind != postgres.DiskAbsent {
		t.Errorf("it left %v, %v", d.Kind, err)
	}
}

func TestCheckDataDir(t *testing.T) {
	acct := pgtest.Account(t)
	if acct == nil {
		t.Skip("owners can only be changed by root")
	}
	dir := pgtest.Dir(t)
	own := func(mode os.FileMode, uid int) func(string) {
		return func(p string) {
			pgtest.Must(t, os.Mkdir(p, 0o700))
			pgtest.Must(t, os.Chmod(p, mode))
			pgtest.Must(t, os.Chown(p, uid, -1))
		}
	}
	for _, c := range []struct {
		name, want string
		make       func(path string)
	}{
		{"absent", "", func(string) {}},
		{"fine", "", own(0o700, acct.UID)},
		{"group", "", own(0o750, acct.UID)},
		{"open", "has mode 0755", own(0o755, acct.UID)},
		{"root's", "belongs to uid 0", own(0o700, 0)},
		{"file", "is a file, not a directory", func(p string) { pgtest.Must(t, os.WriteFile(p, nil, 0o600)) }},
		{"readonly", "mounted read-only", func(p string) {
			pgtest.Must(t, os.Mkdir(p, 0o700))
			if err := unix.Mount("tmpfs", p, "tmpfs", unix.MS_RDONLY, "mode=0700,uid="+strconv.Itoa(acct.UID)); err != nil {
				t.Skipf("this machine lets us mount nothing: %v", err)
			}
			t.Cleanup(func() { _ = unix.Unmount(p, 0) })
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(dir, c.name)
			c.make(path)
			err := postgres.CheckDataDir(path, acct)
			if (c.want == "") != (err == nil) || (err != nil && !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if c.name == "readonly" {
				_ = unix.Unmount(path, 0)
			}
		})
	}
}

func TestNewSaysWhatItLookedFor(t *testing.T) {
	_, err := postgres.New(postgres.Options{DataDir: "/x", BinDir: "/nowhere"})
	if err == nil || !strings.Contains(err.Error(), "program postgres is not in /nowhere") {
		t.Errorf("got %v", err)
	}
	_, err = programs.Find(3)
	if err == nil || !strings.Contains(err.Error(), "no PostgreSQL 3 server was found") {
		t.Errorf("got %v", err)
	}
}
