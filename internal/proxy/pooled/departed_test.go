package pooled

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/havenha/haven/internal/pgwire"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// TestWhoLeavesWaitsNoMore: clients that leave while they wait, in order or not, with TLS or without, are gone soon, though no server comes and
// nothing bounds their wait. Who stays is served.
func TestWhoLeavesWaitsNoMore(t *testing.T) {
	o, _, p := pg(t)
	h := open(t, Transaction, p, func(o *Options) {
		o.HoldTimeout, o.Pool.QueryWaitTimeout = 0, 0
		o.Accept.TLS, o.Accept.SSLMode = selfSigned(t), pgwire.SSLPrefer
	})
	stays := h.raw()
	leaving := []*raw{h.raw(), h.raw(), h.directly()}
	p.depose("nobody leads")
	for _, r := range append(leaving, stays) {
		r.send(query("SELECT 1"))
	}
	waiting := func(n int) func() error {
		return func() error {
			if s := h.door.Snapshot()[0]; s.ClientsWaiting != n || s.Clients != n {
				return fmt.Errorf("%+v", s)
			}
			return nil
		}
	}
	pgtest.Eventually(t, "all wait", waiting(4))
	leaving[0].send("X\x00\x00\x00\x04")
	for _, r := range leaving {
		r.Close()
	}
	pgtest.Eventually(t, "those who left are gone", waiting(1))
	p.admit(fmt.Sprintf("127.0.0.1:%d", o.Port))
	stays.until('Z')
}

// unanswered are secrets that are looked for in vain.
type unanswered struct{}

func (unanswered) Secret(ctx context.Context, _ string) (pgwire.Secret, error) {
	<-ctx.Done()
	return pgwire.Secret{}, ctx.Err()
}

// TestWhoLeavesDuringALookupIsNotWaitedFor: while a secret is looked up, for which there may be no server, nobody reads the client.
func TestWhoLeavesDuringALookupIsNotWaitedFor(t *testing.T) {
	_, _, p := pg(t)
	auth, err := pgwire.NewAuthenticator(pgwire.AuthOptions{Method: pgwire.SCRAM, Secrets: unanswered{}})
	pgtest.Must(t, err)
	h := open(t, Transaction, p, func(o *Options) { o.Accept.Auth, o.Pool.ClientLoginTimeout = auth, 0 })
	var all []net.Conn
	for range 3 {
		all = append(all, h.knock())
	}
	in := func(n int) func() error {
		return func() error {
			h.door.arrivals.mu.Lock()
			defer h.door.arrivals.mu.Unlock()
			if got := len(h.door.arrivals.all); got != n {
				return fmt.Errorf("%d do", got)
			}
			return nil
		}
	}
	pgtest.Eventually(t, "three log in", in(3))
	all[0].Close()
	all[1].Close()
	pgtest.Eventually(t, "two have left", in(1))
}

// TestServersThatAreUnfitAreGivenUp: idle connections to them are closed, and lent ones when they are returned.
func TestServersThatAreUnfitAreGivenUp(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, func(o *Options) { o.Pool.DefaultPoolSize = 2 })
	a, b := h.connect(), h.connect()
	exec(t, a, "BEGIN")
	lent, idle := text(t, a, "SELECT pg_backend_pid()"), text(t, b, "SELECT pg_backend_pid()")
	p.unfit.Store(&map[string]bool{p.address: true})
	await := func(n int) {
		t.Helper()
		pgtest.Eventually(t, fmt.Sprint(n, " connections"), func() error {
			if s := h.door.Snapshot()[0]; s.ServersActive+s.ServersIdle != n {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
	}
	await(1)
	if got := text(t, a, "SELECT pg_backend_pid()"); got != lent {
		t.Errorf("a transaction went from server process %s to %s", lent, got)
	}
	exec(t, a, "COMMIT")
	await(0)
	p.unfit.Store(nil)
	if got := text(t, b, "SELECT pg_backend_pid()"); got == lent || got == idle {
		t.Errorf("server process %s is in use still", got)
	}
}

// TestTheEndOfTheProxyIsTold: who waits, and whose transaction ends, is told so.
func TestTheEndOfTheProxyIsTold(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, size1)
	a, b := h.raw(), h.raw()
	a.send(query("BEGIN"))
	a.until('Z')
	b.send(query("SELECT 1"))
	pgtest.Eventually(t, "b waits", func() error {
		if h.door.Snapshot()[0].ClientsWaiting != 1 {
			return errUnasked
		}
		return nil
	})
	h.door.Close()
	if code, message := a.told(); code != "08006" {
		t.Error("a transaction is open:", code, message)
	}
	if code, message := b.told(); code != "57P01" {
		t.Error("a statement waits:", code, message)
	}
}

// TestAServerCheckThatFailsIsTold: a statement that no server connection passes would have its client wait for ever.
func TestAServerCheckThatFailsIsTold(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, func(o *Options) { o.Pool.ServerCheckQuery = "SELECT nothing" })
	a := h.raw()
	a.send(query("SELECT 1"))
	if code, message := a.told(); code != "08P01" || !strings.Contains(message, "server_check_query failed") || !strings.Contains(message, "nothing") {
		t.Error(code, message)
	}
	if !strings.Contains(h.log.String(), "a server connection has failed server_check_query") {
		t.Error("it is not logged")
	}
}
