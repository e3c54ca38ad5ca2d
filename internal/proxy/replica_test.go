package proxy

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

func TestReplicas(t *testing.T) {
	w, b, c := start(t, settings()), newFake(t, "db2"), newFake(t, "db3")
	a := leading(t, w, b, c)
	one := connect(t, w.ro)
	one.wantServer("db2")
	two := connect(t, w.ro)
	two.wantServer("db3")

	// db2 leaves: its session is reset, the other goes on.
	w.show(scene(a, 1, cluster.TermPromoted, a, c))
	one.wantReset()
	two.wantEcho()
	connect(t, w.ro).wantServer("db3")

	// db3 cannot be connected to: the next session goes to the primary.
	c.kill()
	three := connect(t, w.ro)
	three.wantServer("db1")
	s := w.proxy.Snapshot().Listeners[1]
	if db3 := s.Servers[1]; db3.State != Unreachable || db3.Errors == 0 || !strings.Contains(db3.Why, "connection refused") {
		t.Errorf("%+v", db3)
	}

	// That session belongs to the leadership, though it came through the port of the replicas.
	b.primary.Store(http.StatusOK)
	w.show(scene(b, 2, cluster.TermPromoted, a, b))
	three.wantReset()
	connect(t, w.ro).wantServer("db1")
}

func TestAReplicaThatBecomesLeaderLosesItsReaders(t *testing.T) {
	w, b := start(t, settings()), newFake(t, "db2")
	a := leading(t, w, b)
	c := connect(t, w.ro)
	c.wantServer("db2")
	w.show(scene(b, 2, cluster.TermClaimed, a, b))
	c.wantReset()
}

func TestWithoutFallbackReadersWait(t *testing.T) {
	c := settings()
	c.Listeners[1].Fallback = "none"
	w, b := start(t, c), newFake(t, "db2")
	a := leading(t, w)
	reader := connect(t, w.ro)
	w.until("a waiting reader", func(s Stats) bool { return s.Listeners[1].Waiting == 1 })
	w.show(scene(a, 1, cluster.TermPromoted, a, b))
	reader.wantServer("db2")
}

func TestReadersGoWhereFewestAre(t *testing.T) {
	w, b, c := start(t, settings()), newFake(t, "db2"), newFake(t, "db3")
	leading(t, w, b, c)
	var readers []*client
	for _, want := range []string{"db2", "db3", "db2", "db3"} {
		r := connect(t, w.ro)
		r.wantServer(want)
		readers = append(readers, r)
	}
	readers[1].CloseWrite()
	readers[3].CloseWrite()
	w.until("two readers less", func(s Stats) bool { return s.Listeners[1].Sessions == 2 })
	for _, want := range []string{"db3", "db3", "db2"} {
		connect(t, w.ro).wantServer(want)
	}
}

// TestPooledReadersGoWhereNewOnesWould: server connections outlive many transactions, so those to a replica that is to get no load are given
// up. One that seems to lag keeps them for a while.
func TestPooledReadersGoWhereNewOnesWould(t *testing.T) {
	a, b := newReal(t, "db1"), newReal(t, "db2")
	w := start(t, pooledSettings("transaction"))
	show := func(lag, excluded bool) {
		s := a.leads(1, a, b)
		s.Status = &cluster.Status{Optime: 1 << 30}
		replica := &s.Members[1]
		replica.ReplicationState, replica.XlogLocation = "streaming", 1<<30
		if lag {
			replica.XlogLocation -= 20 * mb
		}
		if excluded {
			replica.Tags = map[string]any{"noloadbalance": true}
		}
		w.show(s)
	}
	show(false, false)
	reader := dialPooled(t, w.ro)
	reads := func(m *member) {
		t.Helper()
		pgtest.Eventually(t, "it reads from "+m.name, func() error {
			port, err := portOn(reader)
			if err == nil && port != m.o.Port {
				err = fmt.Errorf("from port %d, not %d", port, m.o.Port)
			}
			return err
		})
	}
	reads(b)
	show(true, false)
	for range 5 { // longer than it takes to look
		time.Sleep(100 * time.Millisecond)
		reads(b)
	}
	show(false, true)
	reads(a)
}
