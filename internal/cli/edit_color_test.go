package cli

import "testing"

// TestDiffOnATerminal paints what goes and what comes, and leaves the line for programs out.
func TestDiffOnATerminal(t *testing.T) {
	const changes = "diff a b\n--- a\n+++ b\n@@ -1,2 +1,2 @@\n loop_wait: 10\n-ttl: 30\n+ttl: 40\n"
	e := &edit{c: &console{outTTY: true}}
	if got, want := e.colored(changes), "\x1b[31m--- a\x1b[0m\n\x1b[32m+++ b\x1b[0m\n\x1b[36m@@ -1,2 +1,2 @@\x1b[0m\n loop_wait: 10\n\x1b[31m-ttl: 30\x1b[0m\n\x1b[32m+ttl: 40\x1b[0m\n"; got != want {
		t.Errorf("on a terminal: %q", got)
	}
	e.c.outTTY = false
	if got, want := e.colored(changes), "--- a\n+++ b\n@@ -1,2 +1,2 @@\n loop_wait: 10\n-ttl: 30\n+ttl: 40\n"; got != want {
		t.Errorf("elsewhere: %q", got)
	}
}
