package etcd

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/havenha/haven/internal/dcs"
	"github.com/havenha/haven/internal/dcs/dcstest"
)

// opener gives stores with a prefix of their own on one endpoint.
func opener(endpoint string) func(t *testing.T) dcs.Store {
	var n atomic.Int64
	return func(t *testing.T) dcs.Store {
		return openClient(t, Options{Endpoints: []string{endpoint}, Scope: fmt.Sprintf("s%d-%s", n.Add(1), strings.ReplaceAll(t.Name(), "/", "-"))})
	}
}

func openClient(t *testing.T, o Options) *Client {
	t.Helper()
	if o.Scope == "" {
		o.Scope = t.Name()
	}
	c, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestConformanceExternal(t *testing.T) {
	dcstest.Run(t, opener(dcstest.StartEtcd(t)))
}

func TestConformanceEmbedded(t *testing.T) {
	s := startMember(t, memberOptions(t, "one", 1)[0])
	awaitReady(t, s)
	dcstest.Run(t, opener(s.Endpoint()))
}

// memberOptions describes a cluster of n members on free ports.
func memberOptions(t *testing.T, token string, n int) []ServerOptions {
	t.Helper()
	var members []ServerMember
	for i := range n {
		members = append(members, ServerMember{Name: fmt.Sprintf("db%d", i+1), Client: dcstest.FreeAddress(t), Peer: dcstest.FreeAddress(t)})
	}
	var all []ServerOptions
	for _, m := range members {
		all = append(all, ServerOptions{Name: m.Name, DataDir: t.TempDir() + "/etcd", Token: token, Members: members})
	}
	return all
}

func startMember(t *testing.T, o ServerOptions) *Server {
	t.Helper()
	s, err := StartServer(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(t, s) })
	return s
}

// end stops a member and waits until its files and ports are free.
func end(t *testing.T, s *Server) {
	t.Helper()
	s.Stop()
	select {
	case <-s.Stopped():
	case <-time.After(30 * time.Second):
		t.Error("the member did not end within 30 s")
	}
}

func awaitReady(t *testing.T, servers ...*Server) {
	t.Helper()
	limit := time.After(40 * time.Second)
	for _, s := range servers {
		select {
		case <-s.Ready():
		case err := <-s.Err():
			t.Fatalf("member %s: %v", s.opt.Name, err)
		case <-limit:
			t.Fatalf("member %s is not ready", s.opt.Name)
		}
	}
}
