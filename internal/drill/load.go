// Package drill makes load with known content and records what became of every operation.
//
// Clients insert rows, write and read registers, append to lists, move money and read plainly, by each of several
// routes, in and outside of transactions. It guarantees that an operation counts as acknowledged only if the server's
// whole answer arrived, as failed only if it provably was not done and never will be, and that no value is sent twice.
// It needs nothing but PostgreSQL, and so measures any cluster. It leaves to the caller what is done to the cluster
// meanwhile, and to package check the judgement.
package drill

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/havenha/haven/internal/check"
	"github.com/havenha/haven/internal/journal"
	"github.com/jackc/pgx/v5/pgconn"
)

// Mix is how many clients of each kind use each route.
type Mix struct {
	Ledger    int // insert numbered rows, every second one in a transaction
	Registers int // write, read and compare-and-set a few rows
	Lists     int // append to an array and read it
	Transfers int // move money between accounts, in transactions
	Readers   int // read plainly: the sum of all accounts, and a row of their own that they write
}

// Load describes the clients.
type Load struct {
	// Routes are the connection strings by name. A name that begins with "direct:" and a member's name leads to that
	// member and no other.
	Routes map[string]string
	// ReadRoutes lead to standbys: only plain reads of the sum go there.
	ReadRoutes map[string]string
	// Members gives names to addresses, as host:port of the server that answers. An address without a name is recorded
	// as it is.
	Members map[string]string
	Clients Mix
	// Pause is how long a client waits between two operations (default 10 ms): figures of outages are as precise as it
	// is. Timeout bounds one operation, connecting included (default 2 s).
	Pause   time.Duration
	Timeout time.Duration
	// Schema holds the tables (default haven_drill). It is dropped and made anew.
	Schema string
	// Dial connects to the cluster; nil: as usual. Hosts with a network of their own are reached by theirs.
	Dial pgconn.DialFunc
	// Registers and Accounts are few, so that clients meet (defaults 3 and 10).
	Registers int
	Accounts  int
	// SynchronousCommit is set in every session; empty leaves the server's default.
	SynchronousCommit string
	Seed              uint64
	Note              string // is kept in the history's header
	// History is written to as well, if it is not nil. The caller closes it.
	History *journal.HistoryWriter
}

const openingBalance = 1000

func (l Load) withDefaults() Load {
	if l.Pause <= 0 {
		l.Pause = 10 * time.Millisecond
	}
	if l.Timeout <= 0 {
		l.Timeout = 2 * time.Second
	}
	if l.Schema == "" {
		l.Schema = "haven_drill"
	}
	if l.Registers <= 0 {
		l.Registers = 3
	}
	if l.Accounts < 2 {
		l.Accounts = 10
	}
	return l
}

// Run is a running load. Begin makes one, Stop ends it.
type Run struct {
	load    Load
	tables  tables
	begun   time.Time
	cancel  context.CancelFunc
	clients sync.WaitGroup

	ids   atomic.Int64
	acked atomic.Int64
	list  atomic.Int64 // the number of the list that is appended to

	mu      sync.Mutex
	history check.History
	problem error // of writing the history file
}

// Begin makes the tables, by the first route that accepts it, and starts the clients. They run until Stop, or until ctx
// ends.
func Begin(ctx context.Context, load Load) (*Run, error) {
	load = load.withDefaults()
	if len(load.Routes) == 0 {
		return nil, errors.New("begin load: there is no route to the cluster")
	}
	r := &Run{load: load, tables: tablesIn(load.Schema), begun: time.Now()}
	if err := r.prepare(ctx); err != nil {
		return nil, fmt.Errorf("begin load: %w", err)
	}
	r.begun = time.Now()
	r.append(check.Line{Header: &check.Header{
		Format: check.Format, Begun: r.begun, Note: load.Note, Routes: routeNames(load), Seed: load.Seed, Pause: load.Pause, Timeout: load.Timeout,
		SynchronousCommit: load.SynchronousCommit, Accounts: load.Accounts, Balance: openingBalance,
	}})
	ctx, r.cancel = context.WithCancel(ctx)
	for n, c := range r.crew() {
		c.number = n + 1
		r.clients.Go(func() { c.work(ctx) })
	}
	return r, nil
}

func routeNames(l Load) []string {
	return append(slices.Sorted(maps.Keys(l.Routes)), slices.Sorted(maps.Keys(l.ReadRoutes))...)
}

// prepare makes the tables, and waits a little until every route that answers shows them.
func (r *Run) prepare(ctx context.Context) error {
	var problems []error
	for _, name := range slices.Sorted(maps.Keys(r.load.Routes)) {
		err := r.makeTables(ctx, r.load.Routes[name])
		if err == nil {
			r.awaitTables(ctx)
			return nil
		}
		problems = append(problems, fmt.Errorf("make the tables by %s: %w", name, err))
	}
	return errors.Join(problems...)
}

// Acknowledged counts the writes that were acknowledged so far.
func (r *Run) Acknowledged() int { return int(r.acked.Load()) }

// AwaitWrites waits until so many more writes are acknowledged, at most that long.
func (r *Run) AwaitWrites(ctx context.Context, more int, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	for enough := r.Acknowledged() + more; r.Acknowledged() < enough; {
		if pause(ctx, 50*time.Millisecond); ctx.Err() != nil {
			return fmt.Errorf("%d of %d writes were acknowledged within %s", r.Acknowledged()-enough+more, more, within)
		}
	}
	return nil
}

// Now is the time on the history's clock.
func (r *Run) Now() time.Duration { return time.Since(r.begun) }

// At is an instant on the history's clock.
func (r *Run) At(t time.Time) time.Duration { return t.Sub(r.begun) }

// Mark records a fault. A Begin of zero means now.
func (r *Run) Mark(f check.Fault) {
	if f.Begin == 0 {
		f.Begin = r.Now()
	}
	r.append(check.Line{Fault: &f})
}

// Term records a leadership, as the store tells it.
func (r *Run) Term(t check.Term) { r.append(check.Line{Term: &t}) }

// Stop ends the clients, each after its operation, and returns the history. The history is complete only after Final.
func (r *Run) Stop() *check.History {
	r.cancel()
	r.clients.Wait()
	r.mu.Lock()
	stopped := r.history.Stopped > 0
	r.mu.Unlock()
	if !stopped {
		r.append(check.Line{Stopped: &check.Stopped{At: r.Now()}})
	}
	return &r.history
}

func (r *Run) append(l check.Line) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.history.Add(l)
	if r.load.History != nil && r.problem == nil {
		r.problem = r.load.History.Append(l)
	}
}

func (r *Run) record(o check.Operation) {
	r.append(check.Line{Op: &o})
	if o.Outcome == check.OK && o.Kind.Writes() {
		r.acked.Add(1)
	}
}

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
