package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/dcs/dcstest"
	"github.com/havenha/haven/internal/dcs/etcd"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// TestPatroniFileOfAGuideStartsACluster runs two members from a guide's two files, unchanged but for addresses,
// directories and the passwords, on an external etcd 3.4, and lets the genuine patronictl switch over.
func TestPatroniFileOfAGuideStartsACluster(t *testing.T) {
	patronictl := need(t, "patronictl")
	endpoint := dcstest.StartEtcd(t)
	d := newDay(t)
	if a := pgtest.Account(t); a != nil { // as another user the state goes below its home, not to the system's
		d.as = &syscall.Credential{Uid: uint32(a.UID), Gid: uint32(a.GID)}
	}
	files := map[string]string{}
	for _, name := range []string{"pg-node1", "pg-node2"} {
		files[name] = guideFile(t, d, name, endpoint)
	}
	d.own(d.dir)
	store, err := etcd.Open(etcd.Options{Endpoints: []string{endpoint}, Scope: "minusnow-cluster"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	c := &testCluster{t: t, store: store, nodes: map[string]*exec.Cmd{}}
	c.plan.Members = []string{"pg-node1", "pg-node2"}
	for _, name := range c.plan.Members {
		d.file = files[name]
		d.run()
	}
	s := c.await("two members, one synchronous", c.synchronous)
	old := s.Leader.Name
	out, err := exec.Command(patronictl, "-c", files[old], "switchover", "--force").CombinedOutput()
	if err != nil {
		t.Fatalf("patronictl switchover: %v: %s", err, out)
	}
	t.Logf("\n%s", out)
	s = c.await("the other leads", func(s cluster.Snapshot) bool { return c.healthy(s) && s.Leader.Name != old })
	out, err = exec.Command(patronictl, "-c", files[old], "list").CombinedOutput()
	if err != nil {
		t.Fatalf("patronictl list: %v: %s", err, out)
	}
	contains(t, string(out), "Cluster: minusnow-cluster", "pg-node1", "pg-node2", "Leader")
}

// guideFile is the guide's file with what belongs to the guide's hosts exchanged.
func guideFile(t *testing.T, d *day, name, endpoint string) string {
	t.Helper()
	guide := map[string]string{"pg-node1": "patroni.yml", "pg-node2": "patroni-replica.yml"}[name]
	b, err := os.ReadFile("../testdata/guides/minusnow/" + guide)
	if err != nil {
		t.Fatal(err)
	}
	sql, rest := dcstest.FreeAddress(t), dcstest.FreeAddress(t)
	dir := filepath.Join(d.dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	d.own(dir)
	text := strings.NewReplacer(
		"0.0.0.0:8008", rest, "10.0.2.10:8008", rest, "0.0.0.0:5432", sql, "10.0.2.10:5432", sql, "10.0.2.11:8008", rest, "10.0.2.11:5432", sql,
		"10.0.2.10:2379,10.0.2.11:2379", strings.TrimPrefix(endpoint, "http://"),
		"/var/lib/postgresql/16/main", filepath.Join(dir, "main"), "/usr/lib/postgresql/16/bin", pgtest.BinDirs()[0],
		"/var/run/postgresql", dir, "<postgres-password>", "one-two-three", "<replicator-password>", "four-five-six",
	).Replace(string(b))
	file := filepath.Join(d.dir, name+".yml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
