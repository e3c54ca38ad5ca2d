package login

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/havenha/haven/internal/pgwire"
	"github.com/havenha/haven/internal/proxy/pooled"
)

const (
	// maxAsking bounds the lookups that run at once.
	maxAsking = 8
	// keepFor is how long a session serves lookups, from when it was opened: then the next one is led to whatever server is to be used.
	// Anybody who can connect has one made, and a server starts a process for each.
	keepFor = 5 * time.Second
)

// errLost: the session has failed, in time.
var errLost = errors.New("the lookup has failed")

// asker looks secrets up at the server that is admitted (PgBouncer's auth_query).
type asker struct {
	cluster pooled.Cluster
	hostOf  func(pooled.Seat) string
	login   pgwire.LoginOptions
	query   string
	// patience is how long the server may take to answer.
	patience time.Duration
	asking   chan struct{}

	mu   sync.Mutex
	kept []*lookup // sessions that nobody uses, the one that was used last at the end
}

// lookup is a session for lookups.
type lookup struct {
	seat   pooled.Seat
	server *pgwire.Server
	opened time.Time
	expiry *time.Timer // while it is kept
	ended  atomic.Bool
}

// end ends the session, once.
func (l *lookup) end() {
	if l.ended.CompareAndSwap(false, true) {
		_ = l.server.Terminate() // a good-bye
		l.seat.Leave(0, 0)
	}
}

// Secret runs auth_query on a session of its own, so that it holds up neither a pool nor a change of leader.
func (a *asker) Secret(ctx context.Context, user string) (pgwire.Secret, error) {
	select {
	case a.asking <- struct{}{}:
	case <-ctx.Done():
		return pgwire.Secret{}, ctx.Err()
	}
	defer func() { <-a.asking }()
	for l := a.take(); l != nil; l = a.take() {
		if !l.expiry.Stop() || l.ended.Load() || !l.seat.Valid() {
			l.end()
			continue
		}
		secret, err := a.ask(ctx, l, user)
		if !errors.Is(err, errLost) {
			return secret, err
		}
	}
	l, err := a.open(ctx)
	if err != nil {
		return pgwire.Secret{}, err
	}
	return a.ask(ctx, l, user)
}

// take gives a session that was kept, the newest one; nil: there is none.
func (a *asker) take() *lookup {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := len(a.kept)
	if n == 0 {
		return nil
	}
	l := a.kept[n-1]
	a.kept = a.kept[:n-1]
	return l
}

// keep leaves a session for the next lookup.
func (a *asker) keep(l *lookup) {
	a.mu.Lock()
	defer a.mu.Unlock()
	l.expiry = time.AfterFunc(keepFor-time.Since(l.opened), l.end) // at once if that is over
	a.kept = append(a.kept, l)
}

// open opens a session, which the cluster may cut at any time.
func (a *asker) open(ctx context.Context) (*lookup, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	over, cut := context.WithCancel(context.Background())
	defer context.AfterFunc(over, cancel)()
	seat, err := a.cluster.Connect(ctx, cut)
	if err != nil {
		return nil, err
	}
	o := a.login
	o.Host = a.hostOf(seat)
	answered, end := context.WithTimeout(ctx, a.patience)
	defer end()
	server, err := pgwire.Login(answered, seat.Conn(), o)
	if err != nil {
		a.doubt(ctx, answered, seat, err)
		seat.Leave(0, 0)
		return nil, err
	}
	l := &lookup{seat: seat, server: server, opened: time.Now()}
	context.AfterFunc(over, l.end)
	return l, nil
}

// ask looks a secret up, and keeps the session if it is good for another one.
func (a *asker) ask(ctx context.Context, l *lookup, user string) (pgwire.Secret, error) {
	answered, end := context.WithTimeout(ctx, a.patience)
	defer end()
	secret, err := pgwire.QuerySecret(answered, l.server, a.query, user)
	if err == nil || errors.Is(err, pgwire.ErrUnknownUser) {
		a.keep(l)
		return secret, err
	}
	l.end()
	if answered.Err() == nil {
		return secret, fmt.Errorf("%w: %w", errLost, err)
	}
	a.doubt(ctx, answered, l.seat, err)
	return secret, err
}

// doubt tells the cluster of a server that has not answered in time.
func (a *asker) doubt(ctx, answered context.Context, seat pooled.Seat, err error) {
	if answered.Err() != nil && ctx.Err() == nil {
		seat.Doubted(ctx, err.Error())
	}
}
