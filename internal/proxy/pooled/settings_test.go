package pooled

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/pgwire/frame"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// TestTrackExtraParameters: a parameter that servers report follows its client, and one that they do not report is refused.
func TestTrackExtraParameters(t *testing.T) {
	_, _, p := pg(t)
	const extra = "default_transaction_read_only"
	h := open(t, Transaction, p, func(o *Options) {
		size1(o)
		o.Pool.TrackExtraParameters = []string{extra, "work_mem"}
	})
	a, b := h.connect("options='-c "+extra+"=on'"), h.connect()
	for round, want := range []map[*pgx.Conn]string{{a: "on", b: "off"}, {a: "on", b: "off"}, {a: "off", b: "on"}} {
		if round == 2 {
			exec(t, a, "SET "+extra+" = off")
			exec(t, b, "SET "+extra+" = on")
		}
		for c, want := range want {
			if got := text(t, c, "SHOW "+extra); got != want {
				t.Errorf("round %d: %s, want %s", round, got, want)
			}
		}
	}
	if _, err := pgx.Connect(context.Background(), h.url("options='-c work_mem=5MB'")); code(err) != "08P01" || !strings.Contains(err.Error(), "work_mem") {
		t.Errorf("a parameter that no server reports: %v", err)
	}
}

// TestServerCheckQuery counts how often a server connection is looked at before it is lent.
func TestServerCheckQuery(t *testing.T) {
	_, _, p := pg(t)
	setup := open(t, Transaction, p, nil).connect()
	for name, c := range map[string]struct {
		change func(*config.Pool)
		want   string // of four lendings
	}{
		"always":           {func(p *config.Pool) { p.ServerCheckQuery = "SELECT nextval('checks')" }, "4"},
		"within its delay": {func(p *config.Pool) { p.ServerCheckQuery, p.ServerCheckDelay = "SELECT nextval('checks')", time.Hour }, "0"},
		"after its delay": {func(p *config.Pool) {
			p.ServerCheckQuery, p.ServerCheckDelay = "SELECT nextval('checks')", time.Nanosecond
		}, "4"},
		"that is not there":   {func(p *config.Pool) { p.ServerCheckQuery = "" }, "0"},
		"with several values": {func(p *config.Pool) { p.ServerCheckQuery = "SELECT nextval('checks'); SELECT 1" }, "4"},
	} {
		t.Run(name, func(t *testing.T) {
			exec(t, setup, "DROP SEQUENCE IF EXISTS checks; CREATE SEQUENCE checks")
			h := open(t, Transaction, p, func(o *Options) { size1(o); c.change(&o.Pool) })
			client := h.raw()
			before := text(t, setup, "SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM checks")
			for range 4 {
				client.send(query("SELECT 'here'"))
				client.rows("here")
			}
			if got := text(t, setup, "SELECT CASE WHEN is_called THEN last_value ELSE 0 END - "+before+" FROM checks"); got != c.want {
				t.Errorf("%s looks, want %s", got, c.want)
			}
		})
	}
}

// TestServerCheckQueryWithoutACommand is answered by EmptyQueryResponse.
func TestServerCheckQueryWithoutACommand(t *testing.T) {
	var looks atomic.Int32
	p := fake(t, func(conn net.Conn, sql string) bool {
		if strings.HasPrefix(sql, ";") {
			looks.Add(1)
			conn.Write(frame.Append(frame.Append(nil, 'I'), 'Z', "I"))
			return true
		}
		conn.Write(frame.Append(frame.Append(nil, 'C', "INSERT 0 1\x00"), 'Z', "I"))
		return true
	}, func() {})
	c := open(t, Transaction, p, func(o *Options) { size1(o); o.Pool.ServerCheckQuery = ";" }).raw()
	for range 3 {
		c.send(query("INSERT"))
		c.until('Z')
	}
	if n := looks.Load(); n != 3 {
		t.Errorf("%d looks", n)
	}
}

// TestMinPoolSize: as long as somebody is there, so many server connections are.
func TestMinPoolSize(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, func(o *Options) { o.Pool.MinPoolSize, o.Pool.DefaultPoolSize = 3, 4 })
	c := h.connect()
	pgtest.Eventually(t, "three server connections", func() error {
		if s := h.door.Snapshot()[0]; s.ServersIdle+s.ServersActive != 3 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	text(t, c, "SELECT 1")
}

// TestServerIdleTimeout closes connections that nobody uses, down to min_pool_size.
func TestServerIdleTimeout(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, func(o *Options) { o.Pool.ServerIdleTimeout, o.Pool.MinPoolSize = 300*time.Millisecond, 1 })
	var clients []*raw
	for range 3 {
		c := h.raw()
		c.send(query("BEGIN"))
		c.until('Z')
		clients = append(clients, c)
	}
	if s := h.door.Snapshot()[0]; s.ServersActive != 3 {
		t.Fatalf("%+v", s)
	}
	for _, c := range clients {
		c.send(query("COMMIT"))
		c.until('Z')
	}
	pgtest.Eventually(t, "one server connection is left", func() error {
		if s := h.door.Snapshot()[0]; s.ServersIdle+s.ServersActive != 1 {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
}

// TestReservePool: who has waited for reserve_pool_timeout is served beside the pool, with 0 nobody is.
func TestReservePool(t *testing.T) {
	_, _, p := pg(t)
	for name, after := range map[string]time.Duration{"after a while": 300 * time.Millisecond, "never": 0} {
		t.Run(name, func(t *testing.T) {
			h := open(t, Transaction, p, func(o *Options) {
				size1(o)
				o.Pool.ReservePoolSize, o.Pool.ReservePoolTimeout = 1, after
			})
			a, b, c := h.raw(), h.raw(), h.raw()
			a.send(query("BEGIN"))
			a.until('Z')
			b.send(query("BEGIN"))
			if after == 0 {
				time.Sleep(time.Second)
				if s := h.door.Snapshot()[0]; s.ServersActive != 1 || s.ClientsWaiting != 1 {
					t.Errorf("%+v", s)
				}
				return
			}
			b.until('Z')
			c.send(query("SELECT 1"))
			time.Sleep(2 * after)
			if s := h.door.Snapshot()[0]; s.ServersActive != 2 || s.ClientsWaiting != 1 {
				t.Errorf("two of three are served: %+v", s)
			}
			b.send(query("COMMIT"))
			c.until('Z')
		})
	}
}

// TestServerLifetime: an old connection is not lent again, and with 0 each is lent once.
func TestServerLifetime(t *testing.T) {
	_, _, p := pg(t)
	for name, lifetime := range map[string]time.Duration{"a second": time.Second, "once": 0} {
		t.Run(name, func(t *testing.T) {
			h := open(t, Transaction, p, func(o *Options) { size1(o); o.Pool.ServerLifetime = lifetime })
			c := h.connect()
			first := text(t, c, "SELECT pg_backend_pid()")
			if same := text(t, c, "SELECT pg_backend_pid()") == first; same && lifetime == 0 {
				t.Error("a connection was lent twice")
			}
			pgtest.Eventually(t, "another connection", func() error {
				if got := text(t, c, "SELECT pg_backend_pid()"); got == first {
					return errors.New("it is lent still")
				}
				return nil
			})
		})
	}
}

// TestClientLoginTimeout: who does not prove in time who it is, is told so.
func TestClientLoginTimeout(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, func(o *Options) {
		withPasswords(t, o)
		o.Pool.ClientLoginTimeout = 300 * time.Millisecond
	})
	c := &raw{t, h.knock()}
	pgtest.Must(t, c.SetDeadline(time.Now().Add(patience)))
	if kinds, body := c.until('E'); kinds != "RE" || !strings.Contains(string(body), "57014") {
		t.Errorf("%s %q", kinds, body)
	}
}

// TestQueryWaitTimeout ends a client that no server connection was free for.
func TestQueryWaitTimeout(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, size1)
	a, b := h.raw(), h.raw()
	a.send(query("BEGIN"))
	a.until('Z')
	terms := *h.door.terms.Load() // now that both are in
	terms.Pool.QueryWaitTimeout = 500 * time.Millisecond
	h.door.Reconfigure(terms)
	b.send(query("SELECT 1"))
	if code, message := b.told(); code != "08P01" || message != "FATAL query_wait_timeout" {
		t.Errorf("%s %s", code, message)
	}
	a.send(query("COMMIT"))
	if kinds, _ := a.until('Z'); kinds != "CZ" {
		t.Errorf("the client that had it is told %s", kinds)
	}
}

// TestTooManyPreparedStatements: what one client has prepared is bounded.
func TestTooManyPreparedStatements(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, size1)
	a, b := h.raw(), h.raw()
	long := strings.Repeat(" ", maxKept-1000)
	for i := 0; ; i++ {
		a.send(parse(fmt.Sprintf("s%d", i), fmt.Sprintf("SELECT %d%s", i, long)) + sync_)
		kind, body, err := a.next()
		pgtest.Must(t, err)
		if kind == 'E' {
			if !strings.Contains(string(body), "53200") || i < maxNamed/maxKept {
				t.Errorf("statement %d is answered by %q", i, body)
			}
			break
		}
		a.until('Z')
	}
	b.send(query("SELECT 'b'"))
	b.rows("b")
}

// TestNotificationsReachTheirSession: in mode session a client hears what it listens to, also while it says nothing.
func TestNotificationsReachTheirSession(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Session, p, nil)
	hears, says := h.connect(), h.connect()
	exec(t, hears, "LISTEN news")
	exec(t, says, "NOTIFY news, 'first'")
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	n, err := hears.WaitForNotification(ctx)
	pgtest.Must(t, err)
	if n.Channel != "news" || n.Payload != "first" {
		t.Errorf("%+v", n)
	}
}

// TestNoticesReachTheirClient in each mode.
func TestNoticesReachTheirClient(t *testing.T) {
	_, _, p := pg(t)
	for _, mode := range []string{Session, Transaction, Statement} {
		t.Run(mode, func(t *testing.T) {
			c := open(t, mode, p, size1).raw()
			c.send(query("DO $$BEGIN RAISE NOTICE 'for you'; END$$"))
			kinds, _ := c.until('N')
			if rest, _ := c.until('Z'); kinds != "N" || rest != "CZ" {
				t.Errorf("%s, %s", kinds, rest)
			}
		})
	}
}
