package proxy

import (
	"context"
	"net/http"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// silent is a network in which nobody answers.
type silent struct{ asked atomic.Int32 }

func (s *silent) RoundTrip(r *http.Request) (*http.Response, error) {
	s.asked.Add(1)
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func TestASilentMemberIsAskedTenTimesASecondAndLaterLess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net silent
		c := &checker{client: &http.Client{Transport: &net}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.until(ctx, candidate{api: "http://10.0.0.1:8008"}, 0, func(error) {})
		}()
		time.Sleep(950 * time.Millisecond)
		if n := net.asked.Load(); n != 10 {
			t.Errorf("asked %d times in the first second", n)
		}
		time.Sleep(time.Minute)
		before := net.asked.Load()
		time.Sleep(10 * time.Second)
		if n := net.asked.Load() - before; n != 20 {
			t.Errorf("asked %d times in ten seconds of a later minute", n)
		}
		cancel()
		<-done
	})
}

func TestAFailedReplicaIsTriedAgainLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, l := newBoard(time.Now()), newLedger(settings().Listeners[1])
		l.rule.fallback = false
		b.enlist(l)
		s := standby("db2", nil)
		s.address = "10.0.0.2:5432"
		b.show(picture{servers: []server{s}}, map[string][]netip.AddrPort{"db2": {netip.MustParseAddrPort(s.address)}})
		p, _, _ := b.choose(l)
		if p.server != "db2" {
			t.Fatalf("%+v", p)
		}
		b.drop(l, p)
		b.failed(l, p, "connection refused")
		p, _, retry := b.choose(l)
		if p.server != "" || retry != shun {
			t.Fatalf("right after its failure: %+v, again in %s", p, retry)
		}
		time.Sleep(retry)
		if p, _, _ = b.choose(l); p.server != "db2" {
			t.Errorf("after %s: %+v", retry, p)
		}
		// Two connections were under way; they fail together, and that counts once.
		b.failed(l, p, "connection refused")
		b.failed(l, p, "connection refused")
		if _, _, retry = b.choose(l); retry != 2*shun {
			t.Errorf("after another failure: again in %s", retry)
		}
	})
}
