package pooled

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/pgwire"
	"github.com/havenha/haven/internal/pool"
)

// The modes: how long a client keeps a server connection.
const (
	Session     = "session"
	Transaction = "transaction"
	Statement   = "statement"
)

// tick is how often limits of time are looked at.
const tick = 100 * time.Millisecond

// cancelAnswer is how long whoever sends a cancel request waits at most.
const cancelAnswer = 500 * time.Millisecond

// Options are what a Door is made from.
type Options struct {
	Cluster Cluster
	Mode    string
	// HostOf names the host of a server, for the verification of its certificate; nil: it has no name.
	HostOf func(Seat) string
	Log    *slog.Logger
	// Terms hold until Reconfigure gives others.
	Terms
}

// Terms are those on which a Door lends. They may change while clients are there, but for Pool.TrackExtraParameters.
type Terms struct {
	Pool config.Pool
	// PoolFor gives the settings of one database and user; nil: Pool holds for all.
	PoolFor func(database, user string) config.Pool
	// Accept is how clients log in. Admit and LoginTimeout are set here.
	Accept pgwire.AcceptOptions
	// ServerTLS is how servers are logged in to; user, database and credential are set here.
	ServerTLS pgwire.LoginOptions
	// HoldTimeout bounds a wait for a server of the cluster, ConnectTimeout a login to it.
	HoldTimeout, ConnectTimeout time.Duration
}

// poolFor is the pool of a database and user.
func (t *Terms) poolFor(database, user string) *config.Pool {
	p := t.Pool
	if t.PoolFor != nil {
		p = t.PoolFor(database, user)
	}
	return &p
}

type (
	account = pool.Conn[*server, *client]
	waiter  = pool.Waiter[*server, *client]
)

// Door lets the clients of one listener in.
type Door struct {
	opt     Options // of its Terms nothing is read after New
	terms   atomic.Pointer[Terms]
	tracked tracked
	buffers buffers
	prefix  string // of the names of prepared statements at servers
	ctx     context.Context
	end     context.CancelFunc
	tasks   sync.WaitGroup
	control chan struct{} // bounds connections beside the pools

	strangers strangers
	arrivals  arrivals
	admitted  atomic.Int64  // clients that have logged in
	rejected  atomic.Uint64 // because there were too many
	waited    atomic.Uint64 // waits for a server connection that have ended
	timeouts  atomic.Uint64 // waits that hold_timeout has ended
	unnamed   atomic.Uint64 // unnamed statements so far

	look uint32 // whom dismiss looks at in this tick; of the goroutine that watches alone

	mu      sync.Mutex
	closed  bool
	held    time.Time // no transactions begin before; zero: they do
	without time.Time // since when there is no server, but for moments; zero: there is one
	back    time.Time // since when there is one again
	book    *pool.Book[*server, *client]
	lanes   map[pool.Key]*lane
	swept   time.Time
	clients map[uint32]*client // by the PID of their cancel keys
	servers map[*server]struct{}
}

// lane is what all clients of one database and user share.
type lane struct {
	key     pool.Key
	pool    *pool.Pool[*server, *client]
	set     atomic.Pointer[config.Pool] // never changed, only replaced
	tracks  bool                        // prepared statements are followed; settled with the lane, since clients have some
	counted counters

	// Guarded by the door.
	unused     bool // for the time between two sweeps
	credential pgwire.Credential
	welcome    []pgwire.Param    // what a new session of a server reports
	base       params            // of those that are tracked
	known      map[string]params // by startup parameters: what comes of them, beside base
}

// New makes a door. Close it after use.
func New(o Options) *Door {
	d := &Door{
		opt: o, tracked: track(o.Pool.TrackExtraParameters), book: pool.New[*server, *client](), lanes: map[pool.Key]*lane{},
		clients: map[uint32]*client{}, servers: map[*server]struct{}{}, control: make(chan struct{}, 4),
	}
	var random [4]byte
	rand.Read(random[:]) // never fails
	d.prefix = "hv_" + hex.EncodeToString(random[:]) + "_"
	d.terms.Store(&o.Terms)
	d.ctx, d.end = context.WithCancel(context.Background())
	d.tasks.Go(d.watch)
	return d
}

// Serve leads one client until it leaves. It closes the connection.
func (d *Door) Serve(conn net.Conn) {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		conn.Close()
		return
	}
	d.tasks.Add(1)
	d.mu.Unlock()
	defer d.tasks.Done()
	t := d.terms.Load()
	o := t.Accept
	o.LoginTimeout = t.Pool.ClientLoginTimeout
	ctx, end := context.WithCancel(d.ctx)
	known, arrived := d.strangers.come(conn, t.Pool.MaxClientConn), func() {}
	o.Admit = func(_ context.Context, who *pgwire.Client) *pgwire.Error {
		arrived = d.arrivals.come(conn, end)
		return d.admit(who)
	}
	who, err := pgwire.Accept(ctx, conn, o)
	arrived()
	end()
	known()
	if err != nil {
		d.turnedAway(conn, err)
		return
	}
	if who.Cancel != nil {
		done := make(chan struct{})
		d.tasks.Go(func() { d.cancel(who.Cancel); close(done) })
		select { // whoever asks waits for the end of the connection, but not for a standby
		case <-done:
		case <-time.After(cancelAnswer):
		}
		who.Conn.Close()
		return
	}
	d.lead(who)
}

// turnedAway notes that somebody did not get in. Who was not refused has left, or has said nothing that makes sense.
func (d *Door) turnedAway(conn net.Conn, err error) {
	level := slog.LevelDebug
	var refused *pgwire.Refused
	if errors.As(err, &refused) && !errors.Is(err, context.Canceled) {
		level = slog.LevelInfo
	}
	d.opt.Log.Log(d.ctx, level, "a client did not get in", "client", conn.RemoteAddr().String(), "error", err)
}

func (d *Door) lead(who *pgwire.Client) {
	c := newClient(d, who)
	if refusal := d.crowded(d.admitted.Add(1)); refusal != nil {
		d.admitted.Add(-1)
		_ = c.refuse(refusal) // it is refused already
		who.Conn.Close()
		return
	}
	defer d.admitted.Add(-1)
	if !d.enter(c) {
		who.Conn.Close()
		return
	}
	defer d.leave(c)
	if c.greet() == nil {
		c.run()
	}
}

// admit refuses clients before they prove anything. It counts nobody: whoever may say any name would else keep out those that have one.
func (d *Door) admit(who *pgwire.Client) *pgwire.Error {
	if who.Replication {
		return &pgwire.Error{Code: "0A000", Message: "replication connections are not pooled", Hint: "Connect to the server itself, or to a listener with mode tcp."}
	}
	if _, err := d.wishes(who.Params); err != nil {
		return err
	}
	return d.crowded(d.admitted.Load() + 1)
}

// crowded refuses somebody if so many clients are too many.
func (d *Door) crowded(clients int64) *pgwire.Error {
	if most := int64(d.terms.Load().Pool.MaxClientConn); most <= 0 || clients <= most {
		return nil
	}
	d.rejected.Add(1)
	return &pgwire.Error{Code: "53300", Message: "no more connections allowed (max_client_conn)"}
}

func (d *Door) enter(c *client) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return false
	}
	key := pool.Key{Database: c.who.Database, User: c.who.User}
	l := d.lanes[key]
	if l == nil {
		l = &lane{key: key, known: map[string]params{}}
		l.set.Store(d.terms.Load().poolFor(key.Database, key.User))
		l.tracks = l.set.Load().MaxPreparedStatements > 0
		l.pool = d.book.Pool(key, accounts(l.set.Load()))
		d.lanes[key] = l
	}
	l.credential = l.credential.Renewed(c.who.Credential, key.User)
	l.unused = false
	c.lane = l
	for {
		var random [4]byte
		rand.Read(random[:]) // never fails
		c.key.PID = binary.BigEndian.Uint32(random[:]) & 0x7fffffff
		if _, taken := d.clients[c.key.PID]; c.key.PID != 0 && !taken {
			break
		}
	}
	d.clients[c.key.PID] = c
	return true
}

// leastRetry is the pause before a login is tried again, though server_login_retry be shorter: servers that are full are left some peace.
const leastRetry = tick

// accounts are the settings that the books need.
func accounts(s *config.Pool) pool.Settings {
	return pool.Settings{
		Size: s.DefaultPoolSize, Min: s.MinPoolSize, Reserve: s.ReservePoolSize, ReserveAfter: s.ReservePoolTimeout,
		WaitLimit: s.QueryWaitTimeout, Lifetime: s.ServerLifetime, Once: s.ServerLifetime == 0, IdleLimit: s.ServerIdleTimeout,
		MaxDatabase: s.MaxDBConnections, MaxUser: s.MaxUserConnections, RetryAfter: min(max(s.ServerLoginRetry, leastRetry), time.Second),
	}
}

func (d *Door) leave(c *client) {
	c.part()
	if c.doomed.Load() { // whoever doomed it has words for it, and closes it then
		_ = c.conn.SetReadDeadline(time.Now().Add(2 * lastWord))
		_, _ = io.Copy(io.Discard, c.conn)
	}
	c.conn.Close()
	c.in.release()
	d.mu.Lock()
	delete(d.clients, c.key.PID)
	d.mu.Unlock()
}

// Close ends all clients and servers, and returns when all is done. Those who wait, and those whose transaction it ends, are told so.
func (d *Door) Close() {
	d.mu.Lock()
	d.closed = true
	var clients []*client
	for _, c := range d.clients {
		if d.book.Leave(&c.waiter) {
			c.grant <- grant{err: &pgwire.Error{Code: "57P01", Message: "the proxy shuts down"}} // it leaves by itself then
		} else {
			clients = append(clients, c)
		}
	}
	var servers []*server
	for s := range d.servers {
		servers = append(servers, s)
	}
	d.mu.Unlock()
	d.end()
	for _, s := range servers {
		s.cut()
	}
	told, over := context.WithTimeout(context.Background(), lastWord)
	defer over()
	for _, s := range servers {
		select {
		case <-s.told:
		case <-told.Done():
		}
	}
	for _, c := range clients {
		if !c.doomed.Load() { // else it is just being told, and ended then
			c.in.end()
		}
	}
	d.tasks.Wait()
}

// watch looks at limits of time until the door is closed.
func (d *Door) watch() {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-d.ctx.Done():
			return
		case <-t.C:
			d.turn(time.Now())
		}
	}
}

// steady is how long there has to be a server before an earlier want of one is over: one that comes and goes serves nobody.
const steady = time.Second

// present notes whether there is a server. The door is locked.
func (d *Door) present(there bool, now time.Time) {
	switch {
	case !there:
		d.back = time.Time{}
		if d.without.IsZero() {
			d.without = now
		}
	case d.back.IsZero():
		d.back = now
	case now.Sub(d.back) >= steady:
		d.without = time.Time{}
	}
}

func (d *Door) turn(now time.Time) {
	if d.look = (d.look + 1) % looks; d.look == 0 {
		d.arrivals.look()
	}
	why, unfit := d.opt.Cluster.Why(), d.opt.Cluster.Unfit()
	d.mu.Lock()
	d.present(why == "", now)
	if hold := d.terms.Load().HoldTimeout; why != "" && hold > 0 && now.Sub(d.without) >= hold { // others wait for a place in their pool
		n := d.book.Expire(hold, now, &pgwire.Error{Severity: "ERROR", Code: "57P03", Message: fmt.Sprintf("no server within hold_timeout (%s): %s", hold, why)})
		d.timeouts.Add(uint64(n))
	}
	d.outstayed(now)
	d.dismiss()
	d.book.Tick(now, &pgwire.Error{Code: "08P01", Message: "query_wait_timeout"})
	// What was idle when its admission ended is of no use any more.
	d.book.Each(func(a *account) {
		if !a.Server.seat.Valid() {
			d.book.Retire(a, now)
		}
	})
	d.desert(unfit, now)
	d.carry()
	if now.Sub(d.swept) >= sweep {
		d.swept = now
		d.sweep()
	}
	for _, c := range d.clients {
		c.in.watched()
	}
	for s := range d.servers {
		s.in.watched()
	}
	servers, clients := d.overdue()
	d.mu.Unlock()
	// Their last words may take a while.
	for _, o := range servers {
		d.tasks.Go(o.end)
	}
	for _, c := range clients {
		d.tasks.Go(c.idleTooLong)
	}
}

// desert gives up connections to servers that are unfit, one in a tick: so others take their places one by one. The door is locked.
func (d *Door) desert(unfit map[string]bool, now time.Time) {
	if len(unfit) == 0 {
		return
	}
	for s := range d.servers {
		if unfit[s.seat.Server()] && d.book.Retire(s.account, now) {
			return
		}
	}
}

// looks is how many ticks it takes to look at all who wait: about a second, for each look is a system call.
const looks = 10

// dismiss ends the waits of clients that have left: nobody reads them meanwhile, so nothing else would notice. The door is locked.
func (d *Door) dismiss() {
	for pid, c := range d.clients {
		if pid%looks == d.look && c.waiter.Waits() && c.in.hungUp() {
			d.book.Leave(&c.waiter)
			c.grant <- grant{err: errDeparted}
		}
	}
}

// sweep is how long a lane without clients and servers is kept at least.
const sweep = time.Minute

// sweep removes lanes that nobody has used since the last time: any name of a database makes one. The door is locked.
func (d *Door) sweep() {
	used := map[*lane]bool{}
	for _, c := range d.clients {
		used[c.lane] = true
	}
	for s := range d.servers {
		used[s.lane] = true
	}
	for key, l := range d.lanes {
		if !used[l] && l.unused && d.book.Remove(l.pool) {
			delete(d.lanes, key)
		}
		l.unused = !used[l]
	}
}

// carry hands on what the books say. The door is locked.
func (d *Door) carry() {
	for _, s := range d.book.Steps() {
		switch s.Do {
		case pool.Lend:
			s.Waiter.Client.grant <- grant{server: s.Conn.Server}
		case pool.Fail:
			s.Waiter.Client.grant <- grant{err: s.Why}
		case pool.Open:
			if d.closed {
				continue
			}
			l := d.lanes[s.Pool.Key]
			d.tasks.Go(func() { d.open(l) })
		case pool.Close:
			d.tasks.Go(s.Conn.Server.dismiss)
		}
	}
}
