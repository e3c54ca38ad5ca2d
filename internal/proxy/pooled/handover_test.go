package pooled

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/havenha/haven/internal/pgwire/frame"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// size1 has all clients use one server connection in turn.
func size1(o *Options) { o.Pool.DefaultPoolSize = 1 }

// TestASkippingServerStaysWithItsClient: after an error the server ignores what it gets up to the next Sync, and would ignore
// what another client sends.
func TestASkippingServerStaysWithItsClient(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, size1)
	for _, c := range []struct {
		name, sent, want string
	}{
		{"extended", parse("", "INSERT INTO nowhere VALUES (1)") + bind("") + execute + sync_, "42P01"},
		{"simple", query("SELECT 42"), "42"},
	} {
		a, b := h.raw(), h.raw()
		a.send(parse("x", "SELEC") + query("SELECT 1"))
		a.until('E')
		b.send(c.sent)
		if got := b.reply(1, 200*time.Millisecond); !strings.Contains(got, "timeout") {
			t.Errorf("%s: the server changed hands: %s", c.name, got)
		}
		a.Close()
		if got := b.reply(1, 10*time.Second); !strings.Contains(got, c.want) {
			t.Errorf("%s: %s", c.name, got)
		}
		b.Close()
	}
}

// TestNobodyExecutesTheUnnamedStatementOfAnother has what would end the unnamed statement skipped after an error.
func TestNobodyExecutesTheUnnamedStatementOfAnother(t *testing.T) {
	use := bind("") + execute + sync_
	for name, attack := range map[string]string{
		"function call":          string(frame.Append(nil, 'F', "\x00\x00\x0d\x3a\x00\x00\x00\x00\x00\x00")), // version(), say
		"no unnamed":             sync_,
		"pipelined parse":        parse("x", "SELEC") + parse("", "SELECT 'mine'") + sync_ + use,
		"pipelined query":        parse("x", "SELEC") + query("SELECT 1") + sync_ + use,
		"pipelined close":        parse("x", "SELEC") + closing("") + sync_ + use,
		"pipelined bind":         parse("x", "SELEC") + bind("") + sync_ + use,
		"invalid text":           query("SELECT '\xff'"),
		"pipelined invalid text": query("SELECT '\xff'") + use,
		"bind":                   parse("x", "SELEC") + bind("") + sync_,
		"query":                  parse("x", "SELEC") + query("SELECT 1") + sync_,
		"close":                  parse("x", "SELEC") + closing("") + sync_,
	} {
		t.Run(name, func(t *testing.T) {
			_, _, p := pg(t)
			h := open(t, Transaction, p, size1)
			a, b := h.raw(), h.raw()
			a.send(parse("", "SELECT 'secret of a'") + bind("") + execute + sync_)
			a.until('Z')
			want := max(1, strings.Count(attack, sync_)) // a query that is skipped gets no reply
			if name == "pipelined invalid text" {
				want++
			}
			b.send(attack)
			if got := b.reply(want, patience); strings.Contains(got, "secret") || strings.Count(got, "Z(") != want {
				t.Error("b got:", got)
			}
			b.send(use)
			if got := b.reply(1, patience); strings.Contains(got, "secret") {
				t.Error("b executed the unnamed statement of a:", got)
			}
		})
	}
}

// Without max_prepared_statements the unnamed statement is followed all the same.
func TestTheUnnamedStatementIsFollowedWithoutNamedOnes(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, func(o *Options) { size1(o); o.Pool.MaxPreparedStatements = 0 })
	a, b := h.raw(), h.raw()
	b.send(parse("", "SELECT 'mine'") + sync_)
	b.until('Z')
	a.send(parse("", "SELECT 'secret of a'") + bind("") + execute + sync_)
	a.until('Z')
	b.send(bind("") + execute + sync_)
	if got := b.reply(1, patience); !strings.Contains(got, "mine") {
		t.Error("b does not get its own statement:", got)
	}
}

// TestTemporaryTablesReachNobodyElse makes them with what looks like a SELECT that returns rows.
func TestTemporaryTablesReachNobodyElse(t *testing.T) {
	_, _, p := pg(t)
	partly := "E\x00\x00\x00\x09\x00\x00\x00\x00\x01"
	for i, c := range []struct {
		name, script string
		zs           int
	}{
		{"suspended portal", query("BEGIN") + parse("", "SELECT generate_series(1,3)") + bind("") + partly + sync_ + parse("", "SELECT 1 AS i INTO TEMP leak%d") + bind("") + execute + sync_ + query("COMMIT"), 4},
		{"suspended portal, simple", query("BEGIN") + parse("", "SELECT generate_series(1,3)") + bind("") + partly + sync_ + query("CREATE TEMP TABLE leak%d AS SELECT 1") + query("COMMIT"), 4},
		{"pipelined after an error among rows", query("SELECT 1/(2-i) FROM generate_series(1,2) i") + query("SELECT 1 INTO TEMP leak%d"), 2},
		{"explain analyze", query("EXPLAIN ANALYZE CREATE TEMP TABLE leak%d AS SELECT 1"), 1},
		{"explain analyze, left after a row", parse("", "EXPLAIN ANALYZE CREATE TEMP TABLE leak%d AS SELECT 1") + bind("") + partly + sync_, 1},
		{"explain analyze, left for another statement", query("BEGIN") + parse("", "EXPLAIN ANALYZE CREATE TEMP TABLE leak%d AS SELECT 1") + bind("") + partly + sync_ + parse("", "SELECT 1") + bind("") + execute + sync_ + query("COMMIT"), 4},
		{"explain analyze by name, left after a row", parse("x", "EXPLAIN ANALYZE CREATE TEMP TABLE leak%d AS SELECT 1") + bind("x") + partly + sync_, 1},
		{"named portal's bind", query("BEGIN") + parse("into", "SELECT 1 AS i INTO TEMP leak%d") + parse("rows", "SELECT 1") + bind("rows") + execute + bind("into") + string(frame.Append(nil, 'B', "p\x00", "rows\x00", "\x00\x00\x00\x00\x00\x00")) + execute + sync_ + query("COMMIT"), 3},
		{"a bind that is skipped", query("BEGIN") + parse("sp", "SAVEPOINT s") + parse("back", "ROLLBACK TO s") + parse("rows", "SELECT 1") + describe("rows") +
			parse("", "SELECT 1 AS i INTO TEMP leak%d") + bind("") + viaPortal("sp") + parse("x", "SELEC") + bind("rows") + sync_ + viaPortal("back") + execute + sync_ + query("COMMIT"), 4},
		{"many unnamed statements in one batch", query("BEGIN") + parse("", "SELECT 1 AS i INTO TEMP leak%d") + bind("") + execute + strings.Repeat(parse("", "SELECT 1")+describe(""), 8) + sync_ + query("COMMIT"), 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := open(t, Transaction, p, size1)
			a, b := h.raw(), h.raw()
			// length words are right only if the number has as many digits as the verb
			s := strings.ReplaceAll(c.script, "leak%d", fmt.Sprintf("leak%02d", i))
			a.send(s)
			a.reply(c.zs, 5*time.Second)
			b.send(query(fmt.Sprintf("SELECT count(*) FROM pg_class WHERE relname = 'leak%02d' AND relpersistence = 't'", i)))
			if got := b.reply(1, patience); !strings.Contains(got, `0"`) || strings.Contains(got, `x011"`) {
				t.Error("b sees the temporary table:", got)
			}
		})
	}
}

// TestHealthyConnectionsAreKept has many clients share few servers: none of them is given up.
func TestHealthyConnectionsAreKept(t *testing.T) {
	_, _, p := pg(t)
	k := &counting{place: p}
	h := open(t, Transaction, p, func(o *Options) { o.Cluster = k; o.Pool.DefaultPoolSize = 4 })
	var wg sync.WaitGroup
	var total atomic.Int64
	end := time.Now().Add(time.Second)
	for range 16 {
		a := h.raw()
		wg.Go(func() {
			for time.Now().Before(end) {
				a.send(query("SELECT 1"))
				a.until('Z')
				total.Add(1)
			}
		})
	}
	wg.Wait()
	if k.n.Load() > 4 {
		t.Errorf("%d connections for a pool of 4, and %d statements", k.n.Load(), total.Load())
	}
}

type counting struct {
	*place
	n atomic.Int64
}

func (c *counting) Connect(ctx context.Context, cut func()) (Seat, error) {
	c.n.Add(1)
	return c.place.Connect(ctx, cut)
}

// viaPortal binds a statement to a portal of its own name, and executes that.
func viaPortal(name string) string {
	return bindAt(name, name) + executeAt(name)
}

func bindAt(portal, name string) string {
	return string(frame.Append(nil, 'B', portal, "\x00", name, "\x00\x00\x00\x00\x00\x00\x00"))
}
func executeAt(portal string) string { return fetchAt(portal, 0) }

// fetchAt fetches at most that many rows; 0: all.
func fetchAt(portal string, rows byte) string {
	return string(frame.Append(nil, 'E', portal, "\x00\x00\x00\x00", string(rows)))
}
func closePortal(portal string) string { return string(frame.Append(nil, 'C', "P", portal, "\x00")) }

// TestAnEmptyFetchIsNoTemporaryTable: drivers that fetch in portions, as JDBC's with a fetch size, end with one that may have no row.
func TestAnEmptyFetchIsNoTemporaryTable(t *testing.T) {
	_, _, p := pg(t)
	for name, script := range map[string]string{
		"described": parse("rows", "SELECT 1 WHERE false") + describe("rows") + bindAt("p", "rows") + executeAt("p") + sync_,
		"suspended": parse("rows", "SELECT 1") + bindAt("p", "rows") + fetchAt("p", 1) + sync_ + "|" + fetchAt("p", 1) + sync_,
		"unnamed, with another one between": parse("kept", "SELECT 0") + parse("", "SELECT 1") + bindAt("p", "") + fetchAt("p", 1) + sync_ + "|" +
			parse("", "SELECT 2") + bind("") + execute + sync_ + "|" + fetchAt("p", 1) + sync_,
	} {
		h := open(t, Transaction, p, size1)
		a := h.raw()
		for batch := range strings.SplitSeq(query("BEGIN")+script+"|"+query("COMMIT"), "|") {
			play(a, batch)
		}
		pgtest.Eventually(t, "the connection is back", func() error {
			if h.door.Snapshot()[0].ServersIdle != 1 {
				return errUnasked
			}
			return nil
		})
		var kept int
		h.door.mu.Lock()
		for s := range h.door.servers {
			s.mu.Lock()
			kept = len(s.statements.has)
			s.mu.Unlock()
		}
		h.door.mu.Unlock()
		if kept != 1 {
			t.Errorf("%s: the server has %d prepared statements after its transaction", name, kept)
		}
	}
}

// TestPortalsOfOneNameToTheServer have names that differ behind what a server looks at. The second makes a temporary table.
func TestPortalsOfOneNameToTheServer(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, size1)
	a, b := h.raw(), h.raw()
	long := strings.Repeat("p", maxPortalName)
	got := play(a, query("BEGIN")+parse("rows", "SELECT 1")+describe("rows")+parse("into", "SELECT 1 AS i INTO TEMP aliased")+
		bindAt(long+"a", "rows")+closePortal(long+"b")+bindAt(long+"b", "into")+executeAt(long+"a")+sync_+query("COMMIT"))
	if !strings.Contains(got, "C[SELECT 1]") {
		t.Error("the table was not made:", got)
	}
	if got := play(b, query("SELECT count(*) FROM pg_class WHERE relname = 'aliased'")); !strings.Contains(got, "D[0]") {
		t.Error("another client sees the temporary table:", got)
	}
}

// TestAPortalWhoseNextBindIsSkipped still makes the temporary table that it was to make first.
func TestAPortalWhoseNextBindIsSkipped(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, size1)
	a, b := h.raw(), h.raw()
	play(a, query("BEGIN")+parse("sp", "SAVEPOINT s")+parse("back", "ROLLBACK TO s")+parse("rows", "SELECT 1")+describe("rows")+
		parse("into", "SELECT 1 AS i INTO TEMP skipped")+bindAt("p", "into")+viaPortal("sp")+parse("x", "SELEC")+closePortal("p")+bindAt("p", "rows")+sync_)
	play(a, viaPortal("back")+sync_)
	if got := play(a, executeAt("p")+sync_+query("COMMIT")); !strings.Contains(got, "SELECT 1") {
		t.Error("it is not executed:", got)
	}
	if got := play(b, query("SELECT count(*) FROM pg_class WHERE relname = 'skipped'")); !strings.Contains(got, "D[0]") {
		t.Error("b sees the temporary table:", got)
	}
}
