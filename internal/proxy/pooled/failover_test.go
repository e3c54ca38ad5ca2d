package pooled

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/havenha/haven/internal/pgwire"
	"github.com/havenha/haven/internal/pgwire/frame"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

func kill(t *testing.T, pid string) {
	t.Helper()
	n, err := strconv.Atoi(pid)
	pgtest.Must(t, err)
	if err := syscall.Kill(n, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) { // it may have ended by itself
		t.Fatal(err)
	}
}

func TestIdleClientsSurviveAChangeOfServers(t *testing.T) {
	a, _, p := pg(t)
	b := pgtest.Options(t, "db2")
	pgtest.Primary(t, b)
	h := open(t, Transaction, p, nil)
	var all []*pgx.Conn
	for range 20 {
		c := h.connect()
		text(t, c, "SELECT 1")
		all = append(all, c)
	}
	for round := range 4 {
		p.depose("term 2 is claimed, not yet promoted")
		var asked sync.WaitGroup
		next := a.Port
		if round%2 == 0 {
			next = b.Port
		}
		for _, c := range all {
			asked.Go(func() {
				if got, err := tryText(c, "SELECT current_setting('port')"); got != fmt.Sprint(next) {
					t.Errorf("round %d: served by %q, %v, want %d", round, got, err, next)
				}
			})
		}
		pgtest.Eventually(t, "all wait", func() error {
			if s := h.door.Snapshot()[0]; s.ClientsWaiting != len(all) {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
		p.admit(fmt.Sprintf("127.0.0.1:%d", next))
		asked.Wait()
	}
}

func TestNoServerWithinHoldTimeout(t *testing.T) {
	o, _, p := pg(t)
	h := open(t, Transaction, p, func(o *Options) { o.HoldTimeout = 300 * time.Millisecond })
	c := h.connect()
	text(t, c, "SELECT 1")
	p.depose("the cluster has no leader")
	_, err := tryText(c, "SELECT 1")
	if code(err) != "57P03" || !strings.Contains(err.Error(), "the cluster has no leader") {
		t.Errorf("%v", err)
	}
	_, err = c.Exec(context.Background(), "SELECT $1::int", 1) // in a batch
	if code(err) != "57P03" {
		t.Errorf("%v", err)
	}
	p.admit(fmt.Sprintf("127.0.0.1:%d", o.Port))
	if got := text(t, c, "SELECT 2"); got != "2" {
		t.Errorf("afterwards: %q", got)
	}
	var n int
	if err := c.QueryRow(context.Background(), "SELECT $1::int", 5).Scan(&n); err != nil || n != 5 {
		t.Errorf("afterwards: %d, %v", n, err)
	}
}

func TestALostServerIsToldForWhatItIs(t *testing.T) {
	o, _, p := pg(t)
	direct := atServer(t, o)
	h := open(t, Transaction, p, nil)
	end := func(pid string) { text(t, direct, "SELECT pg_terminate_backend("+pid+")") }

	c := h.connect()
	exec(t, c, "BEGIN")
	end(text(t, c, "SELECT pg_backend_pid()"))
	if _, err := tryText(c, "SELECT 1"); !slices.Contains([]string{"57P01", "08006", "08007"}, code(err)) {
		t.Errorf("in a transaction: %v", err)
	}

	// Nothing was lent: nobody notices.
	c = h.connect()
	pid := text(t, c, "SELECT pg_backend_pid()")
	for range 5 {
		end(pid)
		pgtest.Eventually(t, "the backend is gone", func() error {
			if got := text(t, direct, "SELECT count(*) FROM pg_stat_activity WHERE pid = "+pid); got != "0" {
				return errUnasked
			}
			return nil
		})
		pid = text(t, c, "SELECT pg_backend_pid()")
	}
}

// silent is a server that is cut in the middle without a word, by a proxy of its own.
func TestALossWithoutAWord(t *testing.T) {
	o, _, p := pg(t)
	cutter := newCutter(t, fmt.Sprintf("127.0.0.1:%d", o.Port))
	p.admit(cutter.address)
	h := open(t, Transaction, p, func(o *Options) { o.Pool.DefaultPoolSize = 1 })
	for _, c := range []struct{ name, before, statement, want string }{
		{"autocommit", "", "SELECT pg_sleep(30)", "08007"},
		{"in a transaction, with a statement", "BEGIN", "SELECT pg_sleep(30)", "08007"},
		{"idle in a transaction", "BEGIN", "", "08006"},
	} {
		r := h.raw()
		if c.before != "" {
			r.send(query(c.before))
			r.until('Z')
		}
		if c.statement != "" {
			r.send(query(c.statement))
			pgtest.Eventually(t, "the statement is on its way", func() error {
				if s := h.door.Snapshot()[0]; s.OpenTransactions != 1 || s.IdleTransactions != 0 {
					return fmt.Errorf("%+v", s)
				}
				return nil
			})
		}
		cutter.cut()
		_, body := r.until('E')
		if !strings.Contains(string(body), "C"+c.want+"\x00") || !strings.Contains(string(body), "FATAL") {
			t.Errorf("%s: %q, want %s", c.name, body, c.want)
		}
		if _, _, err := r.next(); err == nil {
			t.Errorf("%s: the connection is not closed", c.name)
		}
	}
	c := h.connect()
	text(t, c, "SELECT 1")
	cutter.cut()
	if got := text(t, c, "SELECT 2"); got != "2" {
		t.Errorf("an idle client: %q", got)
	}
}

// cutter passes bytes on to a server until its connections are cut.
type cutter struct {
	address string
	mu      sync.Mutex
	conns   []net.Conn
}

func newCutter(t *testing.T, to string) *cutter {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	pgtest.Must(t, err)
	k := &cutter{address: l.Addr().String()}
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			k.mu.Lock()
			k.conns = append(k.conns, in, out)
			k.mu.Unlock()
			tasks.Go(func() { io.Copy(in, out); in.Close() })
			tasks.Go(func() { io.Copy(out, in); out.Close() })
		}
	})
	t.Cleanup(func() { l.Close(); k.cut(); tasks.Wait() })
	return k
}

func (k *cutter) cut() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.conns {
		c.Close()
	}
	k.conns = nil
}

func TestKilledBackendsAndPostmaster(t *testing.T) {
	o, i, p := pg(t)
	h := open(t, Transaction, p, nil)
	setup := h.connect()
	exec(t, setup, "CREATE TABLE k (v text PRIMARY KEY)")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var mu sync.Mutex
	outcome := map[string]string{} // by value: ok, unknown, or another code
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			var c *pgx.Conn
			for n := 0; ctx.Err() == nil; n++ {
				if c == nil || c.IsClosed() {
					var err error
					if c, err = pgx.Connect(ctx, h.url("")); err != nil {
						c = nil
						continue
					}
				}
				v := fmt.Sprintf("%d-%d", w, n)
				_, err := c.Exec(context.Background(), "INSERT INTO k VALUES ($1)", v)
				mu.Lock()
				outcome[v] = "ok"
				if err != nil {
					outcome[v] = code(err) + " " + err.Error()
				}
				mu.Unlock()
			}
			if c != nil {
				c.Close(context.Background())
			}
		})
	}
	for round := range 3 {
		time.Sleep(200 * time.Millisecond)
		if round < 2 {
			if pid, err := tryText(setup, "SELECT pg_backend_pid()"); err == nil {
				kill(t, pid)
			}
		} else {
			pgtest.Must(t, i.Kill(context.Background()))
		}
		p.depose("is checked again")
		pgtest.Eventually(t, "the server is up again", func() error {
			if round == 2 {
				if _, err := i.Start(context.Background(), pgtest.Settings()); err != nil {
					return err
				}
			}
			c, err := pgx.Connect(context.Background(), pgtest.ConnString(o, "postgres"))
			if err == nil {
				c.Close(context.Background())
			}
			return err
		})
		p.admit(fmt.Sprintf("127.0.0.1:%d", o.Port))
	}
	time.Sleep(200 * time.Millisecond)
	cancel()
	writers.Wait()
	h.compare(outcome)
}

// compare holds what writers were told, by value, against the table.
func (h *house) compare(outcome map[string]string) {
	t := h.t
	t.Helper()
	c := h.connect()
	rows, err := c.Query(context.Background(), "SELECT v FROM k")
	pgtest.Must(t, err)
	all, err := pgx.CollectRows(rows, pgx.RowTo[string])
	pgtest.Must(t, err)
	there := map[string]bool{}
	for _, v := range all {
		there[v] = true
	}
	counts := map[string]int{}
	for v, what := range outcome {
		kind, _, _ := strings.Cut(what, " ")
		counts[kind]++
		switch {
		case what == "ok" && !there[v]:
			t.Errorf("%s was told to be there and is not", v)
		case what != "ok" && there[v] && kind != "08007":
			t.Errorf("%s is there, and was told to have failed: %s", v, what)
		case kind == "25006":
			t.Errorf("%s: %s", v, what)
		}
	}
	t.Logf("outcomes: %v", counts)
}

// TestNobodyIsToldThatAServerIsReadOnly has clients led to a server that is still in recovery: they wait until it is promoted,
// and none is told 25006.
func TestNobodyIsToldThatAServerIsReadOnly(t *testing.T) {
	o, i, p := pg(t)
	h := open(t, Transaction, p, nil)
	var clients []*pgx.Conn
	for range 6 {
		clients = append(clients, h.connect())
	}
	exec(t, clients[0], "CREATE TABLE w (n int)")
	pgtest.BackInRecovery(t, i)
	p.admit(fmt.Sprintf("127.0.0.1:%d", o.Port))
	var writing sync.WaitGroup
	for n, c := range clients {
		writing.Go(func() { exec(t, c, fmt.Sprintf("INSERT INTO w VALUES (%d)", n)) })
	}
	pgtest.Eventually(t, "it is found in recovery again and again", func() error {
		if n := p.fails.Load(); n < 10 {
			return fmt.Errorf("%d times", n)
		}
		return nil
	})
	direct := atServer(t, o)
	exec(t, direct, "SELECT pg_promote()")
	writing.Wait()
	if got := text(t, direct, "SELECT count(*) FROM w"); got != fmt.Sprint(len(clients)) {
		t.Errorf("%s rows of %d", got, len(clients))
	}
}

// TestAClientThatDoesNotRead stops reading in a large result. Others go on, and this process does not take it in.
func TestAClientThatDoesNotReadCostsItselfOnly(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, func(o *Options) { o.Pool.DefaultPoolSize = 2 })
	other := h.connect()
	text(t, other, "SELECT 1")
	deaf := h.raw()
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	deaf.send(query("SELECT repeat('x', 1000) FROM generate_series(1, 1000000)"))
	received := func() int64 {
		h.door.mu.Lock()
		defer h.door.mu.Unlock()
		var n int64
		for s := range h.door.servers {
			n += s.received.Load()
		}
		return n
	}
	last := int64(-1)
	pgtest.Eventually(t, "all buffers are full", func() error {
		time.Sleep(200 * time.Millisecond)
		if n := received(); n != last || n < 1000 {
			last = n
			return fmt.Errorf("%d bytes", n)
		}
		return nil
	})
	for n := range 50 {
		if got := text(t, other, fmt.Sprintf("SELECT %d", n)); got != fmt.Sprint(n) {
			t.Fatal(got)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 1<<20 {
		t.Errorf("the process has grown by %d bytes", grown)
	}
}

// TestMuchIsOwedToNobody: who asks for much in few bytes waits until some of it is answered, and gets all of it then, be it in batches of
// their own or in one; and that is no pause of its own.
func TestMuchIsOwedToNobody(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, func(o *Options) { o.Pool.DefaultPoolSize, o.Pool.IdleTransactionTimeout = 1, 300*time.Millisecond })
	const many = maxOwed + maxOwed/2
	sync, shut := string(frame.Append(nil, 'S', "")), string(frame.Append(nil, 'C', "S\x00"))
	for name, ask := range map[string]string{
		"batches":   query("SELECT pg_sleep(2)") + strings.Repeat(sync, many),
		"one batch": parse("", "SELECT pg_sleep(2)") + bindAt("", "") + executeAt("") + strings.Repeat(shut, many-1) + sync,
	} {
		t.Run(name, func(t *testing.T) {
			r := h.raw()
			_ = r.SetDeadline(time.Now().Add(3 * patience))
			go io.WriteString(r, ask)
			pgtest.Eventually(t, "much is owed", func() error {
				if n := h.owed(); n < maxOwed {
					return fmt.Errorf("%d replies", n)
				}
				return nil
			})
			most, answered := 0, 0
			for kind := byte(0); answered < many || kind != 'Z'; {
				k, body, err := r.next()
				if err != nil || k == 'E' {
					t.Fatalf("after %d replies: %v, %q", answered, err, body)
				}
				if kind = k; kind == '3' || kind == 'Z' {
					answered++
				}
				if answered%1000 == 1 {
					most = max(most, h.owed())
				}
			}
			if most > maxOwed+8 {
				t.Errorf("%d replies were owed, want at most %d", most, maxOwed)
			}
		})
	}
}

// owed is how many replies a server connection owes.
func (h *house) owed() (most int) {
	h.door.mu.Lock()
	defer h.door.mu.Unlock()
	for s := range h.door.servers {
		s.mu.Lock()
		most = max(most, s.x.Owed())
		s.mu.Unlock()
	}
	return most
}

// withPasswords has clients prove by SCRAM that they know the superuser's password, and returns what they add for that.
func withPasswords(t *testing.T, o *Options) (more string) {
	t.Helper()
	auth, err := pgwire.NewAuthenticator(pgwire.AuthOptions{Method: pgwire.SCRAM, Secrets: trusting{pgtest.SuperPassword}})
	pgtest.Must(t, err)
	o.Accept.Auth = auth
	return "password='" + strings.ReplaceAll(strings.ReplaceAll(pgtest.SuperPassword, "\\", "\\\\"), "'", "\\'") + "'"
}

// TestHalfOpenHandshakesHoldUpNobody: one of five clients that come behind 2,000 of them is served within 100 ms, on a machine that
// may be busy. They are no clients, and take the place of none.
func TestHalfOpenHandshakesHoldUpNobody(t *testing.T) {
	const packet = "\x00\x00\x00\x17\x00\x03\x00\x00user\x00postgres\x00\x00"
	for name, said := range map[string]func(n int) string{
		"parts of a startup packet":          func(n int) string { return packet[:n%len(packet)] },
		"whole ones, and no answer to SCRAM": func(int) string { return packet },
	} {
		t.Run(name, func(t *testing.T) {
			_, _, p := pg(t)
			login := ""
			h := open(t, Transaction, p, func(o *Options) {
				o.Pool.MaxClientConn = 1000
				login = withPasswords(t, o)
			})
			text(t, h.connect(login), "SELECT 1")
			for n := range 2000 {
				c, err := net.Dial("tcp", h.address)
				pgtest.Must(t, err)
				t.Cleanup(func() { c.Close() })
				_, err = io.WriteString(c, said(n))
				pgtest.Must(t, err)
			}
			fastest := time.Hour
			for range 5 {
				began := time.Now()
				c := h.connect(login)
				fastest = min(fastest, time.Since(began))
				text(t, c, "SELECT 1")
			}
			t.Logf("served within %s", fastest)
			if fastest > 100*time.Millisecond {
				t.Errorf("clients waited %s or longer behind 2,000 that have not said who they are", fastest)
			}
		})
	}
}

// TestRubbishEndsOnlyItsSender: what makes no sense costs its sender the connection, whether it waits for an answer or leaves, and nobody else anything.
func TestRubbishEndsOnlyItsSender(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, func(o *Options) { o.Pool.DefaultPoolSize = 1 })
	good := h.connect()
	for _, m := range []struct {
		said   string
		leaves bool // it is the beginning of something that may make sense
	}{
		{"\x00\x00\x00\x00\x08aaaa", false}, {"Q\x00\x00\x00\x01", false}, {"Q\xff\xff\xff\xff", false}, {"Z\x00\x00\x00\x05I", false},
		{"S\x00\x00\x00\x08aaaa", true}, {"p\x00\x00\x00\x05a", false}, {"P\x00\x00\x00\x05a", false}, {"B\x00\x00\x00\x05a", false},
		{"C\x00\x00\x00\x05a", false}, {"D\x00\x00\x00\x04", false}, {query("BEGIN") + "\x01\x02\x03\x04\x05\x06", false},
		{parse("", "SELECT 1") + "R\x00\x00\x00\x04", false}, {"Q\x00\x00\x00\xffSELECT", true},
	} {
		r := h.raw()
		r.send(m.said)
		if m.leaves {
			pgtest.Must(t, r.Conn.(*net.TCPConn).CloseWrite())
		}
		if _, err := io.Copy(io.Discard, r); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after %q the connection goes on", m.said)
		}
		if got := text(t, good, "SELECT 'fine'"); got != "fine" {
			t.Errorf("after %q: %q", m.said, got)
		}
	}
}

// liar is a server that answers one query with what the test says.
func TestAServerThatLosesTrackIsGivenUp(t *testing.T) {
	for _, c := range []struct{ name, answer string }{
		{"an answer too many", string(frame.Append(frame.Append(frame.Append(nil, 'C', "SELECT 1\x00"), 'Z', "I"), 'C', "SELECT 1\x00"))},
		{"two ends", string(frame.Append(frame.Append(frame.Append(nil, 'C', "SELECT 1\x00"), 'Z', "I"), 'Z', "I"))},
		{"out of turn", string(frame.Append(nil, '1'))},
		{"rubbish", "\xff\x00\x00\x00\x08asdf"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			pgtest.Must(t, err)
			var serving sync.WaitGroup
			served := make(chan int, 100)
			serving.Go(func() {
				for n := 1; ; n++ {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					serving.Go(func() {
						defer conn.Close()
						lie(conn, c.answer, func() { served <- n })
					})
				}
			})
			defer serving.Wait()
			defer l.Close()
			p := newPlace()
			p.admit(l.Addr().String())
			h := open(t, Transaction, p, func(o *Options) { o.Pool.DefaultPoolSize = 1 })
			for want := 1; want <= 2; want++ {
				r := h.raw()
				r.send(query("SELECT 1"))
				if n := <-served; n != want {
					t.Errorf("query %d went to connection %d", want, n)
				}
				io.Copy(io.Discard, io.LimitReader(r, 1))
				pgtest.Eventually(t, "the connection is given up", func() error {
					if s := h.door.Snapshot()[0]; s.ServersActive+s.ServersIdle > 0 {
						return fmt.Errorf("%+v", s)
					}
					return nil
				})
				r.Close()
			}
		})
	}
}

func lie(conn net.Conn, answer string, served func()) {
	buf := make([]byte, 4096)
	if n, err := conn.Read(buf); n < 8 || err != nil {
		return
	}
	conn.Write(welcome())
	if n, _ := conn.Read(buf); n == 0 {
		return
	}
	served()
	io.WriteString(conn, answer)
	io.Copy(io.Discard, conn)
}

// TestLastWordsBehindAnAnswerToUs: a server that ends in the very moment in which it has answered a statement of the pooler's own
// has FATAL right behind that answer. Whoever waits for it goes on with another connection.
func TestLastWordsBehindAnAnswerToUs(t *testing.T) {
	answer := frame.Append(frame.Append(frame.Append(nil, 'S', "DateStyle\x00German\x00"), 'C', "SET\x00"), 'Z', "I")
	fatal := frame.Append(slices.Clip(answer), 'E', "SFATAL\x00VFATAL\x00C57P01\x00Mterminating connection due to administrator command\x00\x00")
	var connections atomic.Int32
	p := fake(t, func(conn net.Conn, _ string) bool {
		if connections.Add(1) == 1 {
			conn.Write(fatal)
			return false
		}
		conn.Write(answer)
		return true
	}, func() {})
	h := open(t, Transaction, p, size1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := pgconn.Connect(ctx, h.url("options='-c DateStyle=German'"))
	if err != nil {
		t.Fatal(err)
	}
	if n := connections.Load(); n != 2 {
		t.Errorf("%d connections", n)
	}
	p.depose("the end")
	pgtest.Must(t, c.Close(ctx))
}

// TestTheDeadlineOfACutEndsWithTheLending cuts a server just as the last answer is passed on: its client stays.
func TestTheDeadlineOfACutEndsWithTheLending(t *testing.T) {
	o, _, p := pg(t)
	h := open(t, Transaction, p, size1)
	a, x := h.hooked(t)
	a.send(query("SELECT 0"))
	a.until('Z')
	var s *server
	h.door.mu.Lock()
	for s = range h.door.servers {
	}
	h.door.mu.Unlock()
	cut := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.cutoff
	}
	hook := func() { // a switchover, just as an answer is being passed on
		p.depose("switchover")
		for !cut() {
			time.Sleep(time.Millisecond)
		}
		p.admit(fmt.Sprintf("127.0.0.1:%d", o.Port))
	}
	x.hook.Store(&hook)
	a.send(query("SELECT 1"))
	a.reply(1, patience)
	time.Sleep(2 * farewell)
	a.send(query("SELECT 2"))
	if got := a.reply(1, patience); !strings.Contains(got, "SELECT 1") || strings.Contains(got, "E(") {
		t.Error("a client that was at an edge:", got)
	}
}
