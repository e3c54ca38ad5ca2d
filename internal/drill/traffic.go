// Package drill makes traffic with known content and tells what became of it.
//
// Writers insert numbered rows and remember which of them were acknowledged; Verify reads all rows back and compares.
// It guarantees that a row counts as acknowledged only if the server's answer arrived, and that no row is sent twice.
// It leaves to the caller what is done to the cluster meanwhile.
package drill

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Options describe the writers.
type Options struct {
	DSN     string // connection string, through the route that is to be judged
	Table   string // is made if it is missing
	Writers int
	// Pause is how long a writer waits between two rows.
	Pause time.Duration
	// Timeout bounds one row, connecting included; what has no answer by then has an unknown outcome.
	Timeout time.Duration
}

// row is one insert.
type row struct{ writer, seq int64 }

// ack is an acknowledged insert and when its answer came.
type ack struct {
	row
	at time.Time
}

// Traffic is a running set of writers.
type Traffic struct {
	opt    Options
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu      sync.Mutex
	acked   []ack
	unknown []row
	refused []row
	errors  map[string]int
	begun   time.Time
}

// Begin makes the table and starts the writers. They run until Stop.
func Begin(ctx context.Context, o Options) (*Traffic, error) {
	if err := makeTable(ctx, o); err != nil {
		return nil, fmt.Errorf("begin traffic: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	t := &Traffic{opt: o, cancel: cancel, errors: map[string]int{}, begun: time.Now()}
	for n := range o.Writers {
		t.done.Go(func() { t.write(ctx, int64(n)) })
	}
	return t, nil
}

func makeTable(ctx context.Context, o Options) error {
	c, err := pgx.Connect(ctx, o.DSN)
	if err != nil {
		return err
	}
	defer c.Close(context.WithoutCancel(ctx))
	_, err = c.Exec(ctx, "CREATE TABLE IF NOT EXISTS "+pgx.Identifier{o.Table}.Sanitize()+" (writer bigint, seq bigint, at timestamptz DEFAULT now())")
	return err
}

// write inserts rows one after another, on a connection that is made anew after each failure.
func (t *Traffic) write(ctx context.Context, writer int64) {
	var conn *pgx.Conn
	defer func() { closeConn(conn) }()
	for seq := int64(1); ctx.Err() == nil; seq++ {
		if conn == nil || conn.IsClosed() {
			closeConn(conn)
			conn = t.connect(ctx)
			if conn == nil {
				pause(ctx, 20*time.Millisecond)
				continue
			}
		}
		t.insert(ctx, conn, row{writer, seq})
		pause(ctx, t.opt.Pause)
	}
}

func (t *Traffic) connect(ctx context.Context) *pgx.Conn {
	ctx, cancel := context.WithTimeout(ctx, t.opt.Timeout)
	defer cancel()
	conn, err := pgx.Connect(ctx, t.opt.DSN)
	if err != nil {
		t.count("connect: ", err)
		return nil
	}
	return conn
}

func (t *Traffic) insert(ctx context.Context, conn *pgx.Conn, r row) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), t.opt.Timeout)
	defer cancel()
	_, err := conn.Exec(bounded, "INSERT INTO "+pgx.Identifier{t.opt.Table}.Sanitize()+" (writer, seq) VALUES ($1, $2)", r.writer, r.seq)
	t.mu.Lock()
	defer t.mu.Unlock()
	var pg *pgconn.PgError
	switch {
	case err == nil:
		t.acked = append(t.acked, ack{r, time.Now()})
		return
	case errors.As(err, &pg) && pg.Code[:2] != "57":
		t.refused = append(t.refused, r)
	default:
		t.unknown = append(t.unknown, r)
	}
	t.errors["insert: "+brief(err)]++
	closeConn(conn)
}

func (t *Traffic) count(what string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.errors[what+brief(err)]++
}

// brief is the SQLSTATE of an error, or that the connection failed.
func brief(err error) string {
	var pg *pgconn.PgError
	switch {
	case errors.As(err, &pg):
		return "SQLSTATE " + pg.Code
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer in time"
	}
	return "connection lost"
}

func closeConn(c *pgx.Conn) {
	if c == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.Close(ctx) // the session is over either way
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// Acknowledged counts the rows that were acknowledged so far.
func (t *Traffic) Acknowledged() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.acked)
}

// Report is what the writers saw.
type Report struct {
	Acknowledged int            `json:"acknowledged"`
	Refused      int            `json:"refused"`
	Unknown      int            `json:"unknown"`
	Rate         float64        `json:"rate"` // acknowledged rows a second, over all of the time
	Gap          time.Duration  `json:"gap"`  // longest time without an acknowledgement, nanoseconds
	GapBegan     time.Time      `json:"gap_began"`
	Errors       map[string]int `json:"errors"`
}

// Stop ends the writers and reports what they saw.
func (t *Traffic) Stop() Report {
	t.cancel()
	t.done.Wait()
	end := time.Now()
	r := Report{Acknowledged: len(t.acked), Refused: len(t.refused), Unknown: len(t.unknown), Errors: t.errors}
	r.Rate = float64(len(t.acked)) / end.Sub(t.begun).Seconds()
	slices.SortFunc(t.acked, func(a, b ack) int { return a.at.Compare(b.at) })
	last := t.begun
	for _, a := range append(slices.Clone(t.acked), ack{at: end}) {
		if gap := a.at.Sub(last); gap > r.Gap {
			r.Gap, r.GapBegan = gap, last
		}
		last = a.at
	}
	return r
}

// Verdict is what the rows in the database say about the acknowledgements.
type Verdict struct {
	Found   int      `json:"found"`
	Missing []string `json:"missing"` // acknowledged, but not there
	Doubled []string `json:"doubled"` // there more than once
	Ghosts  []string `json:"ghosts"`  // refused, but there
}

// OK tells whether nothing is wrong.
func (v Verdict) OK() bool { return len(v.Missing)+len(v.Doubled)+len(v.Ghosts) == 0 }

// Verify reads all rows back through dsn. Call it after Stop.
func (t *Traffic) Verify(ctx context.Context, dsn string) (Verdict, error) {
	c, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return Verdict{}, fmt.Errorf("verify: %w", err)
	}
	defer c.Close(context.WithoutCancel(ctx))
	rows, err := c.Query(ctx, "SELECT writer, seq FROM "+pgx.Identifier{t.opt.Table}.Sanitize())
	if err != nil {
		return Verdict{}, fmt.Errorf("verify: %w", err)
	}
	found := map[row]int{}
	var r row
	if _, err := pgx.ForEachRow(rows, []any{&r.writer, &r.seq}, func() error { found[r]++; return nil }); err != nil {
		return Verdict{}, fmt.Errorf("verify: %w", err)
	}
	return t.judge(found), nil
}

func (t *Traffic) judge(found map[row]int) Verdict {
	v := Verdict{Found: len(found)}
	for _, a := range t.acked {
		if found[a.row] == 0 {
			v.Missing = append(v.Missing, fmt.Sprintf("%d/%d acknowledged at %s", a.writer, a.seq, a.at.Format(time.StampMilli)))
		}
	}
	for r, n := range found {
		if n > 1 {
			v.Doubled = append(v.Doubled, fmt.Sprintf("%d/%d", r.writer, r.seq))
		}
	}
	for _, r := range t.refused {
		if found[r] > 0 {
			v.Ghosts = append(v.Ghosts, fmt.Sprintf("%d/%d", r.writer, r.seq))
		}
	}
	slices.Sort(v.Doubled)
	return v
}
