package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// suite is a test program that a mutant is held against.
type suite struct {
	name string
	dir  string // of its package, absolute
	args []string
	// limit is how long it may run, once it is known how long it runs without a change.
	limit time.Duration
}

// errCompile is a mutant that does not compile: the mark is wrong, nothing was tested.
var errCompile = errors.New("it does not compile")

// run builds the suite with the overlay and runs it. It tells which test failed; empty: none did. What runs longer than
// limit counts as killed, by the timeout.
func (s suite) run(ctx context.Context, overlay, dir string, limit time.Duration) (string, error) {
	program := filepath.Join(dir, s.name+".test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-overlay", overlay, "-o", program, ".")
	build.Dir = s.dir
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", errCompile, bytes.TrimSpace(out))
	}
	defer os.Remove(program)
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	test := exec.CommandContext(limited, program, append([]string{"-test.failfast", "-test.timeout=0"}, s.args...)...)
	test.Dir, test.WaitDelay = s.dir, time.Second
	out, err := test.CombinedOutput()
	var failed *exec.ExitError
	switch {
	case err == nil:
		return "", nil
	case ctx.Err() != nil:
		return "", ctx.Err()
	case limited.Err() != nil:
		return "timeout", nil
	case !errors.As(err, &failed):
		return "", fmt.Errorf("run the tests: %w", err)
	}
	return failure(string(out)), nil
}

// failure finds the first test that failed in the output of a test program.
func failure(out string) string {
	name := "?"
	if m := regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)`).FindStringSubmatch(out); m != nil {
		name = m[1]
	}
	if strings.Contains(out, "\npanic: ") || strings.HasPrefix(out, "panic: ") {
		name += " (panic)"
	}
	return name
}
