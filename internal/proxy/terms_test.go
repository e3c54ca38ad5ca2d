package proxy

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// TestNeverTwoTermsAtOnce moves the leadership to and fro under clients that always come back, while both servers
// believe all the time that they are the primary.
func TestNeverTwoTermsAtOnce(t *testing.T) {
	w, a, b := start(t, settings()), newFake(t, "db1"), newFake(t, "db2")
	a.primary.Store(http.StatusOK)
	b.primary.Store(http.StatusOK)
	var over atomic.Bool
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() {
			for !over.Load() {
				drive(w.rw)
			}
		})
	}
	w.moveAbout(60, func(term uint64) cluster.Snapshot {
		leader := a
		if term%2 == 0 {
			leader = b
		}
		return scene(leader, term, cluster.TermPromoted, a, b)
	})
	over.Store(true)
	w.end()
	clients.Wait()
}

// TestNeverTwoTermsAtOnceInPools does the same with server connections that many clients share.
func TestNeverTwoTermsAtOnceInPools(t *testing.T) {
	a, b := newReal(t, "db1"), newReal(t, "db2")
	w := start(t, pooledSettings("transaction"))
	w.show(a.leads(1, a, b))
	ctx, end := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for range 8 {
		c, err := at(t, w.rw, "postgres", "postgres", "")
		pgtest.Must(t, err)
		clients.Go(func() {
			for ctx.Err() == nil {
				if _, err := c.Exec(ctx, "SELECT 1"); err == nil || ctx.Err() != nil {
					continue
				}
				// It had the connection that was reset.
				next, err := pgx.Connect(ctx, c.Config().ConnString())
				if err != nil {
					return
				}
				t.Cleanup(func() { next.Close(context.Background()) })
				c = next
			}
		})
	}
	w.moveAbout(30, func(term uint64) cluster.Snapshot {
		if term%2 == 0 {
			return b.leads(term, a, b)
		}
		return a.leads(term, a, b)
	})
	end()
	clients.Wait()
}

// moveAbout has term after term lead, and expects sessions of each, and of none but that.
func (w *world) moveAbout(terms uint64, leads func(term uint64) cluster.Snapshot) {
	w.t.Helper()
	for term := uint64(1); term <= terms; term++ {
		w.show(leads(term))
		w.until("sessions of the term", func(Stats) bool {
			terms := w.proxy.board.terms()
			if len(terms) > 1 {
				w.t.Fatalf("sessions of several terms: %v", terms)
			}
			return terms[term] > 0
		})
	}
}

// drive uses one session until it ends.
func drive(address string) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	conn.Write([]byte("hello yo"))
	buf := make([]byte, 64)
	for {
		if _, err := conn.Read(buf); err != nil {
			return
		}
		if _, err := conn.Write([]byte("ping")); err != nil {
			return
		}
	}
}

// terms counts open sessions by term.
func (b *board) terms() map[uint64]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := map[uint64]int{}
	for s := range b.sessions {
		select {
		case <-s.ended:
		default:
			out[s.pick.admission.term]++
		}
	}
	return out
}
