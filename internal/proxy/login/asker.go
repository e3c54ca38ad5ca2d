package login

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/havenha/haven/internal/pgwire"
	"github.com/havenha/haven/internal/proxy/pooled"
)

// maxAsking bounds the lookups that run at once.
const maxAsking = 8

// asker looks secrets up at the server that is admitted (PgBouncer's auth_query).
type asker struct {
	cluster pooled.Cluster
	hostOf  func(pooled.Seat) string
	login   pgwire.LoginOptions
	query   string
	// patience is how long the server may take to answer.
	patience time.Duration
	asking   chan struct{}
}

// Secret runs auth_query on a connection of its own, so that it holds up neither a pool nor a change of leader.
func (a *asker) Secret(ctx context.Context, user string) (pgwire.Secret, error) {
	select {
	case a.asking <- struct{}{}:
	case <-ctx.Done():
		return pgwire.Secret{}, ctx.Err()
	}
	defer func() { <-a.asking }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cut := sync.OnceFunc(cancel)
	seat, err := a.cluster.Connect(ctx, cut)
	if err != nil {
		return pgwire.Secret{}, err
	}
	defer seat.Leave(0, 0)
	defer seat.Conn().Close()
	o := a.login
	o.Host = a.hostOf(seat)
	answered, end := context.WithTimeout(ctx, a.patience)
	defer end()
	secret, err := a.ask(answered, seat.Conn(), o, user)
	if err != nil && answered.Err() != nil && ctx.Err() == nil {
		seat.Doubted(ctx, err.Error())
	}
	return secret, err
}

func (a *asker) ask(ctx context.Context, conn net.Conn, o pgwire.LoginOptions, user string) (pgwire.Secret, error) {
	server, err := pgwire.Login(ctx, conn, o)
	if err != nil {
		return pgwire.Secret{}, err
	}
	defer func() { _ = server.Terminate() }() // a good-bye
	return pgwire.QuerySecret(ctx, server, a.query, user)
}
