package drill

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/havenha/haven/internal/check"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// TestOnlyProofIsFailed: what an error proves depends on how far the operation had come.
func TestOnlyProofIsFailed(t *testing.T) {
	server := func(severity, code string) error {
		return fmt.Errorf("exec: %w", &pgconn.PgError{Severity: severity, SeverityUnlocalized: severity, Code: code, Message: "no"})
	}
	lost := &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}
	for _, c := range []struct {
		name string
		err  error
		at   stage
		want check.Outcome
	}{
		{"acknowledged", nil, committing, check.OK},
		{"no connection", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, connecting, check.Failed},
		{"server starts up", server("FATAL", "57P03"), connecting, check.Failed},
		{"connection lost before COMMIT was sent", lost, open, check.Failed},
		{"server ended before COMMIT was sent", server("FATAL", "57P01"), open, check.Failed},
		{"read-only", server("ERROR", "25006"), committing, check.Failed},
		{"serialization", server("ERROR", "40001"), committing, check.Failed},
		{"cancelled statement", server("ERROR", "57014"), committing, check.Failed},
		{"COMMIT of a transaction that had failed", pgx.ErrTxCommitRollback, committing, check.Failed},
		{"server ended while a commit was under way", server("FATAL", "57P01"), committing, check.Unknown},
		{"server crashed while a commit was under way", server("WARNING", "57P02"), committing, check.Unknown},
		{"connection lost while a commit was under way", lost, committing, check.Unknown},
		{"no answer in time", context.DeadlineExceeded, committing, check.Unknown},
		{"a pooler that does not know", server("ERROR", "08007"), committing, check.Unknown},
		{"a pooler that lost its server", server("FATAL", "08P01"), committing, check.Unknown},
		{"a server that does not know", server("ERROR", "40003"), committing, check.Unknown},
		{"acknowledged with the warning that it is not replicated", errUnconfirmed, committing, check.Unknown},
		{"something else", errors.New("?"), committing, check.Unknown},
	} {
		if got := judge(c.err, c.at); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

// TestErrorsAreCountable: errors without a SQLSTATE come in a few words, whatever addresses and ports they name.
func TestErrorsAreCountable(t *testing.T) {
	for want, err := range map[string]error{
		"connect: refused":           fmt.Errorf("dial 127.0.0.1:4: %w", syscall.ECONNREFUSED),
		"connect: no answer in time": fmt.Errorf("dial 127.0.0.1:4: %w", context.DeadlineExceeded),
		"connect: unreachable":       fmt.Errorf("dial 127.0.0.1:4: %w", syscall.EHOSTUNREACH),
		"connect: connection lost":   fmt.Errorf("read 127.0.0.1:4: %w", syscall.ECONNRESET),
	} {
		if code, text := describe(err, connecting); code != "" || text != want {
			t.Errorf("%v: %q %q, want %q", err, code, text, want)
		}
	}
}
