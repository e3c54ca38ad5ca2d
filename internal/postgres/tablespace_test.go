package postgres_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
	"golang.org/x/sys/unix"
)

// TestHelperOtherHost is not a test: it copies a database in a mount namespace in which the tablespace's place is free,
// as it is on another host (see TestCloneWithTablespace).
func TestHelperOtherHost(t *testing.T) {
	raw := os.Getenv("PGTEST_CLONE")
	if raw == "" {
		t.Skip("only run by TestCloneWithTablespace")
	}
	var job struct {
		Options  postgres.Options
		Upstream postgres.Upstream
		Place    string
	}
	pgtest.Must(t, json.Unmarshal([]byte(raw), &job))
	if err := unix.Mount("tmpfs", job.Place, "tmpfs", 0, "mode=0755"); err != nil {
		fmt.Println("NO MOUNT")
		return
	}
	i, err := postgres.New(job.Options)
	pgtest.Must(t, err)
	pgtest.Must(t, i.Clone(pgtest.Context(t), job.Upstream, nil))
	to, err := i.MoveAside()
	pgtest.Must(t, err)
	links, err := filepath.Glob(filepath.Join(to, "pg_tblspc", "*"))
	pgtest.Must(t, err)
	files, err := filepath.Glob(filepath.Join(links[0], "PG_*", "*", "*"))
	pgtest.Must(t, err)
	info, err := os.Stat(files[0])
	pgtest.Must(t, err)
	target, _ := os.Readlink(links[0])
	fmt.Printf("files=%d uid=%d aside=%v\n", len(files), info.Sys().(*syscall.Stat_t).Uid, strings.HasSuffix(target, ".aside"))
	// The same place serves the next copy.
	pgtest.Must(t, i.Clone(pgtest.Context(t), job.Upstream, nil))
	fmt.Println("COPIED AGAIN")
}

func TestCloneWithTablespace(t *testing.T) {
	forEachServer(t, func(t *testing.T, bin string) {
		ao, bo := pgtest.Options(t, "a"), pgtest.Options(t, "b")
		ao.BinDir, bo.BinDir = bin, bin
		if ao.RunAs == nil {
			t.Skip("mount namespaces need root")
		}
		pgtest.Primary(t, ao)
		place := pgtest.Dir(t)
		pgtest.Must(t, os.Mkdir(filepath.Join(place, "space"), 0o700))
		pgtest.Must(t, os.Chown(filepath.Join(place, "space"), ao.RunAs.UID, ao.RunAs.GID))
		sql(t, ao, "CREATE TABLESPACE s LOCATION '"+place+"/space'")
		sql(t, ao, "CREATE TABLE far (n int) TABLESPACE s")
		bo.Log = nil
		raw, err := json.Marshal(map[string]any{"Options": bo, "Upstream": pgtest.Upstream(ao, ""), "Place": place})
		pgtest.Must(t, err)
		cmd := exec.Command(os.Args[0], "-test.run=^TestHelperOtherHost$")
		cmd.Env = append(os.Environ(), "PGTEST_CLONE="+string(raw))
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		if strings.Contains(string(out), "NO MOUNT") || (err != nil && len(out) == 0) {
			t.Skipf("this machine lets us mount nothing: %v", err)
		}
		want := fmt.Sprintf("files=1 uid=%d aside=true\nCOPIED AGAIN\n", ao.RunAs.UID)
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("copy in another mount namespace: %v: %s", err, out)
		}
	})
}

// TestTablespaceThatStays: where a tablespace cannot be moved aside, the data directory is left whole if it is the first, and otherwise
// marked, so that it is not started over an empty tablespace.
func TestTablespaceThatStays(t *testing.T) {
	for name, c := range map[string]struct {
		links map[string]string // /proc cannot be renamed
		torn  bool
	}{
		"the first":  {map[string]string{"16001": "/proc", "16002": ""}, false},
		"the second": {map[string]string{"16001": "", "16002": "/proc"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			o := pgtest.Options(t, "a")
			i := pgtest.New(t, o)
			pgtest.Must(t, i.InitDB(pgtest.Context(t)))
			space := filepath.Join(pgtest.Dir(t), "space")
			pgtest.Must(t, os.Mkdir(space, 0o700))
			pgtest.Must(t, os.WriteFile(filepath.Join(space, "file"), nil, 0o600))
			for link, target := range c.links {
				pgtest.Must(t, os.Symlink(cmp.Or(target, space), filepath.Join(o.DataDir, "pg_tblspc", link)))
			}
			if to, err := i.MoveAside(); err == nil || to != "" {
				t.Fatalf("moved to %q, %v", to, err)
			}
			d, err := i.Inspect()
			pgtest.Must(t, err)
			if _, err := os.Stat(filepath.Join(space, "file")); d.Kind != postgres.DiskData || d.Torn != c.torn || (err != nil) != c.torn {
				t.Errorf("%+v; the tablespace: %v", d, err)
			}
		})
	}
}
