package agent

import (
	"context"
	"errors"
	"slices"

	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/postgres"
)

// restoring is the operator's own way to make the first database; nil: initdb makes it.
func restoring(n *config.Node) *postgres.Restoring {
	m := n.Bootstrap.Method
	if m.Command == "" {
		return nil
	}
	return &postgres.Restoring{Name: m.Name, Command: m.Command, Args: m.Args, NoParams: m.NoParams, KeepRecovery: m.KeepRecovery, Recovery: m.Recovery}
}

// makeDatabase makes the first database of a cluster.
func (a *Agent) makeDatabase(ctx context.Context, method *postgres.Restoring) error {
	if method == nil {
		return a.server.InitDB(ctx)
	}
	return a.server.Restore(ctx, *method)
}

// startFounded starts the first database of a cluster, as a primary, with its roles made.
func (a *Agent) startFounded(ctx context.Context, in input, s postgres.Settings, method *postgres.Restoring, e *effects) error {
	if s.HBA == nil && (method != nil || len(in.node.Bootstrap.HBA) > 0) {
		lines, err := a.server.ReadHBA() // initdb's, or the backup's
		if err != nil {
			return err
		}
		if s.HBA = slices.Concat(lines, in.node.Bootstrap.HBA); len(s.HBA) == 0 {
			s.HBA = []string{"local all all peer"}
		}
	}
	if method == nil {
		if err := a.startWith(ctx, s, nil, false, e); err != nil {
			return err
		}
		return a.server.PostBootstrap(ctx, bootstrapOf(in.node))
	}
	p, err := a.server.StartRestored(ctx, s, *method)
	e.process = p
	if err == nil {
		err = a.server.PostBootstrap(ctx, bootstrapOf(in.node))
	}
	if err != nil {
		return err
	}
	finish := func(ctx context.Context, s postgres.Settings) (*postgres.Server, error) {
		p, err := a.server.FinishRestored(ctx, s)
		if p == nil && err == nil {
			err = errors.New("the server did not start")
		}
		return p, err
	}
	return a.startBy(ctx, finish, s, nil, e)
}

func bootstrapOf(n *config.Node) postgres.Bootstrap {
	b := postgres.Bootstrap{PostCommand: n.Bootstrap.PostBootstrap}
	for _, d := range n.Bootstrap.Databases {
		b.Databases = append(b.Databases, postgres.Database{Name: d.Name, Owner: d.Owner, Password: d.Password})
	}
	return b
}
