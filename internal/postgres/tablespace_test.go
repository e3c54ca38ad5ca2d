package postgres_test

import (
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
