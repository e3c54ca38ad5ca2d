package pooled

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/havenha/haven/internal/postgres/pgtest"
)

// longest is the transaction that is open for longest, once one counts as long, and its client is silent.
func (h *house) longest(t *testing.T) (longest OpenTransaction, pool Stats) {
	t.Helper()
	pgtest.Eventually(t, "a transaction is open for long", func() error {
		pool = h.door.Snapshot()[0]
		if len(pool.Long) != 1 || pool.Long[0].Silent == 0 {
			return fmt.Errorf("%+v", pool.Long)
		}
		longest = pool.Long[0]
		return nil
	})
	return longest, pool
}

// TestLongTransactionsAreTold, with the client whose they are. Neither a wait for a server connection nor the session before them counts.
func TestLongTransactionsAreTold(t *testing.T) {
	_, _, p := pg(t)
	for _, mode := range []string{Session, Transaction} {
		t.Run(mode, func(t *testing.T) {
			h := open(t, mode, p, func(o *Options) { o.Pool.DefaultPoolSize = 2 })
			a := h.connect("application_name=first")
			pid := text(t, a, "SELECT pg_backend_pid()")
			time.Sleep(long)
			began := time.Now()
			exec(t, a, "BEGIN")
			got, pool := h.longest(t)
			if got.Application != "first" || got.Client != a.PgConn().Conn().LocalAddr().String() || mode == Session && fmt.Sprint(got.PID) != pid {
				t.Errorf("%+v", got)
			}
			if got.Open > time.Since(began) || got.Silent > got.Open {
				t.Errorf("open for %s, silent for %s, and it began %s ago", got.Open, got.Silent, time.Since(began))
			}
			if pool.OpenTransactions != 1 || pool.IdleTransactions != 1 || pool.LongestTransaction != got.Open || pool.LongestIdleTransaction != got.Silent {
				t.Errorf("%+v", pool)
			}
			spoke := time.Now()
			exec(t, a, "SELECT 1")
			if got, _ := h.longest(t); got.Silent > time.Since(spoke) || got.Open < long {
				t.Errorf("open for %s, silent for %s, and it spoke %s ago", got.Open, got.Silent, time.Since(spoke))
			}
			chained := time.Now()
			exec(t, a, "COMMIT AND CHAIN")
			if got, _ := h.longest(t); got.Open > time.Since(chained) {
				t.Errorf("open for %s, and it began anew %s ago", got.Open, time.Since(chained))
			}
			exec(t, a, "COMMIT")
			if pool := h.door.Snapshot()[0]; pool.OpenTransactions != 0 || len(pool.Long) != 0 {
				t.Errorf("after its end: %+v", pool)
			}
		})
	}
}

// TestAWaitIsNoLending: the histograms have them apart, and a lending that ends with its server counts too.
func TestAWaitIsNoLending(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, size1)
	a, b := h.raw(), h.raw()
	count := func(of Histogram) (n uint64) {
		for _, c := range of.Counts {
			n += c
		}
		return n
	}
	before, began := h.door.Snapshot()[0], time.Now()
	a.send(query("BEGIN"))
	a.until('Z')
	b.send(query("SELECT 'b'"))
	pgtest.Eventually(t, "b waits", func() error {
		if h.door.Snapshot()[0].ClientsWaiting != 1 {
			return errors.New("it does not")
		}
		return nil
	})
	time.Sleep(2 * time.Second)
	released := time.Now()
	a.send(query("COMMIT"))
	a.until('Z')
	b.rows("b")
	var pool Stats
	pgtest.Eventually(t, "both lendings are counted", func() error {
		if pool = h.door.Snapshot()[0]; count(pool.Lendings)-count(before.Lendings) != 2 {
			return fmt.Errorf("%+v", pool)
		}
		return nil
	})
	lent, waited := pool.Lendings.Sum-before.Lendings.Sum, pool.Waits.Sum-before.Waits.Sum
	if lent > time.Since(began)+time.Since(released) || waited < 2*time.Second {
		t.Errorf("lendings of %s in all, waits of %s", lent, waited)
	}
	if pool.Turns-before.Turns != 3 || pool.Sent <= before.Sent || pool.Received <= before.Received {
		t.Errorf("before %+v, now %+v", before, pool)
	}
	a.send(query("BEGIN"))
	a.until('Z')
	p.depose("over")
	a.until('E')
	pgtest.Eventually(t, "the third lending counts, and what it has done stays", func() error {
		now := h.door.Snapshot()[0]
		if count(now.Lendings)-count(before.Lendings) != 3 || now.Turns < pool.Turns+1 {
			return fmt.Errorf("%+v", now)
		}
		return nil
	})
}
