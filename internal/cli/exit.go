package cli

import (
	"context"
	"errors"
	"strings"

	"github.com/havenha/haven/internal/agent"
	"github.com/havenha/haven/internal/app"
	"github.com/havenha/haven/internal/dcs"
	"github.com/havenha/haven/internal/dcs/etcd"
)

// Exit codes. They are stable.
const (
	ExitOK          = 0
	ExitFailed      = 1 // failed, not classified
	ExitUsage       = 2
	ExitConfig      = 3 // the configuration has faults
	ExitRefused     = 4 // refused by a precondition: nothing changed
	ExitTimeout     = 5 // cancelled or timed out while waiting; the state was printed
	ExitNotFound    = 6
	ExitConflict    = 7 // somebody else acts, or leadership moved: try again
	ExitUnreachable = 8
	ExitMismatch    = 9 // a verification failed
	ExitForbidden   = 11
	ExitDegraded    = 20 // status --exit-code
	ExitCritical    = 21
	ExitUnknown     = 22
	ExitInterrupted = 130
)

// Failure is an error for a person: what happened, what it means, what to do next. Means and Next may be empty.
type Failure struct {
	Code              int
	What, Means, Next string
}

func (f *Failure) Error() string {
	var b strings.Builder
	b.WriteString(f.What)
	for _, line := range []struct{ label, text string }{{"", f.Means}, {"next: ", f.Next}} {
		if line.text != "" {
			b.WriteString("\n  " + line.label + strings.ReplaceAll(line.text, "\n", "\n        "))
		}
	}
	return b.String()
}

// exitOf is the exit code of an error.
func exitOf(ctx context.Context, err error) int {
	var f *Failure
	var c *app.ConfigError
	var u *etcd.Unreachable
	var p *app.PreconditionError
	var fatal *agent.FatalError
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &f):
		return f.Code
	case errors.As(err, &c):
		return ExitConfig
	case errors.As(err, &p), errors.As(err, &fatal):
		return ExitRefused
	case etcd.Refused(err):
		return ExitForbidden
	case errors.Is(err, dcs.ErrConflict):
		return ExitConflict
	case errors.As(err, &u):
		return ExitUnreachable
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return ExitInterrupted
	case errors.Is(err, context.DeadlineExceeded):
		return ExitTimeout
	}
	return ExitFailed
}

// verdictCode ends a command with a code and without a message: its output has said everything.
type verdictCode int

func (verdictCode) Error() string { return "" }

func usage(what, next string) *Failure { return &Failure{Code: ExitUsage, What: what, Next: next} }
