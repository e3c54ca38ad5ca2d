package config

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestMain lets the test binary be the other process that holds a port.
func TestMain(m *testing.M) {
	if os.Getenv("CONFIG_TEST_LISTEN") == "" {
		os.Exit(m.Run())
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(l.Addr().(*net.TCPAddr).Port)
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test closes it or dies
}

func TestBusyPortsNamesTheHolder(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Args[0] = "/opt/other/web-server-of-the-neighbours"
	cmd.Env = append(os.Environ(), "CONFIG_TEST_LISTEN=1")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close(); _ = cmd.Wait() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	port := strings.TrimSpace(line)
	dir := t.TempDir()
	config := `
haven: {format: 1, address: 127.0.0.1}
scope: shop
etcd: {hosts: "127.0.0.1:2379"}
restapi: {listen: "127.0.0.2:` + port + `"}
postgresql:
  data_dir: ` + dir + `
  listen: "localhost:` + port + `"
  authentication: {superuser: {password: a}, replication: {password: b}}
`
	n, _ := mustLoad(t, host(write(t, config)))
	faults := n.BusyPorts()
	if len(faults) != 1 {
		t.Fatalf("want only postgresql.listen, since 127.0.0.2 is free: %v", faults)
	}
	f := faults[0]
	want := fmt.Sprintf("`postgresql.listen` localhost:%s is in use by pid %d (web-server-of-the-neighbours): ", port, cmd.Process.Pid)
	if f.Line != 8 || f.Column != 3 || f.Severity != Error || !strings.HasPrefix(f.Text, want) {
		t.Errorf("got %s\nwant %s", f, want)
	}
	save(t, filepath.Join(dir, "postmaster.pid"), fmt.Sprintf("%d\n%s\n", cmd.Process.Pid, dir), 0o600)
	if faults := n.BusyPorts(); len(faults) != 0 {
		t.Errorf("the node's own server is reported: %v", faults)
	}
}

func TestFindFileOrder(t *testing.T) {
	root := t.TempDir()
	find := func(explicit string, env ...string) string {
		path, err := findFile(explicit, env, root)
		if err != nil {
			return "error"
		}
		return strings.TrimPrefix(path, root)
	}
	check := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("found %q, want %q", got, want)
		}
	}
	check(find(""), "error")
	check(find("", "PATRONI_SCOPE=x"), "")
	for _, dir := range []string{"etc/patroni", "etc/haven"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		save(t, filepath.Join(root, dir, filepath.Base(dir)+".yml"), "", 0o600)
		check(find(""), "/"+dir+"/"+filepath.Base(dir)+".yml")
	}
	other := filepath.Join(root, "other.yml")
	save(t, other, "", 0o600)
	check(find("", "PATRONICTL_CONFIG_FILE="+other), "/other.yml")
	check(find("", "PATRONICTL_CONFIG_FILE="+other, "HAVEN_CONFIG="+root+"/etc/haven/haven.yml"), "/etc/haven/haven.yml")
	check(find(other, "HAVEN_CONFIG=/nowhere"), "/other.yml")
	check(find("", "HAVEN_CONFIG=/nowhere"), "error")
	check(find("/nowhere"), "error")
	check(find("http://10.0.1.10:8008"), "http://10.0.1.10:8008")
}

func TestReference(t *testing.T) {
	var out strings.Builder
	for _, d := range Reference() {
		fmt.Fprintf(&out, "%s | %s | %s | %s | %s\n", d.Path, d.Kind, d.Default, d.PatroniDefault, d.Reload)
	}
	golden(t, "testdata/reference.golden", out.String())
}

func TestVariablesOverrideTheFile(t *testing.T) {
	n, r := mustLoad(t, host(write(t, databaseNode), "PATRONI_SCOPE=other", "PATRONI_RESTAPI_ALLOWLIST='10.0.0.0/8', 10.1.1.1",
		"PATRONI_RESTAPI_HTTP_EXTRA_HEADERS=X-A: 1, X-B: two", "PATRONI_LOG_LOGGERS={etcd: WARN}", "PATRONI_POSTGRESQL_BIN_PG_CTL=pg_ctl-15", "PATRONI_SUPERUSR_PASSWORD=s3cret", "PATRONI_POSTGRESQL_BIN_DIR=pg/bin"))
	if n.Scope != "other" || !slices.Equal(n.RESTAPI.AllowList, []string{"10.0.0.0/8", "10.1.1.1"}) || n.RESTAPI.HTTPExtraHeaders["X-B"] != "two" || n.Log.Loggers["etcd"] != "WARN" ||
		n.Postgres.BinNames["pg_ctl"] != "pg_ctl-15" || n.Postgres.BinDir != "/work/pg/bin" || n.Origins["scope"] != "PATRONI_SCOPE" {
		t.Errorf("%+v %s", n.RESTAPI, n.Origins["scope"])
	}
	if got := r.String(); got != "PATRONI_SUPERUSR_PASSWORD: warning: this variable belongs to no key, so it has no effect; did you mean `PATRONI_SUPERUSER_PASSWORD`?\n0 errors, 1 warning\n" {
		t.Errorf("report:\n%s", got)
	}
	n, _ = mustLoad(t, host("", "PATRONI_CONFIGURATION="+strings.ReplaceAll(databaseNode, "password_file: secrets/", "password: "), "PATRONI_NAME=db2"))
	if n.Name != "db2" || n.Postgres.Superuser.Password != "superuser" {
		t.Errorf("PATRONI_CONFIGURATION: %s", n.Name)
	}
	if _, r := Load(host("", "PATRONI_CONSUL_HOST=127.0.0.1", "PATRONI_POSTGRESQL_DATA_DIR=/d", "PATRONI_SUPERUSER_PASSWORD=a", "PATRONI_REPLICATION_PASSWORD=b")); !strings.Contains(r.String(), "PATRONI_CONSUL_HOST: error: `consul` is not supported") {
		t.Errorf("consul:\n%s", r)
	}
}

func TestAddressThatNothingTellsIsAskedFor(t *testing.T) {
	src := host(write(t, strings.Replace(databaseNode, "  embedded: true\n  members: {db1: 10.0.1.10, db2: 10.0.1.11, coordinator: 10.0.1.12}", "  hosts: [10.0.1.10]", 1)))
	src.Addresses = append(src.Addresses, src.Addresses[0].Next())
	_, r := Load(src)
	if !strings.Contains(r.String(), "this host has several addresses (10.0.1.10, 10.0.1.11): set `haven.address`") {
		t.Errorf("several addresses:\n%s", r)
	}
	src.Addresses = nil
	if _, r = Load(src); !strings.Contains(r.String(), "no address but loopback") {
		t.Errorf("no address:\n%s", r)
	}
}

func TestTagsKeepTheirTypes(t *testing.T) {
	n, _ := mustLoad(t, host(write(t, databaseNode+"tags: {nofailover: no, clonefrom: off, sync_priority: 2, nosync: false, zone: a1, weight: 1.5, quoted: \"off\", gone: null}\n")))
	if got, want := fmt.Sprint(n.Tags), "map[clonefrom:false nofailover:false nosync:false quoted:off sync_priority:2 weight:1.5 zone:a1]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := fmt.Sprint(n.PublishedTags()), "map[nosync:false quoted:off sync_priority:2 weight:1.5 zone:a1]"; got != want {
		t.Errorf("published %s, want %s", got, want)
	}
}

func FuzzLoad(f *testing.F) {
	files, err := filepath.Glob("testdata/faults/*.yml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		if content, err := os.ReadFile(file); err == nil {
			f.Add(string(content))
		}
	}
	f.Fuzz(func(t *testing.T, content string) {
		src := host("", "PATRONI_CONFIGURATION="+content)
		n, r := Load(src)
		if (n == nil) == r.OK() {
			t.Fatalf("node %v, but the report is\n%s", n != nil, r)
		}
		if n == nil {
			return
		}
		if apply, restart := Diff(n, n); len(apply)+len(restart) > 0 || n.Print() == "" {
			t.Fatalf("differs from itself: %v %v", apply, restart)
		}
		if d, _, err := ParseDynamic(DefaultDCS(n.Format, n.Bootstrap), true); err == nil {
			n.ServerSettings(d, "replica")
		}
	})
}
