package agent

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/havenha/haven/internal/bootclock"
	"github.com/havenha/haven/internal/ha"
	"github.com/havenha/haven/internal/postgres"
)

// TestOneSlowAnswerIsNotShown: to others a server is as it last answered, for a moment, and only if it was too slow to answer again.
func TestOneSlowAnswerIsNotShown(t *testing.T) {
	slow := fmt.Errorf("heartbeat: no answer: %w", context.DeadlineExceeded)
	server, now := &postgres.Server{}, bootclock.Now()
	for _, c := range []struct {
		name    string
		process ha.Process
		err     error
		of      *postgres.Server
		ago     time.Duration
		kept    bool
	}{
		{"slow", ha.ProcessUp, slow, server, 0, true},
		{"slow for long", ha.ProcessUp, slow, server, 2 * steady, false},
		{"another server", ha.ProcessUp, slow, &postgres.Server{}, 0, false},
		{"refused", ha.ProcessUp, errors.New("connection refused"), server, 0, false},
		{"down", ha.ProcessDown, slow, server, 0, false},
	} {
		a := &Agent{}
		probe := &postgres.Probe{InRecovery: true}
		a.st.process, a.st.answered = server, answered{probe: probe, process: c.of, lost: now.Add(-c.ago)}
		a.st.seen = seen{process: c.process, probeErr: c.err}
		if got := a.shown().probe; (got == probe) != c.kept {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
