package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"time"

	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/pgwire"
	"github.com/havenha/haven/internal/proxy/pooled"
)

// open makes the door of a pooled listener.
func (p *Proxy) open(l *listener, c config.Listener) (*pooled.Door, error) {
	a, cluster := p.config.Auth, &pool{l}
	server, err := serverTLS(a, p.config.TLS)
	if err != nil {
		return nil, err
	}
	accept, err := acceptOptions(a, p.config.TLS, cluster, server)
	if err != nil {
		return nil, err
	}
	return pooled.New(pooled.Options{
		Cluster: cluster, Mode: c.Mode, Pool: c.Pool, Accept: accept, ServerTLS: server,
		HostOf: hostOf, HoldTimeout: c.HoldTimeout, ConnectTimeout: c.ConnectTimeout, Log: l.log,
	}), nil
}

func acceptOptions(a config.ProxyAuth, t config.TLS, cluster pooled.Cluster, server pgwire.LoginOptions) (pgwire.AcceptOptions, error) {
	o := pgwire.AcceptOptions{SSLMode: pgwire.SSLMode(a.ClientMode)}
	var auth pgwire.AuthOptions
	var err error
	if a.Type == "hba" {
		text, err := os.ReadFile(a.HBAFile)
		if err != nil {
			return o, fmt.Errorf("auth_hba_file: %w", err)
		}
		if auth.Rules, err = pgwire.ParseRules(a.HBAFile, string(text)); err != nil {
			return o, err
		}
	} else if auth.Method, err = pgwire.ParseMethod(a.Type); err != nil {
		return o, err
	}
	if auth.Secrets, err = secrets(a, cluster, server); err != nil {
		return o, err
	}
	if o.Auth, err = pgwire.NewAuthenticator(auth); err != nil {
		return o, err
	}
	if o.TLS, err = clientTLS(a, t); err != nil {
		return o, err
	}
	err = o.Validate()
	return o, err
}

// secrets are those of the file, then those that the server knows.
func secrets(a config.ProxyAuth, cluster pooled.Cluster, server pgwire.LoginOptions) (pgwire.Secrets, error) {
	if a.File == "" {
		return noSecrets{}, nil
	}
	file, err := pgwire.OpenUserFile(a.File)
	if err != nil || a.User == "" {
		return file, err
	}
	own, err := file.Secret(context.Background(), a.User)
	if err != nil {
		return nil, fmt.Errorf("auth_user %s is not in auth_file: %w", a.User, err)
	}
	server.User, server.Database, server.Credential = a.User, a.Database, own.Credential()
	return pgwire.First(file, &asker{cluster: cluster, login: server, query: a.Query, asking: make(chan struct{}, maxAsking)}), nil
}

type noSecrets struct{}

func (noSecrets) Secret(context.Context, string) (pgwire.Secret, error) {
	return pgwire.Secret{}, pgwire.ErrUnknownUser
}

func clientTLS(a config.ProxyAuth, t config.TLS) (*tls.Config, error) {
	if !t.On() || a.ClientMode == "disable" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("proxy.tls: %w", err)
	}
	roots, err := authorities(t.CAFile)
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: roots, MinVersion: tls.VersionTLS12}, err
}

func serverTLS(a config.ProxyAuth, t config.TLS) (pgwire.LoginOptions, error) {
	roots, err := authorities(t.CAFile)
	return pgwire.LoginOptions{SSLMode: pgwire.SSLMode(a.ServerMode), TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}, err
}

// authorities reads certificates; nil without a file.
func authorities(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("proxy.tls.cafile: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("proxy.tls.cafile: %s holds no certificate", file)
	}
	return roots, nil
}

// pool is the cluster as a pooled listener sees it.
type pool struct{ l *listener }

func (p *pool) Why() string {
	b := p.l.board
	b.mu.Lock()
	defer b.mu.Unlock()
	return route(b.view(time.Now()), p.l.ledger.rule, p.l.ledger.loads()).why
}

// Connect opens a connection to the chosen server, in its turn, and enters it as a session of the board.
func (p *pool) Connect(ctx context.Context, cut func()) (pooled.Seat, error) {
	l := p.l
	for ctx.Err() == nil {
		k, changed, retry := l.board.choose(l.ledger)
		if k.server == "" {
			await(ctx, changed, retry)
			continue
		}
		if s := p.try(ctx, k, cut); s != nil {
			return s, nil
		}
	}
	return nil, ctx.Err()
}

func (p *pool) try(ctx context.Context, k pick, cut func()) pooled.Seat {
	l := p.l
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if k.admission != nil {
		defer context.AfterFunc(k.admission.ctx, cancel)()
	}
	if wait := l.board.turn(l.ledger, k); wait > 0 {
		sleep(ctx, wait)
	}
	if ctx.Err() != nil {
		l.board.drop(l.ledger, k)
		return nil
	}
	s := l.dial(ctx, nil, k, cut)
	if s == nil {
		return nil
	}
	return &seat{s, l.board}
}

// seat is a session of the board that serves many clients.
type seat struct {
	s     *session
	board *board
}

func (s *seat) Conn() net.Conn { return s.s.server }

func (s *seat) Dial(ctx context.Context) (net.Conn, error) {
	c, err := dial(ctx, s.s.pick.addresses)
	if err != nil {
		return nil, err
	}
	return c, nil
}

func (s *seat) Server() string { return s.s.pick.server }
func (s *seat) Primary() bool  { return s.s.pick.primary }

// hostOf is the name that a server's certificate has to have.
func hostOf(of pooled.Seat) string {
	s, ok := of.(*seat)
	if !ok {
		return ""
	}
	host, _, err := net.SplitHostPort(s.s.pick.address)
	if err != nil {
		return ""
	}
	return host
}

// Valid tells whether the admission holds. A replica that is none any more is cut.
func (s *seat) Valid() bool {
	return s.s.pick.admission == nil || s.s.pick.admission.ctx.Err() == nil
}

func (s *seat) Failed(why string) { s.board.failed(s.s.ledger, s.s.pick, why) }

func (s *seat) Leave(in, out int64) {
	close(s.s.ended)
	s.board.leave(s.s, in, out)
}

// PoolStats is one pool of a listener, in the words of PgBouncer's SHOW POOLS. Durations are in seconds.
type PoolStats struct {
	Database       string  `json:"database"`
	User           string  `json:"user"`
	ClientsActive  int     `json:"cl_active"`
	ClientsWaiting int     `json:"cl_waiting"`
	ServersActive  int     `json:"sv_active"`
	ServersIdle    int     `json:"sv_idle"`
	ServersLogin   int     `json:"sv_login"`
	MaxWait        float64 `json:"maxwait"`
	Size           int     `json:"pool_size"`
	// Lendings were ended: transactions, or sessions in that mode. LendingTime is the sum of their durations.
	Lendings    uint64  `json:"lendings_total"`
	LendingTime float64 `json:"lending_seconds_total"`
	Waits       uint64  `json:"waits_total"`
	WaitTime    float64 `json:"wait_seconds_total"`
	// Open transactions now, and the longest of those in which the client says nothing.
	Transactions           int     `json:"open_transactions"`
	LongestTransaction     float64 `json:"longest_transaction_seconds"`
	LongestIdleTransaction float64 `json:"longest_idle_transaction_seconds"`

	lendings, waits pooled.Histogram
}

// pooled adds the pools to a listener's numbers.
func (l *ListenerStats) pooled(pools []pooled.Stats) {
	for _, s := range pools {
		lendings, waits := total(s.Lendings), total(s.Waits)
		l.Pools = append(l.Pools, PoolStats{
			Database: s.Database, User: s.User, ClientsActive: s.ClientsActive, ClientsWaiting: s.ClientsWaiting, ServersActive: s.ServersActive,
			ServersIdle: s.ServersIdle, ServersLogin: s.ServersLogin, MaxWait: s.MaxWait.Seconds(), Size: s.PoolSize,
			Lendings: lendings, LendingTime: s.Lendings.Sum.Seconds(), Waits: waits, WaitTime: s.Waits.Sum.Seconds(),
			Transactions: s.OpenTransactions, LongestTransaction: s.LongestTransaction.Seconds(),
			LongestIdleTransaction: s.LongestIdleTransaction.Seconds(), lendings: s.Lendings, waits: s.Waits,
		})
		l.Waiting += s.ClientsWaiting
		l.OldestWait = max(l.OldestWait, s.MaxWait.Seconds())
	}
}

func total(h pooled.Histogram) (n uint64) {
	for _, c := range h.Counts {
		n += c
	}
	return n
}
