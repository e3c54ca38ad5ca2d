package e2e

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/havenha/haven/internal/dcs/dcstest"
	"github.com/havenha/haven/internal/postgres/pgtest"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "write the golden files anew")

// day is a node of its own, on which something is wrong.
type day struct {
	t      *testing.T
	dir    string
	file   string
	etcd   string // the etcd section
	extra  string // further sections
	sql    string // host:port
	rest   string
	client string // of the embedded etcd
	as     *syscall.Credential
}

func newDay(t *testing.T) *day {
	t.Helper()
	dir := openDir(t)
	d := &day{t: t, dir: dir, file: filepath.Join(dir, "haven.yml"), sql: dcstest.FreeAddress(t), rest: dcstest.FreeAddress(t), client: dcstest.FreeAddress(t)}
	d.etcd = fmt.Sprintf("{embedded: true, members: {db1: {client: %q, peer: %q}}}", d.client, dcstest.FreeAddress(t))
	d.write()
	return d
}

func (d *day) data() string { return filepath.Join(d.dir, "pg", "data") }

func (d *day) write() {
	text := fmt.Sprintf(`haven: {format: 1, state_dir: %q, address: 127.0.0.1}
watchdog: {mode: "off"}
scope: bad
name: db1
etcd: %s
postgresql:
  listen: %q
  data_dir: %q
  authentication: {superuser: {password: secret-of-super}, replication: {password: secret-of-repl}}
  parameters: {unix_socket_directories: ""}
restapi: {listen: %q}
%s`, filepath.Join(d.dir, "state"), d.etcd, d.sql, d.data(), d.rest, d.extra)
	if err := os.WriteFile(d.file, []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(d.dir, "pg"), 0o755); err != nil {
		d.t.Fatal(err)
	}
	d.own(filepath.Join(d.dir, "pg"))
}

// own gives a path to the user of the server.
func (d *day) own(path string) {
	if a := pgtest.Account(d.t); a != nil {
		chown(d.t, path, a)
	}
}

// initdb puts a database into the data directory.
func (d *day) initdb() {
	cmd := exec.Command(filepath.Join(pgtest.BinDirs()[0], "initdb"), "-D", d.data(), "-U", "postgres", "--no-sync", "-A", "trust")
	if a := pgtest.Account(d.t); a != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: credential(a)}
	}
	cmd.Dir = "/"
	if out, err := cmd.CombinedOutput(); err != nil {
		d.t.Fatalf("initdb: %v: %s", err, out)
	}
}

// node is a haven run that is under way.
type node struct {
	d   *day
	cmd *exec.Cmd
	out string // path of its output
	end chan error
}

func (d *day) run() *node {
	d.t.Helper()
	out, err := os.CreateTemp(d.dir, "out-")
	if err != nil {
		d.t.Fatal(err)
	}
	defer out.Close()
	n := &node{d: d, cmd: exec.Command(binary(d.t), "run", d.file), out: out.Name(), end: make(chan error, 1)}
	n.cmd.Stdout, n.cmd.Stderr, n.cmd.Dir = out, out, d.dir
	n.cmd.Env = append(os.Environ(), "HOME="+d.dir, "XDG_STATE_HOME="+filepath.Join(d.dir, "state"))
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: d.as}
	if err := n.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	go func() { n.end <- n.cmd.Wait() }()
	d.t.Cleanup(func() {
		_ = n.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-n.end:
		case <-time.After(30 * time.Second):
			_ = n.cmd.Process.Kill()
			<-n.end
		}
	})
	return n
}

func (n *node) text() string {
	b, _ := os.ReadFile(n.out)
	return string(b)
}

// ended waits for the end of the program and returns its exit status.
func (n *node) ended() int {
	n.d.t.Helper()
	select {
	case err := <-n.end:
		n.end <- err
	case <-time.After(60 * time.Second):
		n.d.t.Fatalf("haven run goes on after a minute:\n%s", n.text())
	}
	return n.cmd.ProcessState.ExitCode()
}

// says waits until the output holds the text.
func (n *node) says(text string) {
	n.d.t.Helper()
	for begun := time.Now(); time.Since(begun) < 60*time.Second; time.Sleep(50 * time.Millisecond) {
		if strings.Contains(n.text(), text) {
			return
		}
		select {
		case err := <-n.end:
			n.end <- err
			n.d.t.Fatalf("haven run ended before it said %q:\n%s", text, n.text())
		default:
		}
	}
	n.d.t.Fatalf("%q was not said within a minute:\n%s", text, n.text())
}

// stop ends the program in an orderly way.
func (n *node) stop() int {
	n.d.t.Helper()
	_ = n.cmd.Process.Signal(syscall.SIGTERM)
	return n.ended()
}

// fingerprint is what a directory holds: names, modes, owners and contents.
func fingerprint(t *testing.T, dir string) string {
	t.Helper()
	h := sha256.New()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		fmt.Fprintf(h, "%s %v %d %d %d\n", path, info.Mode(), st.Uid, st.Gid, st.Size)
		if !info.Mode().IsRegular() {
			return nil
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(h, f)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		return "absent"
	}
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// golden compares the last words of the program with what is recorded; paths, ports, processes and times are replaced.
func (d *day) golden(name, text string) {
	d.t.Helper()
	var last []string
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		if !strings.HasPrefix(line, "time=") {
			last = append(last, line)
		}
	}
	got := strings.Join(last, "\n") + "\n"
	got = strings.ReplaceAll(got, d.dir, "DIR")
	for _, r := range []struct{ pattern, by string }{
		{`127\.0\.0\.1:\d+`, "ADDRESS"}, {`pid \d+`, "pid PID"}, {`\d{19}`, "SYSTEM"}, {`\d{4}-\d\d-\d\d \d\d:\d\d UTC`, "TIME"},
		{`another port, for instance \d+`, "another port, for instance PORT"},
		{`haven\.new-\d+`, "haven.new-N"}, {`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ UTC \[\d+\]`, "TIME [PID]"}, {`xlogtemp\.\d+`, "xlogtemp.PID"},
	} {
		got = regexp.MustCompile(r.pattern).ReplaceAllString(got, r.by)
	}
	path := filepath.Join("testdata", "badday", name+".golden")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			d.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			d.t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		d.t.Fatal(err)
	}
	if string(want) != got {
		d.t.Errorf("%s:\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

func root(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("this needs root")
	}
}

// TestBadDays starts a node on which something is wrong. It must say what, end with the right status, and leave the
// data directory as it was, byte for byte.
func TestBadDays(t *testing.T) {
	for _, c := range []struct {
		name    string
		status  int
		prepare func(d *day)
	}{
		{"broken-file", 3, func(d *day) {
			if err := os.WriteFile(d.file, []byte("haven: {format: 1\nscope: [\n"), 0o600); err != nil {
				d.t.Fatal(err)
			}
		}},
		{"port-in-use", 3, func(d *day) {
			d.initdb()
			l, err := net.Listen("tcp", d.rest)
			if err != nil {
				d.t.Fatal(err)
			}
			d.t.Cleanup(func() { l.Close() })
		}},
		{"wrong-owner", 4, func(d *day) {
			root(d.t)
			d.initdb()
			if err := os.Chown(d.data(), 1, 1); err != nil {
				d.t.Fatal(err)
			}
		}},
		{"wrong-mode", 4, func(d *day) {
			d.initdb()
			if err := os.Chmod(d.data(), 0o777); err != nil {
				d.t.Fatal(err)
			}
		}},
		{"wrong-major-version", 4, func(d *day) {
			d.initdb()
			d.extra = "" // bin_dir is found by the version that the directory names
			if err := os.WriteFile(filepath.Join(d.data(), "PG_VERSION"), []byte("12\n"), 0o600); err != nil {
				d.t.Fatal(err)
			}
		}},
		{"not-a-database", 4, func(d *day) {
			if err := os.MkdirAll(d.data(), 0o700); err != nil {
				d.t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(d.data(), "thesis.tex"), []byte("ten years of work\n"), 0o600); err != nil {
				d.t.Fatal(err)
			}
			d.own(d.data())
		}},
		{"read-only-mount", 4, func(d *day) {
			root(d.t)
			d.initdb()
			mount(d.t, filepath.Join(d.dir, "pg"), "", unix.MS_BIND, "")
			mount(d.t, filepath.Join(d.dir, "pg"), "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
		}},
		{"garbled-control-file", 4, func(d *day) {
			d.initdb()
			if err := os.WriteFile(filepath.Join(d.data(), "global", "pg_control"), []byte(strings.Repeat("garbage ", 1024)), 0o600); err != nil {
				d.t.Fatal(err)
			}
		}},
		{"no-postgresql", 4, func(d *day) {
			d.extra = ""
			d.write()
			text, err := os.ReadFile(d.file)
			if err != nil {
				d.t.Fatal(err)
			}
			text = []byte(strings.Replace(string(text), "  data_dir:", "  bin_dir: /nowhere/bin\n  data_dir:", 1))
			if err := os.WriteFile(d.file, text, 0o600); err != nil {
				d.t.Fatal(err)
			}
		}},
		{"missing-certificate", 3, func(d *day) {
			d.initdb()
			d.etcd = `{hosts: ["127.0.0.1:1"], cacert: "` + d.dir + `/ca.crt"}`
			d.write()
		}},
		{"expired-certificate", 4, func(d *day) {
			d.initdb()
			ca := pgtest.NewAuthority(d.t)
			cert, key := ca.Write(d.dir, "db1", ca.IssueUntil(time.Now().Add(-time.Hour), "db1", "127.0.0.1"))
			d.etcd = fmt.Sprintf("{hosts: [\"127.0.0.1:1\"], cacert: %q, cert: %q, key: %q}", ca.Root(d.dir), cert, key)
			d.write()
		}},
		{"full-disk-at-initdb", 4, func(d *day) {
			root(d.t)
			mount(d.t, filepath.Join(d.dir, "pg"), "tmpfs", 0, "size=12m,mode=0755")
			d.own(filepath.Join(d.dir, "pg"))
		}},
		{"wrong-etcd-password", 11, func(d *day) {
			d.initdb()
			d.etcd = fmt.Sprintf("{hosts: [%q], username: root, password: wrong}", guardedEtcd(d.t))
			d.write()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDay(t)
			c.prepare(d)
			before := fingerprint(t, d.data())
			n := d.run()
			if status := n.ended(); status != c.status {
				t.Errorf("exit status %d, want %d:\n%s", status, c.status, n.text())
			}
			d.golden(c.name, n.text())
			if c.name != "full-disk-at-initdb" && fingerprint(t, d.data()) != before {
				t.Error("the data directory has changed")
			}
			if strings.Contains(n.text(), "secret-of") {
				t.Errorf("a password stands in the output:\n%s", n.text())
			}
		})
	}
}

func mount(t *testing.T, dir, kind string, flags uintptr, options string) {
	t.Helper()
	source := dir
	if kind != "" {
		source = kind
	}
	if err := unix.Mount(source, dir, kind, flags, options); err != nil {
		t.Skipf("mounts are not allowed here: %v", err)
	}
	if flags&unix.MS_REMOUNT == 0 {
		t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	}
}

// guardedEtcd is an etcd that asks for the password of its root user.
func guardedEtcd(t *testing.T) string {
	t.Helper()
	ctl := need(t, "etcdctl")
	endpoint := dcstest.StartEtcd(t)
	for _, args := range [][]string{
		{"user", "add", "root:right"}, {"user", "grant-role", "root", "root"}, {"auth", "enable"},
	} {
		cmd := exec.Command(ctl, append([]string{"--endpoints", endpoint}, args...)...)
		cmd.Env = append(os.Environ(), "ETCDCTL_API=3")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("etcdctl %v: %v: %s", args, err, out)
		}
	}
	return endpoint
}

// TestUnreachableEtcdIsWaitedFor: what may mend itself is no reason to end, and nothing is started meanwhile.
func TestUnreachableEtcdIsWaitedFor(t *testing.T) {
	d := newDay(t)
	d.initdb()
	d.etcd = fmt.Sprintf("{hosts: [%q]}", dcstest.FreeAddress(t))
	d.write()
	before := fingerprint(t, d.data())
	n := d.run()
	n.says("waiting on etcd")
	if status := n.stop(); status != 0 {
		t.Errorf("exit status %d after SIGTERM:\n%s", status, n.text())
	}
	if fingerprint(t, d.data()) != before {
		t.Error("the data directory has changed")
	}
}

// TestForeignDatabaseIsNotTouched puts another database where the cluster's own was.
func TestForeignDatabaseIsNotTouched(t *testing.T) {
	d := newDay(t)
	n := d.run()
	n.says("the leader with the lock")
	if status := n.stop(); status != 0 {
		t.Fatalf("exit status %d after SIGTERM:\n%s", status, n.text())
	}
	if err := os.Rename(d.data(), d.data()+".own"); err != nil {
		t.Fatal(err)
	}
	d.initdb()
	before := fingerprint(t, d.data())
	n = d.run()
	if status := n.ended(); status != 4 {
		t.Errorf("exit status %d, want 4:\n%s", status, n.text())
	}
	d.golden("wrong-system-identifier", n.text())
	if fingerprint(t, d.data()) != before {
		t.Error("the data directory has changed")
	}
}

// TestSecondMemberOfOneNameIsRefused starts a member beside one of the same name.
func TestSecondMemberOfOneNameIsRefused(t *testing.T) {
	first := newDay(t)
	n := first.run()
	n.says("the leader with the lock")
	second := newDay(t)
	second.etcd = fmt.Sprintf("{hosts: [%q]}", first.client)
	second.write()
	twin := second.run()
	if status := twin.ended(); status != 4 {
		t.Errorf("exit status %d, want 4:\n%s", status, twin.text())
	}
	second.golden("two-members-of-one-name", twin.text())
	if fingerprint(t, second.data()) != "absent" {
		t.Error("the data directory was made")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var dialer net.Dialer
	if c, err := dialer.DialContext(ctx, "tcp", first.sql); err != nil {
		t.Errorf("the first member does not serve any more: %v", err)
	} else {
		c.Close()
	}
}

// awaitSetting waits until the server's setting has that value.
func (d *day) awaitSetting(name, want string) {
	d.t.Helper()
	host, port, _ := net.SplitHostPort(d.sql)
	var got string
	for begun := time.Now(); time.Since(begun) < 30*time.Second; time.Sleep(100 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		conn, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%s user=postgres password=secret-of-super dbname=postgres", host, port))
		if err == nil {
			err = conn.QueryRow(ctx, "SELECT current_setting($1)", name).Scan(&got)
			conn.Close(ctx)
		}
		cancel()
		if err == nil && got == want {
			return
		}
	}
	d.t.Errorf("%s is %q, want %q", name, got, want)
}
