package script

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestCommandsAreCutAsTheirAuthorsMeant(t *testing.T) {
	for line, want := range map[string][]string{
		"/usr/bin/cb.sh":                  {"/usr/bin/cb.sh"},
		"  cb  --host 'a b'  ":            {"cb", "--host", "a b"},
		`sh -c "echo \"x\" \$y 'z'"`:      {"sh", "-c", `echo "x" \$y 'z'`},
		`a\ b c''d ""`:                    {"a b", "cd", ""},
		`wal-g backup-fetch $PGDATA *`:    {"wal-g", "backup-fetch", "$PGDATA", "*"},
		"one\ntwo\tthree # no comment":    {"one", "two", "three", "#", "no", "comment"},
		`--key="a=b c" --other='it"s on'`: {"--key=a=b c", `--other=it"s on`},
		"":                                nil,
	} {
		got, err := Split(line)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: got %q (%v), want %q", line, got, err, want)
		}
	}
	for _, line := range []string{`a "b`, `a 'b`, `a \`} {
		if _, err := Split(line); err == nil {
			t.Errorf("%q was taken", line)
		}
	}
}

func TestArgumentsOutputAndStatusArrive(t *testing.T) {
	var said []string
	c := Command{Line: `sh -c 'echo "$0|$1|$X"; echo problem >&2; printf tail; exit 3'`, Args: []string{"on_start", "a b"},
		Env: []string{"PATH=" + os.Getenv("PATH"), "X=y"}, Say: func(s string) { said = append(said, s) }}
	err := c.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("error %v, want exit status 3", err)
	}
	if want := []string{"on_start|a b|y", "problem", "tail"}; !slices.Equal(said, want) {
		t.Errorf("said %q, want %q", said, want)
	}
	if err := (Command{Line: "/nonexistent/x"}).Run(t.Context()); err == nil {
		t.Error("a program that is not there was run")
	}
}

func TestACommandThatHangsIsEndedWithItsChildren(t *testing.T) {
	for _, grace := range []time.Duration{0, 100 * time.Millisecond} {
		file := filepath.Join(t.TempDir(), "pid")
		ctx, cancel := context.WithCancel(t.Context())
		c := Command{Line: `sh -c 'trap "" TERM; sh -c "trap \"\" TERM; echo \$\$ > $0.new; mv $0.new $0; while :; do sleep 1; done" "$0" & wait; wait'`, Args: []string{file}, Env: os.Environ(), Grace: grace}
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		var pid int
		for deadline := time.Now().Add(20 * time.Second); pid == 0 && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			b, _ := os.ReadFile(file)
			pid, _ = strconv.Atoi(strings.TrimSpace(string(b)))
		}
		if pid == 0 {
			t.Fatal("the child did not start")
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		for deadline := time.Now().Add(20 * time.Second); running(pid); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("its child %d lives on", pid)
			}
		}
	}
}

// running tells whether that process is there and is no zombie.
func running(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err == nil && !strings.Contains(string(b), ") Z ")
}

func TestACommandMayLeaveSomethingRunning(t *testing.T) {
	c := Command{Line: `sh -c 'sleep 30 & echo $! > "$0"'`, Args: []string{filepath.Join(t.TempDir(), "pid")}, Env: os.Environ()}
	begun := time.Now()
	err := c.Run(t.Context())
	b, _ := os.ReadFile(c.Args[0])
	if pid, _ := strconv.Atoi(strings.TrimSpace(string(b))); pid > 1 {
		defer syscall.Kill(pid, syscall.SIGKILL)
		if !running(pid) {
			t.Error("what it left running was ended")
		}
	}
	if err != nil || time.Since(begun) > 20*time.Second {
		t.Errorf("error %v after %s", err, time.Since(begun))
	}
}
