package drill

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"github.com/havenha/haven/internal/check"
	"github.com/havenha/haven/internal/cluster"
	"github.com/jackc/pgx/v5"
)

// client makes one operation after another by one route, on a connection that is made anew after a failure.
type client struct {
	run    *Run
	number int
	route  string
	dsn    string
	rng    *rand.Rand
	turn   func(ctx context.Context, c *client, n int)

	session  *session
	sessions int
	lastList string // the list that this client appended to last
}

// crew are the clients of all routes, in an order that depends on the load alone.
func (r *Run) crew() []*client {
	var all []*client
	add := func(n int, route, dsn string, turn func(context.Context, *client, int)) {
		for range n {
			seed := uint64(len(all) + 1)
			all = append(all, &client{run: r, route: route, dsn: dsn, turn: turn, rng: rand.New(rand.NewPCG(r.load.Seed, seed))})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.load.Routes)) {
		dsn := r.load.Routes[name]
		add(r.load.Clients.Ledger, name, dsn, ledgerTurn)
		add(r.load.Clients.Registers, name, dsn, registerTurn)
		add(r.load.Clients.Lists, name, dsn, listTurn)
		add(r.load.Clients.Transfers, name, dsn, transferTurn)
		add(r.load.Clients.Readers, name, dsn, readerTurn)
	}
	for _, name := range slices.Sorted(maps.Keys(r.load.ReadRoutes)) {
		add(r.load.Clients.Readers, name, r.load.ReadRoutes[name], func(ctx context.Context, c *client, _ int) { c.sum(ctx) })
	}
	return all
}

func (c *client) work(ctx context.Context) {
	defer c.hangUp()
	for n := 0; ctx.Err() == nil; n++ {
		c.turn(ctx, c, n)
		pause(ctx, c.run.load.Pause)
	}
}

func (c *client) hangUp() {
	if c.session != nil {
		c.session.close()
		c.session = nil
	}
}

// attempt is an operation while it is made.
type attempt struct {
	check.Operation
	conn  *pgx.Conn
	stage stage
}

// do makes one operation and records it. body sends its statements and fills in what they answer. An operation that has
// begun is brought to its end, also if the load is being stopped.
func (c *client) do(ctx context.Context, o check.Operation, body func(ctx context.Context, a *attempt) error) check.Operation {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.run.load.Timeout)
	defer cancel()
	a := &attempt{Operation: o}
	a.ID, a.Client, a.Route, a.Start = c.run.ids.Add(1), c.number, c.route, c.run.Now()
	err := c.connect(ctx)
	a.Session = c.sessions
	if err == nil {
		a.conn = c.session.conn
		a.stage = committing
		if a.InTransaction {
			err = a.inTransaction(ctx, body)
		} else {
			err = body(ctx, a)
		}
		if err == nil && c.session.unfaithful() {
			err = errUnconfirmed
		}
	}
	a.End = c.run.Now()
	if a.Outcome = judge(err, a.stage); err != nil {
		a.Output = nil
		a.SQLSTATE, a.Error = describe(err, a.stage)
		c.afterFailure(a)
	}
	c.run.record(a.Operation)
	return a.Operation
}

func (c *client) connect(ctx context.Context) error {
	if c.session != nil {
		return nil
	}
	c.sessions++
	s, err := c.run.open(ctx, c.dsn)
	c.session = s
	return err
}

// afterFailure gives the connection up, since behind a proxy a new one may lead to another server. Where the route has only
// one, a statement that was refused does no harm to the connection.
func (c *client) afterFailure(a *attempt) {
	direct := strings.HasPrefix(c.route, "direct:")
	if direct && a.Outcome == check.Failed && !a.InTransaction && c.session != nil && !a.conn.IsClosed() {
		return
	}
	c.hangUp()
}

// inTransaction runs the body between BEGIN and COMMIT.
func (a *attempt) inTransaction(ctx context.Context, body func(ctx context.Context, a *attempt) error) error {
	a.stage = open
	tx, err := a.conn.Begin(ctx)
	if err != nil {
		return err
	}
	if err := body(ctx, a); err != nil {
		return err
	}
	a.stage = committing
	return tx.Commit(ctx)
}

// who is asked in the statement itself, which costs no round trip: the server's address, and its timeline, on which WAL
// is inserted; empty in recovery, where nothing is.
const who = ` coalesce(host(inet_server_addr()) || ':' || inet_server_port(), ''),
 CASE WHEN pg_is_in_recovery() THEN '' ELSE substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END`

// ask runs a statement whose result ends with who, and scans what is before it into dest.
func (c *client) ask(ctx context.Context, a *attempt, query string, args []any, dest ...any) error {
	var address, timeline string
	if err := a.conn.QueryRow(ctx, query, args...).Scan(append(dest, &address, &timeline)...); err != nil {
		if errors.Is(err, pgx.ErrNoRows) {
			return errNoRow
		}
		return err
	}
	a.Member = c.memberAt(address)
	a.Standby = timeline == ""
	if n, err := strconv.ParseUint(timeline, 16, 32); err == nil {
		a.Timeline = cluster.Timeline(n)
	}
	return nil
}

// memberAt is the name of the server at an address, as far as it is known.
func (c *client) memberAt(address string) string {
	if name, ok := c.run.load.Members[address]; ok {
		return name
	}
	if name, ok := strings.CutPrefix(c.route, "direct:"); ok {
		return name
	}
	return address
}
