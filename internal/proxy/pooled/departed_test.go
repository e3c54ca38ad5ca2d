package pooled

import (
	"fmt"
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
