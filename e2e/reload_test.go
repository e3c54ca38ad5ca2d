package e2e

import (
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/havenha/haven/internal/dcs/dcstest"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// TestReloadTakesWhatMayChange changes the file of a running node: a parameter of the server is in force after SIGHUP, a
// file with faults changes nothing, and what needs a restart is named.
func TestReloadTakesWhatMayChange(t *testing.T) {
	d := newDay(t)
	n := d.run()
	n.says("the leader with the lock")

	change := func(from, to string) {
		t.Helper()
		text, err := os.ReadFile(d.file)
		if err != nil {
			t.Fatal(err)
		}
		changed := strings.Replace(string(text), from, to, 1)
		if changed == string(text) {
			t.Fatalf("%q does not stand in the file", from)
		}
		if err := os.WriteFile(d.file, []byte(changed), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := n.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	change(`unix_socket_directories: ""`, `unix_socket_directories: "", work_mem: 7MB`)
	n.says("configuration reloaded")
	d.awaitSetting("work_mem", "7MB")

	change("work_mem: 7MB", "work_mem: 9MB, broken: [")
	n.says("the former one stays in force")
	d.awaitSetting("work_mem", "7MB")

	change("work_mem: 9MB, broken: [", "work_mem: 8MB")
	d.awaitSetting("work_mem", "8MB")
	change("name: db1", "name: pg1") // which is no member of the embedded etcd
	n.says("this node is `pg1`, which is not in `etcd.members`")
	change("name: pg1", "name: db1")
	before := len(n.text())
	change("scope: bad", "scope: good")
	n.says("only a restart of haven takes it into use")
	change("work_mem: 8MB", "work_mem: 6MB")
	d.awaitSetting("work_mem", "6MB")
	if text := n.text()[before:]; strings.Contains(text, "demoting") || strings.Contains(text, "no leader") {
		t.Errorf("a scope that only a restart takes into use has an effect:\n%s", text)
	}
	moved := dcstest.FreeAddress(t)
	change(d.rest, moved)
	pgtest.Eventually(t, "the REST API has moved", func() error {
		answer, err := http.Get("http://" + moved + "/liveness")
		if err != nil {
			return err
		}
		return answer.Body.Close()
	})
}
