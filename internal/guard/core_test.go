package guard

import (
	"log/slog"
	"testing"
	"time"
)

// TestRepliesDoNotChange: what was answered is written to a connection while the killing goes on.
func TestRepliesDoNotChange(t *testing.T) {
	c := &core{log: slog.New(slog.DiscardHandler), killing: &killing{reason: "the test wants it"}}
	c.foundSome([]int{1})
	first := c.state
	c.report([]int{1}, nil)
	second := c.state
	c.verified()
	if first.Killed.Left != "" || second.Killed.Left == "" || !second.Killed.Verified.IsZero() {
		t.Errorf("replies have changed: %+v, %+v", first.Killed, second.Killed)
	}
	if k := c.state.Killed; k.Verified.IsZero() || k.Left != "" || time.Since(k.At) > time.Minute {
		t.Errorf("in the end: %+v", k)
	}
}
