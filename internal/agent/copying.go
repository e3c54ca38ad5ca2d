package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/postgres"
)

// copyMethods are the ways to make a copy that may be tried now, in their order: all of them, or where there is nobody to
// copy from those that need nobody. A copy of the leader that an operator asks for is made by the built-in one (Patroni,
// reinit --from-leader).
func copyMethods(in input) []config.Method {
	p := in.node.PostgresWith(in.dynamic)
	var out []config.Method
	for _, m := range p.ReplicaMethods {
		if m.Command != "" && in.fromLeader || in.action.Member == "" && !m.NoLeader {
			continue
		}
		out = append(out, m)
	}
	if len(out) == 0 && in.action.Member != "" {
		out = []config.Method{{Name: config.BaseBackupMethod}}
	}
	return out
}

// remoteMethods are the ways to make the first copy of a standby cluster, in their order; those that need no server to copy
// from where it names none.
func remoteMethods(in input, up *postgres.Upstream) []config.Method {
	methods := in.node.PostgresWith(in.dynamic).RemoteMethods
	if up != nil {
		return methods
	}
	return slices.DeleteFunc(methods, func(m config.Method) bool { return !m.NoLeader })
}

// copiesAlone tells whether a copy can be made without a member to copy from.
func copiesAlone(d config.Dynamic, node *config.Node) bool {
	return slices.ContainsFunc(node.PostgresWith(d).ReplicaMethods, func(m config.Method) bool { return m.NoLeader })
}

// copyBy makes a copy by the first of those methods that succeeds. up is nil where there is nobody to copy from.
func (a *Agent) copyBy(ctx context.Context, in input, methods []config.Method, up *postgres.Upstream, e *effects) error {
	options := in.node.PostgresWith(in.dynamic).BaseBackup
	var errs []error
	for _, m := range methods {
		how := postgres.CopyMethod{Name: m.Name, Command: m.Command, Options: options, Args: m.Args, NoParams: m.NoParams, KeepData: m.KeepData}
		if in.snap.Initialize.Valid() {
			how.SystemID = in.snap.Initialize.SystemID
		}
		err := a.server.CloneBy(ctx, up, how, a.progress())
		if err == nil {
			e.note("the copy was made by %s", m.Name)
			return nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
		if m.Command != "" {
			a.log.Error("a method of copying failed", "method", m.Name, "error", err)
		}
	}
	if len(errs) == 0 {
		return errors.New("no method of create_replica_methods works without a leader")
	}
	return fmt.Errorf("copy the database: %w", errors.Join(errs...))
}
