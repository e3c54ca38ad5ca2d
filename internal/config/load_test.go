package config

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
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
restapi: {listen: "*:8080", authentication: {username: haven, password: secret}}
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

// What only a restart takes into use stays as it runs, or a leader would get another name than its leader key has.
func TestReloadKeepsWhatNeedsARestart(t *testing.T) {
	text := strings.NewReplacer("  embedded: true\n", "  username: haven\n  password_file: secrets/etcd\n",
		"  members: {db1: 10.0.1.10, db2: 10.0.1.11, coordinator: 10.0.1.12}", "  hosts: [10.0.1.10:2379]", "scope: shop", "scope: shop\nname: db1").Replace(databaseNode)
	for _, tt := range []struct {
		name, from, to string
		secret         string // of etcd, in its file
		apply, restart []string
	}{
		{name: "nothing"},
		{name: "the name", from: "name: db1", to: "name: pg1", restart: []string{"name"}},
		{name: "the cluster, and what may change", from: "scope: shop", to: "scope: store\ntags: {nosync: true}", apply: []string{"tags.nosync"}, restart: []string{"scope"}},
		{name: "the address", from: "data_dir: /var/lib/haven/shop", to: "data_dir: /var/lib/haven/other\n  connect_address: 10.9.9.9:5432", restart: []string{"postgresql.connect_address", "postgresql.data_dir"}},
		{name: "a role goes", from: "proxy: {}", restart: []string{"proxy."}},
		{name: "a secret in its file", secret: "changed", restart: []string{"etcd.password"}},
		{name: "a secret from the file to here", from: "password_file: secrets/etcd", to: "password: s3cret-etcd", restart: []string{"etcd.password_file"}},
		{name: "another secret here", from: "password_file: secrets/etcd", to: "password: other", restart: []string{"etcd.password", "etcd.password_file"}},
		{name: "another list", from: "hosts: [10.0.1.10:2379]", to: "hosts: [10.0.1.11:2379, 10.0.1.12:2379]", restart: []string{"etcd.hosts[0]", "etcd.hosts[1]"}},
		{name: "a password that may change", from: "username: haven, password_file: secrets/restapi", to: "username: haven, password: new",
			apply: []string{"restapi.authentication.password", "restapi.authentication.password_file"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := write(t, text)
			secret := filepath.Join(filepath.Dir(path), "secrets/etcd")
			save(t, secret, "s3cret-etcd\n", 0o600)
			running, _ := mustLoad(t, host(path))
			if tt.secret != "" {
				save(t, secret, tt.secret+"\n", 0o600)
			}
			save(t, path, strings.Replace(text, tt.from, tt.to, 1), 0o644)
			next, apply, restart, r := Reload(running)
			if next == nil {
				t.Fatalf("refused: %s", r)
			}
			if diff := cmp.Diff(tt.apply, apply); diff != "" {
				t.Errorf("apply: %s", diff)
			}
			if tt.name == "a role goes" { // with all of its keys
				restart = slices.CompactFunc(restart, func(a, b string) bool { return strings.HasPrefix(a, "proxy.") && strings.HasPrefix(b, "proxy.") })
				restart[0] = "proxy."
			}
			if diff := cmp.Diff(tt.restart, restart); diff != "" {
				t.Errorf("restart: %s", diff)
			}
			if _, left := Diff(running, next); len(left) > 0 {
				t.Errorf("the node in force differs in %v", left)
			}
			if next.Name != "db1" || next.Scope != "shop" || next.Etcd.Password != "s3cret-etcd" || next.Postgres.ConnectAddress != running.Postgres.ConnectAddress || next.Proxy == nil {
				t.Errorf("the node in force is %s of %s, at %s, etcd's password %q", next.Name, next.Scope, next.Postgres.ConnectAddress, next.Etcd.Password)
			}
			if again, apply, _, _ := Reload(next); again == nil || len(apply) > 0 {
				t.Errorf("a second reload applies %v", apply)
			}
		})
	}
}

// What is kept needs no file any more, goes with what belongs to it, and leaves nothing of what was written instead.
func TestReloadKeepsWhatBelongsTogether(t *testing.T) {
	const etcd = "  embedded: true\n  members: {db1: 10.0.1.10, db2: 10.0.1.11, coordinator: 10.0.1.12}"
	tls := func(cert string) string {
		return "  hosts: [10.0.1.10:2379]\n  cacert: secrets/ca.crt\n  cert: secrets/" + cert + "\n  key: secrets/own.key"
	}
	for _, tt := range []struct{ name, before, after string }{
		{"a certificate that is removed", strings.Replace(databaseNode, etcd, tls("a.crt"), 1), strings.Replace(databaseNode, etcd, tls("b.crt"), 1)},
		{"haven.tls", strings.Replace(databaseNode, "{format: 1}", "{format: 1, tls: {cafile: secrets/ca.crt, certfile: secrets/a.crt, keyfile: secrets/own.key}}", 1),
			strings.Replace(databaseNode, "{format: 1}", "{format: 1, tls: {cafile: secrets/ca.crt, certfile: secrets/b.crt, keyfile: secrets/own.key}}", 1)},
		{"from hosts to members", strings.Replace(databaseNode, etcd, "  hosts: [10.0.1.10:2379]", 1), databaseNode},
		{"from members to hosts", databaseNode, strings.Replace(databaseNode, etcd, "  hosts: [10.0.1.10:2379]", 1)},
		{"members with dots", strings.Replace(databaseNode, "db2:", "db2.example.com:", 1), strings.Replace(databaseNode, "db2: 10.0.1.11", "db2.example.com: 10.9.9.9", 1)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := write(t, tt.before)
			dir := filepath.Join(filepath.Dir(path), "secrets")
			for _, name := range []string{"ca.crt", "a.crt", "b.crt", "own.key"} {
				save(t, filepath.Join(dir, name), "", 0o600)
			}
			running, _ := mustLoad(t, host(path))
			if err := os.Remove(filepath.Join(dir, "a.crt")); err != nil {
				t.Fatal(err)
			}
			save(t, path, tt.after, 0o644)
			next, _, restart, r := Reload(running)
			if next == nil {
				t.Fatalf("refused: %s", r)
			}
			if len(restart) == 0 {
				t.Error("nothing waits for a restart")
			}
			if _, left := Diff(running, next); len(left) > 0 {
				t.Errorf("the node in force differs in %v", left)
			}
			if diff := cmp.Diff(running.Etcd, next.Etcd); diff != "" {
				t.Errorf("etcd: %s", diff)
			}
			save(t, filepath.Join(dir, "a.crt"), "", 0o600)
			save(t, path, tt.before, 0o644)
			if _, _, restart, r := Reload(next); len(restart) > 0 || !r.OK() {
				t.Errorf("put back, these still wait: %v %s", restart, r)
			}
		})
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
