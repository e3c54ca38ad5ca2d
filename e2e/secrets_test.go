package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// mark is in every secret of the test, and nowhere else.
const mark = "Zq7Mark"

// TestSecretsAreInNoOutput runs a cluster with marked secrets and the noisiest logs through failures and mistakes, and
// looks for the mark in every log, journal and answer, and in what every user of the host sees of the processes.
func TestSecretsAreInNoOutput(t *testing.T) {
	t.Setenv("PATRONI_REWIND_USERNAME", "rewinder")
	t.Setenv("PATRONI_REWIND_PASSWORD", mark+"-rewind-by-variable")
	c := prepareCluster(t, 3, "on", markSecrets(t))
	for _, n := range c.plan.Nodes {
		c.start(n)
	}
	s := c.await("a synchronous standby", c.synchronous)
	seen := &seenOutput{c: c}
	seen.processes()

	seen.commands("status", "status -v -o json", "list", "topology", "history", "explain", "explain --log", "show-config", "config check --print --name db1",
		"config check --name db2 -v", "doctor", "doctor -o json", "check", "switchover --plan", "failover --plan", "version")
	seen.requests()

	other := s.Sync.Standbys[0]
	c.reload(other)
	wrong := filepath.Join(c.plan.Dir, "secrets", "replication")
	c.write(wrong, mark+"-wrong-password")
	c.reload(other)
	c.write(wrong, mark+"-replication")
	seen.commands("doctor")
	c.reload(other)
	text, err := os.ReadFile(c.plan.File)
	if err != nil {
		t.Fatal(err)
	}
	c.write(c.plan.File, strings.Replace(string(text), "username: haven,", "username: haven, password: ["+mark+"], ", 1))
	if err := c.nodes[other].Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	c.logged(other, "the former one stays in force")
	seen.commands("config check --name db1", "status")
	c.write(c.plan.File, string(text))

	c.killPostmaster(s.Leader.Name)
	now := c.await("another leader, and three members", func(n cluster.Snapshot) bool { return c.synchronous(n) && n.Leader.Name != s.Leader.Name })
	c.killMember(s.Leader.Name)
	if err := os.Rename(filepath.Join(c.plan.Dir, s.Leader.Name), filepath.Join(c.plan.Dir, "gone")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(c.plan.Dir, s.Leader.Name), 0o700); err != nil {
		t.Fatal(err)
	}
	c.giveAway(filepath.Join(c.plan.Dir, s.Leader.Name))
	c.start(s.Leader.Name) // it is copied anew
	c.logged(s.Leader.Name, "action=clone")
	c.await("three members again", func(n cluster.Snapshot) bool {
		m, _ := n.Member(s.Leader.Name)
		return c.synchronous(n) && m.ReplicationState == "streaming" && c.postmaster(s.Leader.Name) > 0
	})
	seen.processes()
	seen.commands("switchover --force --leader "+now.Leader.Name, "explain", "status")
	seen.files()
}

// markSecrets gives every secret a mark, and makes everybody log as much as possible.
func markSecrets(t *testing.T) func(dir, text string) string {
	return func(dir, text string) string {
		t.Helper()
		for _, name := range []string{"superuser", "replication", "restapi", "demo"} {
			if err := os.WriteFile(filepath.Join(dir, "secrets", name), []byte(mark+"-"+name+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		pass := filepath.Join(dir, "secrets", "pgpass")
		if err := os.WriteFile(pass, []byte("*:*:demo:demo:"+mark+"-demo\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		text = strings.Replace(text, `log_line_prefix: "%m [%p] "`, `log_line_prefix: "%m [%p] ", log_statement: all, log_min_messages: debug1, log_replication_commands: on, ssl_passphrase_command: "echo `+mark+`-passphrase"`, 1)
		return strings.Replace(text, "scope: demo\n", "scope: demo\nlog: {level: DEBUG}\n", 1)
	}
}

// seenOutput looks for the mark in what it sees.
type seenOutput struct{ c *testCluster }

func (s *seenOutput) look(where string, content []byte) {
	s.c.t.Helper()
	if i := bytes.Index(content, []byte(mark)); i >= 0 {
		s.c.t.Errorf("a secret is in %s: …%s…", where, content[max(0, i-200):min(len(content), i+60)])
	}
}

func (s *seenOutput) commands(lines ...string) {
	s.c.t.Helper()
	for _, line := range lines {
		out, _ := s.c.haven(strings.Fields(line)...)
		if out == "" {
			s.c.t.Errorf("haven %s says nothing", line)
		}
		s.look("the output of haven "+line, []byte(out))
	}
}

// requests are good, mistaken and forbidden ones.
func (s *seenOutput) requests() {
	s.c.t.Helper()
	client := &http.Client{Timeout: 10 * time.Second}
	for _, q := range []struct{ method, path, user, password, body string }{
		{"GET", "/patroni", "", "", ""}, {"GET", "/cluster", "", "", ""}, {"GET", "/history", "", "", ""}, {"GET", "/metrics", "", "", ""},
		{"GET", "/haven/status", "", "", ""}, {"GET", "/haven/health", "", "", ""}, {"GET", "/nothing", "", "", ""},
		{"PATCH", "/config", "haven", mark + "-wrong", "{}"},
		{"PATCH", "/config", "haven", mark + "-restapi", `{"postgresql": {"authentication": {"superuser": {"password": ["` + mark + `"]}}}}`},
		{"PUT", "/config", "haven", mark + "-restapi", `{"ttl": "` + "often" + `", "primary_race_backoff": 1`},
		{"POST", "/switchover", "haven", mark + "-restapi", `{"leader": 5}`},
		{"POST", "/reload", mark, mark, ""},
		{"POST", "/haven/facts", "haven", mark + "-restapi", `{"salt": "000102030405060708090a0b0c0d0e0f"}`},
	} {
		req, err := http.NewRequest(q.method, "http://"+s.c.plan.API[0]+q.path, strings.NewReader(q.body))
		if err != nil {
			s.c.t.Fatal(err)
		}
		if q.user != "" {
			req.SetBasicAuth(q.user, q.password)
		}
		resp, err := client.Do(req)
		if err != nil {
			s.c.t.Fatal(err)
		}
		var b bytes.Buffer
		_, _ = b.ReadFrom(resp.Body)
		resp.Body.Close()
		s.look(fmt.Sprintf("the answer to %s %s (%d)", q.method, q.path, resp.StatusCode), b.Bytes())
	}
}

// processes looks at the arguments of all processes, and at the environment of those that nodes have started.
func (s *seenOutput) processes() {
	s.c.t.Helper()
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	agents := map[string]bool{}
	for _, cmd := range s.c.nodes {
		agents[fmt.Sprintf("/proc/%d", cmd.Process.Pid)] = true
	}
	children := 0
	for _, dir := range dirs {
		args, _ := os.ReadFile(dir + "/cmdline")
		s.look("the arguments of "+string(bytes.ReplaceAll(args, []byte{0}, []byte(" "))), args)
		cwd, _ := os.Readlink(dir + "/cwd")
		if !agents[dir] && strings.HasPrefix(cwd, s.c.plan.Dir+"/") {
			children++
			env, _ := os.ReadFile(dir + "/environ")
			s.look("the environment of "+string(bytes.ReplaceAll(args, []byte{0}, []byte(" "))), env)
		}
	}
	if children < 3 {
		s.c.t.Errorf("only %d processes of servers were seen", children)
	}
}

// files looks at everything that was written, but for what holds secrets on purpose: the configuration, the files with
// secrets, password files, and the databases themselves.
func (s *seenOutput) files() {
	s.c.t.Helper()
	logs, statements := 0, false
	err := filepath.WalkDir(s.c.plan.Dir, func(path string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "secrets" || d.Name() == "etcd" || d.Name() == "base" || d.Name() == "pg_wal"):
			return filepath.SkipDir
		case !d.Type().IsRegular() || path == s.c.plan.File:
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil // it is gone
		}
		if holdsSecrets(path) {
			s.private(path)
			return nil
		}
		logs++
		statements = statements || bytes.Contains(b, []byte("LOG:  statement: "))
		s.look(path, b)
		return nil
	})
	if err != nil || logs < 10 || !statements {
		s.c.t.Errorf("%d files read, one with the statements of a server: %v: %v", logs, statements, err)
	}
}

// holdsSecrets: the password file of a server, and its settings.
func holdsSecrets(path string) bool {
	return strings.Contains(filepath.Base(path), "pgpass") || strings.HasSuffix(path, ".conf") || strings.HasSuffix(path, ".opts")
}

// private wants a file that nobody else may read.
func (s *seenOutput) private(path string) {
	s.c.t.Helper()
	if info, err := os.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 {
		s.c.t.Errorf("%s may hold secrets, and has mode %o", path, info.Mode().Perm())
	}
}

// logged waits until the log of a node says so.
func (c *testCluster) logged(name, text string) {
	c.t.Helper()
	for begun := time.Now(); !strings.Contains(tail(c.logPath(name), 1<<30), text); time.Sleep(20 * time.Millisecond) {
		if time.Since(begun) > awaitFor {
			c.t.Fatalf("%s did not log %q", name, text)
		}
	}
}
