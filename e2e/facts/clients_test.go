package facts

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/havenha/haven/internal/postgres/pgtest"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// The kinds of clients. They differ in what they need of a server to have the next commit done: a question and an answer;
// an answer only, since the questions are in the socket already; nothing.
const (
	asking     = "request/response"
	pipelining = "pipelining"
	looping    = "loop" // a DO block that commits in a loop
)

// ack is a row whose commit the server told of.
type ack struct {
	kind string
	n    int64
	told time.Time
}

// clients insert rows until their sessions end.
type clients struct {
	r    *run
	s    *server
	stop context.CancelFunc
	all  sync.WaitGroup

	mu   sync.Mutex
	acks []ack
}

// clients starts one client of each kind given, and waits until each has something committed.
func (s *server) clients(kinds ...string) *clients {
	s.r.Helper()
	ctx, stop := context.WithCancel(context.Background())
	c := &clients{r: s.r, s: s, stop: stop}
	s.r.Cleanup(c.end)
	for i, kind := range kinds {
		conn := s.open(nil)
		c.all.Go(func() {
			switch kind {
			case looping:
				_, _ = conn.Exec(ctx, "DO $$ BEGIN FOR i IN 1..100000000 LOOP INSERT INTO w VALUES ('loop', i); COMMIT; END LOOP; END $$").ReadAll()
			case pipelining:
				c.pipeline(ctx, conn)
			default:
				c.ask(ctx, conn, fmt.Sprintf("%s %d", kind, i))
			}
		})
	}
	watch := s.open(nil)
	pgtest.Eventually(s.r, "all clients are at work", func() error {
		if n := s.sqlOn(watch, "SELECT count(DISTINCT kind) FROM (SELECT kind FROM w GROUP BY kind HAVING count(*) > 20) k"); n != strconv.Itoa(len(kinds)) {
			return fmt.Errorf("%s are", n)
		}
		return nil
	})
	return c
}

// end stops the clients and waits for them.
func (c *clients) end() {
	c.stop()
	c.all.Wait()
}

// wait waits until the sessions of all clients have ended by themselves.
func (c *clients) wait() {
	c.r.Helper()
	done := make(chan struct{})
	go func() { c.all.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		c.stop()
		<-done
		c.r.Error("a session was still open 20 s after the server's end")
	}
}

func (c *clients) acked(kind string, n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.acks = append(c.acks, ack{kind, n, time.Now()})
}

func (c *clients) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.acks)
}

// last is when the last commit was told.
func (c *clients) last() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	var last time.Time
	for _, a := range c.acks {
		if a.told.After(last) {
			last = a.told
		}
	}
	return last
}

func (c *clients) ask(ctx context.Context, conn *pgconn.PgConn, kind string) {
	for n := int64(1); ctx.Err() == nil; n++ {
		if _, err := conn.Exec(ctx, insert(kind, n)).ReadAll(); err != nil {
			return
		}
		c.acked(kind, n)
	}
}

func insert(kind string, n int64) string {
	return fmt.Sprintf("INSERT INTO w VALUES ('%s', %d)", kind, n)
}

// pipeline sends inserts without waiting for answers; the sockets' buffers alone hold it back. Answers come in order.
func (c *clients) pipeline(ctx context.Context, conn *pgconn.PgConn) {
	raw, err := conn.Hijack()
	if err != nil {
		return
	}
	unstop := context.AfterFunc(ctx, func() { _ = raw.Conn.Close() })
	defer unstop()
	var sender sync.WaitGroup
	sender.Go(func() {
		for n := int64(1); ; n++ {
			raw.Frontend.SendQuery(&pgproto3.Query{String: insert(pipelining, n)})
			if raw.Frontend.Flush() != nil {
				return
			}
		}
	})
	defer sender.Wait()
	defer raw.Conn.Close()
	for n := int64(0); ; {
		msg, err := raw.Frontend.Receive()
		if err != nil {
			return
		}
		switch msg.(type) {
		case *pgproto3.CommandComplete:
			n++
			c.acked(pipelining, n)
		case *pgproto3.ErrorResponse:
			return
		}
	}
}

// mustBeIn sees that every row whose commit was told is in the database.
func (c *clients) mustBeIn(s *server) {
	c.r.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	most := map[string]int64{}
	for _, a := range c.acks {
		most[a.kind] = max(most[a.kind], a.n)
	}
	for kind, n := range most {
		want := strconv.FormatInt(n, 10)
		if got := s.sql(fmt.Sprintf("SELECT count(*) FROM w WHERE kind = '%s' AND n <= %d", kind, n)); got != want {
			c.r.Errorf("%s commits of the %s client were told, %s are on %s", want, kind, got, s.self)
		}
	}
}

// lastRow is when the last row of a kind was written, by the server's own clock, which is ours; zero: there is none.
func (s *server) lastRow(kind string) time.Time {
	s.r.Helper()
	text := s.sql(fmt.Sprintf("SELECT (extract(epoch FROM max(at)) * 1000000)::bigint FROM w WHERE kind LIKE '%s%%'", kind))
	micros, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.UnixMicro(micros)
}
