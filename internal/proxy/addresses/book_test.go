package addresses

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestNamesAreLookedUpBeforehandAndKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int32
		var broken atomic.Bool
		b := New(func(_ context.Context, host string) ([]netip.Addr, error) {
			if asked.Add(1); broken.Load() || host != "db1" {
				return nil, errors.New("no such host")
			}
			return []netip.Addr{netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.1")}, nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); b.Run(ctx) }()
		b.Want([]string{"db1"})
		<-b.Updated()
		want := netip.MustParseAddrPort("10.0.0.1:5432")
		if got := b.At("db1:5432"); len(got) != 2 || got[0] != want {
			t.Errorf("db1: %v", got)
		}
		for range 1000 {
			b.At("db1:5432")
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("the name server was asked %d times", n)
		}
		broken.Store(true)
		time.Sleep(3 * refreshAfter)
		if n := asked.Load(); n < 3 || n > 5 {
			t.Errorf("the name server was asked %d times in three minutes", n)
		}
		if got := b.At("db1:5432"); len(got) != 2 {
			t.Errorf("the name server fails, and what was known is forgotten: %v", got)
		}
		if got := b.At("10.1.2.3:5432"); len(got) != 1 || got[0].String() != "10.1.2.3:5432" {
			t.Errorf("an address: %v", got)
		}
		cancel()
		<-done
	})
}
