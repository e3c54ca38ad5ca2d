package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// install puts a program where the nodes of a cluster are started from.
func install(t *testing.T, path string, text []byte) {
	t.Helper()
	next := path + ".next"
	if err := os.WriteFile(next, text, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
}

// runs names the file that a process runs.
func runs(t *testing.T, pid int) uint64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(fmt.Sprintf("/proc/%d/exe", pid), &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// TestUpgrade has every member of a cluster go on as another program: servers, guards and leadership stay, clients of the
// server notice nothing. A program that does not take the configuration changes nothing.
func TestUpgrade(t *testing.T) {
	program := filepath.Join(openDir(t), "haven")
	text, err := os.ReadFile(binary(t))
	if err != nil {
		t.Fatal(err)
	}
	install(t, program, text)
	c := prepareCluster(t, 3, "quorum")
	c.program = program
	for _, n := range c.plan.Nodes {
		c.start(n)
	}
	c.await("all members stream", c.healthy)
	s := c.await("voters", c.synchronous)
	client := c.directClient(s.Leader.Name)
	type processes struct{ agent, server, guard int }
	before := map[string]processes{}
	for _, m := range c.plan.Members {
		before[m] = processes{c.nodes[m].Process.Pid, c.postmaster(m), c.guardProcess(m)}
	}

	install(t, program, []byte("#!/bin/sh\necho \"haven.yml:1:1: error: a key of the past\"\nexit 3\n"))
	if out, err := c.haven("upgrade", "--yes"); err == nil || !strings.Contains(out, "a key of the past") || !strings.Contains(out, "Not begun") {
		t.Errorf("a program that does not take the configuration: %v\n%s", err, out)
	}

	install(t, program, text)
	out, err := c.haven("upgrade", "--yes")
	t.Log(out)
	if err != nil || strings.Count(out, "started again as haven") != 3 {
		t.Fatalf("haven upgrade: %v", err)
	}
	if lines := strings.Split(strings.TrimSpace(out), "\n"); !strings.Contains(lines[len(lines)-1], s.Leader.Name) {
		t.Errorf("the leader, %s, was not the last", s.Leader.Name)
	}
	time.Sleep(ttl + 2*time.Second) // whatever deadline was in force passes
	now := c.await("three streaming members", c.healthy)
	if now.Leader.Name != s.Leader.Name || now.Term.Number != s.Term.Number {
		t.Errorf("%s leads in term %d; it was %s in %d", now.Leader.Name, now.Term.Number, s.Leader.Name, s.Term.Number)
	}
	client.finish(t)
	for m, was := range before {
		if is := (processes{c.nodes[m].Process.Pid, c.postmaster(m), c.guardProcess(m)}); is != was {
			t.Errorf("%s: agent, server and guard were %v, and are %v", m, was, is)
		}
		if is, want := runs(t, was.guard), runs(t, was.agent); is != want {
			t.Errorf("%s: the guard runs file %d, the agent %d", m, is, want)
		}
	}
}
