package agent_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// openScript writes a script that the server's user may run.
func (w *world) openScript(name, body string) string {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o755); err != nil {
		w.t.Fatal(err)
	}
	return path
}

// TestCopiesByCommands makes copies by commands of the operator's: one fails and leaves something behind, the next makes
// the copy; without a leader, one that works from a backup does.
func TestCopiesByCommands(t *testing.T) {
	w := newWorld(t, `DCS`, "a", "b", "c")
	log := filepath.Join(w.dir, "asked")
	backup := filepath.Join(w.dir, "backup")
	for _, made := range []string{log, backup} {
		if err := os.MkdirAll(made, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(made, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	broken := w.openScript("broken.sh", `echo "$@" >> `+log+`/broken; for a in "$@"; do case $a in --datadir=*) d=${a#*=};; esac; done
[ -z "$(ls -A $d)" ] || exit 7; touch $d/rubbish; exit 1`)
	tool := w.openScript("tool.sh", `for a in "$@"; do echo "$a" >> `+log+`/tool; case $a in --datadir=*) d=${a#*=};; --connstring=*) c=${a#*=};; esac; done
[ -z "$(ls -A $d)" ] || exit 7
if [ -n "$c" ]; then PATH=$PATH:`+pgtest.BinDirs()[0]+` pg_basebackup -w -D $d -d "$c" -c fast && cp -a $d `+backup+`/d; else cp -a `+backup+`/d/* $d/; fi`)
	dcs := fmt.Sprintf(`{ttl: 10, loop_wait: 1, synchronous_mode: off, maximum_lag_on_failover: 1GB, postgresql: {create_replica_methods: [broken, tool, basebackup],
  broken: {command: %s -x 'y z'}, tool: {command: %s, no_leader: true, level: 3, fast: yes}}}`, broken, tool)
	text := strings.Replace(readFile(t, w.file), "dcs: DCS", "dcs: "+dcs, 1)
	if err := os.WriteFile(w.file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	w.start("a")
	w.await("a leads", led("a", 1))
	b := w.start("b")
	w.await("b follows", led("a", 2))
	if got, want := readFile(t, log+"/broken"), "-x y z --scope=test --role=replica --datadir="+b.node.Postgres.DataDir+" --connstring=dbname=postgres user=replicator passfile="; !strings.HasPrefix(got, want) {
		t.Errorf("the first method got %q, want %q…", got, want)
	}
	if got, want := readFile(t, log+"/tool"), "--fast=True\n--level=3\n--no_leader=True\n--scope=test\n--role=replica\n"; !strings.HasPrefix(got, want) {
		t.Errorf("the second method got %q, want %q…", got, want)
	}
	if _, err := os.Stat(filepath.Join(b.node.Postgres.DataDir, "rubbish")); err == nil {
		t.Error("the copy holds what the method that failed has left")
	}
	told := len(readFile(t, log+"/tool"))
	if err := b.agent.Reinitialize(order(t), ha.Reinit{FromLeader: true}, false); err != nil {
		t.Fatal(err)
	}
	pgtest.Eventually(t, "b is copied anew", func() error {
		if aside, _ := filepath.Glob(b.node.Postgres.DataDir + ".*.aside"); len(aside) == 0 {
			return fmt.Errorf("its data still is where it was")
		}
		return nil
	})
	w.await("b follows again", led("a", 2))
	if len(readFile(t, log+"/tool")) != told {
		t.Error("a copy of the leader was asked for, and a command made it")
	}

	w.members["b"].end()
	w.members["a"].end()
	w.await("nobody leads", func(s cluster.Snapshot) bool { return s.Leader == nil })
	w.start("c")
	w.await("c leads, with the data of the backup", led("c", 1))
	if got := readFile(t, log+"/tool"); !strings.HasSuffix(got, "--connstring=\n") {
		t.Errorf("without a leader the method got %q", got[told:])
	}
}
