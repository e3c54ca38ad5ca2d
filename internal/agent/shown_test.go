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
	"github.com/havenha/haven/internal/postgres/session"
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

// TestWhatWasAnsweredIsKept for the moment in which the next look has no answer.
func TestWhatWasAnsweredIsKept(t *testing.T) {
	a := &Agent{}
	a.st.process, a.st.watching = &postgres.Server{}, true
	probe := &postgres.Probe{InRecovery: true}
	a.takeSeen(t.Context(), seen{process: ha.ProcessUp, probe: probe, at: bootclock.Now()})
	a.takeSeen(t.Context(), seen{process: ha.ProcessUp, probeErr: fmt.Errorf("heartbeat: no answer: %w", context.DeadlineExceeded)})
	if got := a.shown().probe; got != probe {
		t.Errorf("after one look without an answer %v is shown", got)
	}
}

// TestABusySessionProvesNothing: that others asked first is no reason to read the end of the WAL from the disk again, and to tell nobody
// how far this member is until that is done.
func TestABusySessionProvesNothing(t *testing.T) {
	for err, grounded := range map[error]bool{fmt.Errorf("probe: %w", session.ErrBusy): true, errors.New("probe: the connection ended"): false} {
		a := &Agent{}
		a.st.grounded = true
		a.takeSeen(t.Context(), seen{process: ha.ProcessUp, probeErr: err})
		if a.st.grounded != grounded {
			t.Errorf("%v: %v", err, a.st.grounded)
		}
	}
}
