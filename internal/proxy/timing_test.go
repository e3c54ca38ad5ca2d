package proxy

import (
	"context"
	"errors"
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

func TestNamesAreLookedUpBeforehandAndKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		var broken atomic.Bool
		b := newBook(func(_ context.Context, host string) ([]netip.Addr, error) {
			if asked.Add(1); broken.Load() || host != "db1" {
				return nil, errors.New("no such host")
			}
			return []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.1")}, nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); b.run(ctx) }()
		b.want([]string{"db1"})
		<-b.updated
		want := netip.MustParseAddrPort("10.0.0.1:5432")
		if got := b.at("db1:5432"); len(got) != 2 || got[0] != want {
			t.Errorf("db1: %v", got)
		}
		for range 1000 {
			b.at("db1:5432")
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("the name server was asked %d times", n)
		}
		broken.Store(true)
		time.Sleep(3 * refreshAfter)
		if n := asked.Load(); n < 3 || n > 5 {
			t.Errorf("the name server was asked %d times in three minutes", n)
		}
		if got := b.at("db1:5432"); len(got) != 2 {
			t.Errorf("the name server fails, and what was known is forgotten: %v", got)
		}
		if got := b.at("10.1.2.3:5432"); len(got) != 1 || got[0].String() != "10.1.2.3:5432" {
			t.Errorf("an address: %v", got)
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
