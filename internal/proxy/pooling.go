package proxy

import (
	"cmp"
	"context"
	"net"
	"slices"
	"time"

	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/proxy/addresses"
	"github.com/havenha/haven/internal/proxy/login"
	"github.com/havenha/haven/internal/proxy/pooled"
)

// terms are those on which a pooled listener lends, as the configuration says.
func terms(l *listener, p *config.Proxy, c config.Listener) (pooled.Terms, error) {
	accept, server, err := login.Read(login.Options{Proxy: p, Cluster: &pool{l}, HostOf: hostOf, ConnectTimeout: c.ConnectTimeout})
	if err != nil {
		return pooled.Terms{}, err
	}
	return pooled.Terms{
		Pool: c.Pool, PoolFor: func(database, user string) config.Pool { return p.Overrides.For(c.Pool, database, user) },
		Accept: accept, ServerTLS: server, HoldTimeout: c.HoldTimeout, ConnectTimeout: c.ConnectTimeout,
	}, nil
}

// open makes the door of a pooled listener.
func open(l *listener, p *config.Proxy, c config.Listener) (*pooled.Door, error) {
	t, err := terms(l, p, c)
	if err != nil {
		return nil, err
	}
	return pooled.New(pooled.Options{Cluster: &pool{l}, Mode: c.Mode, Terms: t, HostOf: hostOf, Log: l.log}), nil
}

// pool is the cluster as a pooled listener sees it.
type pool struct{ l *listener }

func (p *pool) Why() string {
	b := p.l.board
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.route(p.l.ledger, time.Now()).why
}

// toPrimary tells whether clients of the listener are at the primary, or are led there now.
func (l *listener) toPrimary() bool {
	b := l.board
	b.mu.Lock()
	defer b.mu.Unlock()
	if !l.ledger.rule.replica || b.route(l.ledger, time.Now()).primary {
		return true
	}
	for s := range b.sessions {
		if s.ledger == l.ledger && s.pick.primary {
			return true
		}
	}
	return false
}

// Unfit are, of a pool of replicas, the servers that new sessions are not led to, while they are led to others.
func (p *pool) Unfit() map[string]bool {
	b, l := p.l.board, p.l.ledger
	b.mu.Lock()
	defer b.mu.Unlock()
	if !l.rule.replica {
		return nil
	}
	now := time.Now()
	return unfit(b.view(now), l.rule, func(server string) bool { return now.Sub(l.tally(server).since) >= settling })
}

// settling is longer than members' keys usually take to tell of another position (loop_wait).
const settling = time.Minute

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
	if turns := l.board.turns(l.ledger, k); !turns.take(time.Now()) {
		turns.await(ctx, func() {})
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
	c, err := addresses.Dial(ctx, s.s.pick.addresses)
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

// doubt is how long a server has to answer that is in doubt. Its kernel has accepted a connection, so the network is not slow.
const doubt = 2 * time.Second

// Doubted keeps the admission while the server answers what a check of its leader would ask it: a login may be held up by a lock on its
// database, or by a directory of passwords, and that is no affair of the other pools.
func (s *seat) Doubted(ctx context.Context, why string) {
	checking, cancel := context.WithTimeout(ctx, doubt)
	defer cancel()
	err := probe(checking, s.s.pick.addresses)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		s.Failed(why)
	default:
		s.board.erred(s.s.ledger, s.s.pick)
	}
}

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
	// Statements, or batches of them, were answered; In and Out are bytes from clients and to them.
	Statements uint64 `json:"statements_total"`
	In         uint64 `json:"bytes_in"`
	Out        uint64 `json:"bytes_out"`
	// Open transactions now, how long the longest is open, and how long a client has said nothing within one.
	Transactions           int     `json:"open_transactions"`
	LongestTransaction     float64 `json:"longest_transaction_seconds"`
	LongestIdleTransaction float64 `json:"longest_idle_transaction_seconds"`

	testing, maxServers int
	lendings, waits     pooled.Histogram
}

// LongTransaction is a transaction that has been open for a second or more. Durations are in seconds.
type LongTransaction struct {
	Database    string  `json:"database"`
	User        string  `json:"user"`
	Client      string  `json:"client"` // its address
	Application string  `json:"application_name"`
	Server      string  `json:"server"`
	PID         uint32  `json:"pid"` // of the server's process
	Open        float64 `json:"open_seconds"`
	// Silent is how long the client has said nothing, while it was its turn.
	Silent float64 `json:"silent_seconds"`
}

// maxLong is how many long transactions of a listener are shown: the longest.
const maxLong = 20

// add adds the numbers of another pool that are shown as metrics.
func (p *PoolStats) add(q PoolStats) {
	p.ClientsActive, p.ClientsWaiting = p.ClientsActive+q.ClientsActive, p.ClientsWaiting+q.ClientsWaiting
	p.ServersActive, p.ServersIdle, p.ServersLogin = p.ServersActive+q.ServersActive, p.ServersIdle+q.ServersIdle, p.ServersLogin+q.ServersLogin
	p.MaxWait, p.Size, p.maxServers = max(p.MaxWait, q.MaxWait), max(p.Size, q.Size), max(p.maxServers, q.maxServers)
	p.Lendings, p.LendingTime, p.WaitTime = p.Lendings+q.Lendings, p.LendingTime+q.LendingTime, p.WaitTime+q.WaitTime
	p.Statements, p.In, p.Out = p.Statements+q.Statements, p.In+q.In, p.Out+q.Out
	p.Transactions, p.testing = p.Transactions+q.Transactions, p.testing+q.testing
	p.LongestTransaction, p.LongestIdleTransaction = max(p.LongestTransaction, q.LongestTransaction), max(p.LongestIdleTransaction, q.LongestIdleTransaction)
	p.lendings, p.waits = p.lendings.Plus(q.lendings), p.waits.Plus(q.waits)
}

// pooled adds the pools of a door to a listener's numbers.
func (l *ListenerStats) pooled(d *pooled.Door) {
	l.Held, l.Timeouts, l.Rejected = d.Totals()
	for _, s := range d.Snapshot() {
		lendings, waits := total(s.Lendings), total(s.Waits)
		l.Pools = append(l.Pools, PoolStats{
			Database: shown(s.Database), User: shown(s.User), ClientsActive: s.ClientsActive, ClientsWaiting: s.ClientsWaiting, ServersActive: s.ServersActive,
			ServersIdle: s.ServersIdle, ServersLogin: s.ServersLogin, MaxWait: s.MaxWait.Seconds(), Size: s.PoolSize,
			Lendings: lendings, LendingTime: s.Lendings.Sum.Seconds(), Waits: waits, WaitTime: s.Waits.Sum.Seconds(),
			Statements: s.Turns, In: s.Sent, Out: s.Received,
			Transactions: s.OpenTransactions, LongestTransaction: s.LongestTransaction.Seconds(),
			LongestIdleTransaction: s.LongestIdleTransaction.Seconds(),
			testing:                s.Testing, maxServers: s.MaxDBConnections, lendings: s.Lendings, waits: s.Waits,
		})
		for _, t := range s.Long {
			l.Long = append(l.Long, LongTransaction{
				Database: shown(s.Database), User: shown(s.User), Client: t.Client, Application: shown(t.Application), Server: shown(t.Server),
				PID: t.PID, Open: t.Open.Seconds(), Silent: t.Silent.Seconds(),
			})
		}
		l.Waiting += s.ClientsWaiting
		l.OldestWait = max(l.OldestWait, s.MaxWait.Seconds())
	}
	slices.SortStableFunc(l.Long, func(a, b LongTransaction) int { return cmp.Compare(b.Open, a.Open) })
	l.Long = l.Long[:min(len(l.Long), maxLong)]
}

func total(h pooled.Histogram) (n uint64) {
	for _, c := range h.Counts {
		n += c
	}
	return n
}
