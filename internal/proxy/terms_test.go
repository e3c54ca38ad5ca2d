package proxy

import (
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
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
	for term := uint64(1); term <= 60; term++ {
		leader := a
		if term%2 == 0 {
			leader = b
		}
		w.show(scene(leader, term, cluster.TermPromoted, a, b))
		w.until("sessions of the term", func(s Stats) bool {
			terms := w.proxy.board.terms()
			if len(terms) > 1 {
				t.Fatalf("sessions of several terms: %v", terms)
			}
			return terms[term] > 0
		})
	}
	over.Store(true)
	w.end()
	clients.Wait()
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
