package proxy

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"time"
)

// slowServer answers an SSLRequest after that long.
func slowServer(t *testing.T, after time.Duration) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if _, err := io.ReadFull(c, make([]byte, len(sslRequest))); err == nil {
					time.Sleep(after)
					_, _ = c.Write([]byte("N"))
				}
			}()
		}
	}()
	return netip.MustParseAddrPort(l.Addr().String())
}

// TestASlowNetworkIsWaitedFor: a leader whose answers take far longer than a check is given at first is found writable all
// the same.
func TestASlowNetworkIsWaitedFor(t *testing.T) {
	const late = 900 * time.Millisecond
	api := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { time.Sleep(late) }))
	defer api.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := checker{client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	writable := make(chan struct{}, 1)
	var refused atomic.Int32
	c.until(ctx, candidate{api: api.URL, ports: []netip.AddrPort{slowServer(t, late)}}, 0, func(err error) {
		if err != nil {
			refused.Add(1)
			return
		}
		writable <- struct{}{}
	})
	select {
	case <-writable:
	default:
		t.Errorf("%d checks gave up, and none was answered", refused.Load())
	}
}
