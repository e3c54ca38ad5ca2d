package config

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

// host is the machine that tests pretend to be.
func host(path string, env ...string) Source {
	return Source{Path: path, Env: append([]string{"HOME=/home/alice"}, env...), WorkDir: "/work", Hostname: "db1.example.com",
		Addresses: []netip.Addr{netip.MustParseAddr("10.0.1.10")}}
}

// write puts a file into a temporary folder; its secrets/ holds the files a, b and c.
func write(t *testing.T, content string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "secrets"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"superuser", "replication", "restapi", "shop"} {
		save(t, filepath.Join(dir, "secrets", name), "s3cret-"+name+"\n", 0o600)
	}
	path := filepath.Join(dir, "haven.yml")
	save(t, path, content, 0o644)
	return path
}

func save(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func mustLoad(t *testing.T, src Source) (*Node, Report) {
	t.Helper()
	n, r := Load(src)
	if n == nil {
		t.Fatalf("load %s:\n%s", src.Path, r)
	}
	return n, r
}

func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		save(t, path, got, 0o644)
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

const databaseNode = `
haven: {format: 1}
scope: shop
etcd:
  embedded: true
  members: {db1: 10.0.1.10, db2: 10.0.1.11, coordinator: 10.0.1.12}
postgresql:
  data_dir: /var/lib/haven/shop
  authentication:
    superuser:   {password_file: secrets/superuser}
    replication: {password_file: secrets/replication}
restapi:
  authentication: {username: haven, password_file: secrets/restapi}
bootstrap:
  databases:
    - {name: shop, owner: shop, password_file: secrets/shop}
  dcs:
    postgresql: {parameters: {max_connections: 200}}
proxy: {}
`

func TestTheSameFileServesBothDatabaseNodes(t *testing.T) {
	path := write(t, databaseNode)
	for _, node := range []struct{ name, address, first string }{{"db1", "10.0.1.10", "10.0.1.10:2379"}, {"db2", "10.0.1.11", "10.0.1.11:2379"}} {
		src := host(path)
		src.Hostname, src.Root, src.Addresses = node.name, true, nil
		n, r := mustLoad(t, src)
		if len(r.Faults) > 0 {
			t.Errorf("%s: unexpected faults:\n%s", node.name, r)
		}
		got := fmt.Sprintln(n.Name, n.Roles(), n.Postgres.Listen, n.Postgres.ConnectAddress, n.RESTAPI.ConnectAddress, n.Etcd.Hosts[0], n.Postgres.RunAs, n.Dir())
		want := fmt.Sprintln(node.name, []string{"etcd", "postgresql", "proxy"}, "localhost,"+node.address+":5432", node.address+":5432", node.address+":8008", node.first, "postgres", "/var/lib/haven/nodes/shop/"+node.name)
		if got != want {
			t.Errorf("got  %swant %s", got, want)
		}
		if n.Postgres.Superuser.Password != "s3cret-superuser" || n.Bootstrap.Databases[0].Password != "s3cret-shop" {
			t.Errorf("secrets were not read without their line breaks: %q", n.Postgres.Superuser.Password)
		}
		if string(DefaultDCS(n.Format, n.Bootstrap)) != `{"postgresql":{"parameters":{"max_connections":200}},"synchronous_mode":true}` {
			t.Errorf("bootstrap would store %s", DefaultDCS(n.Format, n.Bootstrap))
		}
	}
}

func TestOneFileForAWholeCluster(t *testing.T) {
	path := write(t, `
haven: {format: 1, state_dir: ./demo}
scope: demo
etcd:
  embedded: true
  members:
    db1: {client: "127.0.0.1:12379", peer: "127.0.0.1:12380"}
    db2: {client: "127.0.0.1:22379", peer: "127.0.0.1:22380"}
    db3: {client: "127.0.0.1:32379", peer: "127.0.0.1:32380"}
postgresql:
  authentication:
    superuser:   {password_file: ./secrets/superuser}
    replication: {password_file: ./secrets/replication}
nodes:
  db1: {postgresql: {listen: "127.0.0.1:15432", data_dir: ./demo/db1}, restapi: {listen: "127.0.0.1:18008"}}
  db2: {postgresql: {listen: "127.0.0.1:25432", data_dir: ./demo/db2}, restapi: {listen: "127.0.0.1:28008"}}
  db3: {postgresql: {listen: "127.0.0.1:35432", data_dir: ./demo/db3}, restapi: {listen: "127.0.0.1:38008"}}
  proxy:
    haven: {address: 127.0.0.1}
    etcd: {embedded: false}
    postgresql: null
    restapi: {listen: "127.0.0.1:8080"}
    proxy: {address: 127.0.0.1}
`)
	names, _ := NodeNames(host(path))
	if got := strings.Join(names, " "); got != "db1 db2 db3 proxy" {
		t.Errorf("nodes: %s", got)
	}
	src := host(path)
	src.Name, src.Env = "db2", append(src.Env, "PATRONI_NAME=db3")
	n, r := mustLoad(t, src)
	if n.Name != "db2" {
		t.Errorf("--name lost to PATRONI_NAME: %s", n.Name)
	}
	if len(r.Faults) > 0 {
		t.Errorf("unexpected faults:\n%s", r)
	}
	dir := filepath.Dir(path)
	if n.Postgres.ConnectAddress != "127.0.0.1:25432" || n.RESTAPI.ConnectAddress != "127.0.0.1:28008" || n.Postgres.DataDir != dir+"/demo/db2" || n.Dir() != dir+"/demo/nodes/demo/db2" {
		t.Errorf("db2: %s %s %s %s", n.Postgres.ConnectAddress, n.RESTAPI.ConnectAddress, n.Postgres.DataDir, n.Dir())
	}
	src.Name = "proxy"
	n, r = mustLoad(t, src)
	if len(r.Faults) > 0 || n.Postgres != nil || n.Etcd.Embedded || len(n.Etcd.Hosts) != 3 || n.Proxy.Listeners[1].Listen != "127.0.0.1:5001" || n.Proxy.Stats.Listen != "127.0.0.1:7000" {
		t.Errorf("proxy: %v %+v\n%s", n.Roles(), n.Proxy, r)
	}
}

func TestCoordinatorHasNoDatabase(t *testing.T) {
	n, r := mustLoad(t, host(write(t, `
haven: {format: 1}
scope: shop
name: coordinator
etcd:
  embedded: true
  members: {db1: 10.0.1.10, db2: 10.0.1.11, coordinator: 10.0.1.12}
restapi: {listen: "*:8080"}
proxy: {}
`)))
	if len(r.Faults) > 0 || n.Postgres != nil || n.Bootstrap != nil || strings.Join(n.Roles(), " ") != "etcd proxy" {
		t.Errorf("roles %v\n%s", n.Roles(), r)
	}
	l := n.Proxy.Listeners
	if len(l) != 2 || l[0].Listen != "*:5000" || l[0].Target != "primary" || l[1].Listen != "*:5001" || l[1].Target != "replica" || l[0].Mode != "tcp" || l[0].HoldTimeout.String() != "30s" || l[1].MaxLag != 16<<20 || l[0].Admit != 200 {
		t.Errorf("listeners: %+v", l)
	}
}

func TestDirectoryIsMergedInOrder(t *testing.T) {
	path := write(t, databaseNode)
	dir := filepath.Dir(path)
	save(t, filepath.Join(dir, "z-last.yaml"), "scope: other\nproxy: null\npostgresql: {parameters: {work_mem: 8MB}}\n", 0o644)
	save(t, filepath.Join(dir, "ignored.txt"), "\x00", 0o644)
	n, _ := mustLoad(t, host(dir))
	if n.Scope != "other" || n.Proxy != nil || n.Postgres.Parameters["work_mem"] != "8MB" || n.Postgres.DataDir != "/var/lib/haven/shop" {
		t.Errorf("merged: %s %v %v", n.Scope, n.Roles(), n.Postgres.Parameters)
	}
	if n.Origins["scope"] != filepath.Join(dir, "z-last.yaml")+":1" {
		t.Errorf("origin of scope: %s", n.Origins["scope"])
	}
}

func TestPrintShowsOriginsAndNoSecret(t *testing.T) {
	path := write(t, databaseNode)
	n, _ := mustLoad(t, host(path, "PATRONI_RESTAPI_LISTEN=*:8010", "PATRONI_REWIND_USERNAME=rewinder", "PATRONI_REWIND_PASSWORD=s3cret-rewind"))
	out := strings.ReplaceAll(n.Print(), filepath.Dir(path), "DIR")
	if strings.Contains(out, "s3cret") {
		t.Errorf("a secret is printed:\n%s", out)
	}
	golden(t, "testdata/print.golden", out)
	again, r := Load(Source{Path: write(t, strings.NewReplacer("******", "x").Replace(strings.Join(withoutFiles(n.Print()), "\n"))), Hostname: "db1"})
	if again == nil || again.Postgres.ConnectAddress != n.Postgres.ConnectAddress {
		t.Errorf("what is printed cannot be read again:\n%s", r)
	}
}

func withoutFiles(s string) []string {
	var out []string
	for line := range strings.SplitSeq(s, "\n") {
		if !strings.Contains(line, "_file:") {
			out = append(out, line)
		}
	}
	return out
}

func TestDiffSaysWhatAReloadCanDo(t *testing.T) {
	path := write(t, databaseNode)
	dir := filepath.Dir(path)
	before, _ := mustLoad(t, host(path))
	changed := strings.NewReplacer("proxy: {}", "proxy: {hold_timeout: 5s}", "scope: shop", "scope: store").Replace(databaseNode)
	save(t, path, changed, 0o644)
	save(t, filepath.Join(dir, "secrets/superuser"), "s3cret-new\n", 0o600)
	after, _ := mustLoad(t, host(path))
	apply, restart := Diff(before, after)
	wantApply := []string{"postgresql.authentication.superuser.password", "proxy.hold_timeout", "proxy.listeners[0].hold_timeout", "proxy.listeners[1].hold_timeout"}
	if diff := cmp.Diff(wantApply, apply); diff != "" {
		t.Errorf("apply: %s", diff)
	}
	if diff := cmp.Diff([]string{"etcd.token", "scope"}, restart); diff != "" {
		t.Errorf("restart: %s", diff)
	}
	if apply, restart = Diff(after, after); len(apply)+len(restart) > 0 {
		t.Errorf("an unchanged file differs: %v %v", apply, restart)
	}
}

// A client reads what it may of a node's file; the same file is refused to the node itself.
func TestClientNeedsOnlyTheWayToTheCluster(t *testing.T) {
	src := host(write(t, `
scope: shop
etcd3: {hosts: [10.0.1.10, 10.0.1.11]}
restapi: {certfile: no-such.crt, keyfile: no-such.key, authentication: {username: haven, password_file: gone}}
postgresql: {run_as: postgres, authentication: {superuser: {password_file: gone}}}
`))
	src.Hostname, src.Addresses = "", nil
	if n, _ := Load(src); n != nil {
		t.Error("a node without a name, a data directory and passwords is accepted")
	}
	src.Client = true
	n, r := mustLoad(t, src)
	if n.Scope != "shop" || len(n.Etcd.Hosts) != 2 || n.RESTAPI.ConnectAddress != "localhost:8008" {
		t.Errorf("got %s %v %s", n.Scope, n.Etcd.Hosts, n.RESTAPI.ConnectAddress)
	}
	if len(r.Faults) != 1 || r.Faults[0].Severity != Warning || !strings.Contains(r.Faults[0].Text, "restapi.authentication.password_file") {
		t.Errorf("want one warning of the REST API's password:\n%s", r)
	}
	src = host(write(t, strings.Replace(databaseNode, "{format: 1}", "{format: 1, tls: {cafile: ca, certfile: crt, keyfile: key}}", 1)))
	src.Client = true
	if n, r = Load(src); n != nil || strings.Count(r.String(), "`haven.tls.") != 3 {
		t.Errorf("etcd's certificates are missing:\n%s", r)
	}
}
