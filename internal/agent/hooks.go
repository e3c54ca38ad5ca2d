package agent

import (
	"context"
	"errors"
	"fmt"

	"github.com/havenha/haven/internal/postgres"
)

// errPrePromote: the operator's script does not let this member be promoted.
var errPrePromote = errors.New("the pre_promote script did not succeed, so this member is not promoted")

// prePromote runs the operator's script before a promotion. Leadership is renewed meanwhile; should it be lost, the script
// is ended with the promotion. It has as long as a crashed primary has to come back (primary_start_timeout), but at least ttl.
func (a *Agent) prePromote(ctx context.Context, in input, e *effects) error {
	line := in.node.PostgresWith(in.dynamic).PrePromote
	ctx, cancel := context.WithTimeout(ctx, max(in.dynamic.PrimaryStartTimeout, in.dynamic.TTL))
	defer cancel()
	e.note("running the pre_promote script")
	err := a.server.RunHook(ctx, postgres.Hook{What: "postgresql.pre_promote", Line: line})
	a.log.Info(fmt.Sprintf("pre_promote script `%s` exited with %s", line, statusOf(err)))
	if err != nil {
		return fmt.Errorf("%w: %w", errPrePromote, err)
	}
	return nil
}

// clearedToPromote is prePromote with leadership proven again after it: it may have taken long.
func (a *Agent) clearedToPromote(ctx context.Context, in input, e *effects) error {
	if in.node.PostgresWith(in.dynamic).PrePromote == "" {
		return nil
	}
	if err := a.prePromote(ctx, in, e); err != nil {
		return err
	}
	if _, _, err := a.prove(ctx, *in.holder); err != nil {
		return fmt.Errorf("leadership could not be proven after the pre_promote script: %w", err)
	}
	return nil
}

// beforeStop runs the operator's script before the server is stopped in order; a server that must end at once is not kept
// for it. It has half of pg_ctl_timeout; whether it succeeds does not matter.
func (a *Agent) beforeStop(ctx context.Context, in input) {
	p := in.node.PostgresWith(in.dynamic)
	if p.BeforeStop == "" || a.server.Server() == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, p.PgCtlTimeout/2)
	defer cancel()
	err := a.server.RunHook(ctx, postgres.Hook{What: "postgresql.before_stop", Line: p.BeforeStop})
	a.log.Info(fmt.Sprintf("before_stop script `%s` exited with %s", p.BeforeStop, statusOf(err)))
}

// statusOf is how a script ended: its exit status, or what kept it from having one.
func statusOf(err error) string {
	var exit interface{ ExitCode() int }
	switch {
	case err == nil:
		return "0"
	case errors.As(err, &exit):
		return fmt.Sprint(exit.ExitCode())
	}
	return err.Error()
}
