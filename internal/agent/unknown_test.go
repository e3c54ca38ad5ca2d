package agent_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/havenha/haven/internal/dcs"
)

// forgetful is a store from which the first answer to a handover does not come, and which cannot be reached the next time.
type forgetful struct {
	dcs.Store
	arrives bool // the requests reach it all the same
	left    *atomic.Int32
}

func (f forgetful) HandOver(ctx context.Context, h dcs.Holder, o dcs.Handover) error {
	switch f.left.Add(-1) {
	case 1:
		if f.arrives {
			_ = f.Store.HandOver(ctx, h, o)
		}
		return fmt.Errorf("hand over: %w: no answer", dcs.ErrUnknown)
	case 0: // a try that is certain not to have been sent says nothing of the one before
		return errors.New("hand over: connection refused")
	}
	return f.Store.HandOver(ctx, h, o)
}

// TestHandoverOfUnknownOutcome: while it is not known whether leadership was handed over, the server is not started again: the message that
// has had no answer may still arrive.
func TestHandoverOfUnknownOutcome(t *testing.T) {
	for _, tt := range []struct {
		name    string
		arrives bool
	}{{"lost on the way there", false}, {"lost on the way back", true}} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "{ttl: 30, loop_wait: 1, synchronous_mode: off}", "a", "b")
			left := &atomic.Int32{}
			left.Store(2)
			w.through = func(s dcs.Store) dcs.Store { return forgetful{s, tt.arrives, left} }
			w.start("a")
			w.await("a leads", led("a", 1))
			w.start("b")
			before := w.await("b follows", led("a", 2))
			w.switchTo("a", "b")
			now := w.await("b leads", led("b", 2))
			if now.Term.Number != before.Term.Number+1 {
				t.Errorf("term %d after %d", now.Term.Number, before.Term.Number)
			}
			logs, err := filepath.Glob(filepath.Join(w.dir, "a.*.log"))
			if err != nil || len(logs) == 0 {
				t.Fatalf("no log of a: %v", err)
			}
			for _, file := range logs {
				text := readFile(t, file)
				if strings.Contains(text, `msg="action failed" action=switchover`) || strings.Contains(text, "starting primary after failure") {
					t.Errorf("the handover was given up:\n%s", text)
				}
			}
		})
	}
}
