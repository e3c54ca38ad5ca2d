package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/havenha/haven/internal/dcs/dcstest"
	"github.com/havenha/haven/internal/dcs/etcd"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// guide is how an article sets a cluster up: the environment of each member, and a file if it has one.
type guide struct {
	name, scope, file string
	members           []string
	env               func(t *testing.T, member int) []string
}

// guideEnv reads a file of NAME=value lines of a guide, and fills its ${…} in.
func guideEnv(t *testing.T, name string, fill map[string]string) []string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join("../testdata/guides", name))
	if err != nil {
		t.Fatal(err)
	}
	filled := os.Expand(string(content), func(k string) string { return fill[k] })
	return strings.Split(strings.TrimSpace(filled), "\n")
}

func guides() []guide {
	passwords := []string{"PATRONI_SUPERUSER_PASSWORD=a", "PATRONI_REPLICATION_PASSWORD=b"}
	return []guide{
		{"database-ha-article", "ha_cluster", "", []string{"pg1", "pg2"}, func(t *testing.T, n int) []string {
			return append(guideEnv(t, fmt.Sprintf("database-ha-article/patroni%d.env", n), nil), passwords...)
		}},
		{"firebackup", "main", "", []string{"patroni1", "patroni2", "patroni3"}, func(t *testing.T, n int) []string {
			return guideEnv(t, fmt.Sprintf("firebackup/patroni%d.env", n), map[string]string{"REPLICATION_PASSWORD": "b", "POSTGRES_PASSWORD": "a"})
		}},
		{"postgres-ha-two-servers", "minesweeper", "patroni-synchronous.yml", []string{"postgres1", "postgres2"}, func(t *testing.T, n int) []string {
			set := map[string]string{}
			for _, line := range guideEnv(t, "postgres-ha-two-servers/postgres-ha.env", nil) {
				k, v, _ := strings.Cut(line, "=")
				set[k] = v
			}
			return []string{
				fmt.Sprintf("PATRONI_NAME=postgres%d", n), "PATRONI_SCOPE=minesweeper", "PATRONI_SUPERUSER_USERNAME=" + set["POSTGRES_SUPERUSER"],
				"PATRONI_SUPERUSER_PASSWORD=" + set["POSTGRES_SUPERUSER_PASSWORD"], "PATRONI_REPLICATION_PASSWORD=" + set["REPLICATION_PASSWORD"],
			}
		}},
	}
}

// TestEveryGuideStartsACluster starts a cluster from the environment or file of each guide, on one etcd: what is exchanged
// is addresses and directories, what is added the passwords that a guide leaves out.
func TestEveryGuideStartsACluster(t *testing.T) {
	endpoint := dcstest.StartEtcd(t)
	for _, g := range guides() {
		t.Run(g.name, func(t *testing.T) {
			store, err := etcd.Open(etcd.Options{Endpoints: []string{endpoint}, Scope: g.scope, RetryTimeout: 3 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { store.Close() })
			c := &testCluster{t: t, store: store, nodes: map[string]*exec.Cmd{}}
			c.plan.Dir, c.plan.Members, c.plan.Nodes = openDir(t), g.members, g.members
			c.giveAway(c.plan.Dir)
			t.Cleanup(c.end)
			for i, name := range g.members {
				env := g.env(t, i+1)
				c.runGuide(g, name, append(env, places(t, c, name, storeVariable(env)+strings.TrimPrefix(endpoint, "http://"))...))
			}
			s := c.await("all members stream", c.healthy)
			t.Logf("%s leads", s.Leader.Name)
		})
	}
}

// TestEveryGuideIsStarted: each file of a guide belongs to a test that starts what it describes.
func TestEveryGuideIsStarted(t *testing.T) {
	started := map[string]bool{
		"minusnow/patroni.yml": true, "minusnow/patroni-replica.yml": true, // TestPatroniFileOfAGuideStartsACluster
		"minusnow/haproxy-database.cfg":           true, // TestGenuineToolsWork
		"postgres-ha-two-servers/postgres-ha.env": true,
	}
	for _, g := range guides() {
		if g.file != "" {
			started[g.name+"/"+g.file] = true
			continue
		}
		for n := range g.members {
			started[fmt.Sprintf("%s/patroni%d.env", g.name, n+1)] = true
		}
	}
	files, err := filepath.Glob("../testdata/guides/*/*")
	if err != nil || len(files) < len(started) {
		t.Fatalf("%d files of guides for %d that are started: %v", len(files), len(started), err)
	}
	for _, f := range files {
		if name := filepath.Join(filepath.Base(filepath.Dir(f)), filepath.Base(f)); !started[name] {
			t.Errorf("nothing starts a cluster from %s", name)
		}
	}
}

// storeVariable is the variable by which a guide names its etcd.
func storeVariable(env []string) string {
	if slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "PATRONI_ETCD_HOSTS=") }) {
		return "PATRONI_ETCD_HOSTS="
	}
	return "PATRONI_ETCD3_HOSTS="
}

// places are the variables that exchange the hosts and directories of a guide for the test's.
func places(t *testing.T, c *testCluster, name, store string) []string {
	t.Helper()
	sql, rest := dcstest.FreeAddress(t), dcstest.FreeAddress(t)
	return []string{
		"PATRONI_POSTGRESQL_LISTEN=" + sql, "PATRONI_POSTGRESQL_CONNECT_ADDRESS=" + sql, "PATRONI_RESTAPI_LISTEN=" + rest, "PATRONI_RESTAPI_CONNECT_ADDRESS=" + rest,
		"PATRONI_POSTGRESQL_DATA_DIR=" + filepath.Join(c.plan.Dir, name), store,
		"PATRONI_POSTGRESQL_BIN_DIR=" + pgtest.BinDirs()[0],
	}
}

// runGuide runs a member with that environment, and the guide's file.
func (c *testCluster) runGuide(g guide, name string, env []string) {
	c.t.Helper()
	args := []string{"run"}
	if g.file != "" {
		path := filepath.Join(c.plan.Dir, g.file)
		content, err := os.ReadFile(filepath.Join("../testdata/guides", g.name, g.file))
		if err == nil {
			err = os.WriteFile(path, content, 0o644)
		}
		if err != nil {
			c.t.Fatal(err)
		}
		args = append(args, path)
	}
	log, err := os.Create(c.logPath(name))
	if err != nil {
		c.t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(binary(c.t), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = c.plan.Dir, log, log
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.plan.Dir}, env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: c.account}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.nodes[name] = cmd
	go cmd.Wait()
}
