package etcd

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// greetingPath is where a member tells about itself, on its client port: before etcd runs there, and while it does.
const greetingPath = "/haven/etcd"

// greetingTime bounds one question to another member.
const greetingTime = time.Second

// greeting is what a member tells the others.
type greeting struct {
	Name  string `json:"name"`
	Token string `json:"token"`
	Phase string `json:"phase"`
	// Data tells whether it has etcd data.
	Data bool `json:"data"`
}

// greeter answers with the present greeting.
type greeter struct {
	mu  sync.Mutex
	now greeting
}

func (g *greeter) set(phase string, data bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now.Phase, g.now.Data = phase, data
}

func (g *greeter) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	g.mu.Lock()
	now := g.now
	g.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	// A peer that hangs up will ask again.
	_ = json.NewEncoder(w).Encode(now)
}

// serve answers on address until the function returned is called, which waits for its end.
func (g *greeter) serve(address string, secure *tls.Config) (stop func(), err error) {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("embedded etcd: listen on %s: %w", address, err)
	}
	mux := http.NewServeMux()
	mux.Handle("GET "+greetingPath, g)
	s := &http.Server{Handler: mux, ReadHeaderTimeout: greetingTime}
	if secure != nil {
		ln = tls.NewListener(ln, secure)
	}
	var serving sync.WaitGroup
	// It always ends with http.ErrServerClosed, or because the listener was closed.
	serving.Go(func() { _ = s.Serve(ln) })
	return func() {
		_ = s.Close()
		serving.Wait()
	}, nil
}

// errForeign: something answers there that is not one of our members.
var errForeign = errors.New("what answers there is not an embedded etcd of Haven")

// greet asks one member. An error other than errForeign means that nothing is known of it.
func greet(ctx context.Context, client *http.Client, base string) (greeting, error) {
	ctx, cancel := context.WithTimeout(ctx, greetingTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+greetingPath, nil)
	if err != nil {
		return greeting{}, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return greeting{}, err
	}
	defer func() { _ = resp.Body.Close() }()
	var g greeting
	if resp.StatusCode == http.StatusNotFound {
		return greeting{}, errForeign
	}
	if resp.StatusCode != http.StatusOK {
		return greeting{}, fmt.Errorf("answer with status %s", resp.Status)
	}
	err = json.NewDecoder(io.LimitReader(resp.Body, 4096)).Decode(&g)
	return g, err
}

// beginning tells whether an etcd runs at a member's peer address. It answers there at once, but to clients only when
// it has a quorum (etcd, embed.serveCtx).
func beginning(ctx context.Context, client *http.Client, base string) bool {
	ctx, cancel := context.WithTimeout(ctx, greetingTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/version", nil)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// greetAll asks all at once. Members that did not answer are missing.
func greetAll(ctx context.Context, client *http.Client, scheme string, members []ServerMember) (map[string]greeting, error) {
	answers := make([]greeting, len(members))
	errs := make([]error, len(members))
	var asked sync.WaitGroup
	for i, m := range members {
		asked.Go(func() { answers[i], errs[i] = greet(ctx, client, scheme+"://"+m.Client) })
	}
	asked.Wait()
	found := map[string]greeting{}
	for i, m := range members {
		if errors.Is(errs[i], errForeign) {
			return nil, fmt.Errorf("embedded etcd: member %s at %s: %w: check etcd.members", m.Name, m.Client, errForeign)
		}
		if errs[i] == nil {
			found[m.Name] = answers[i]
		}
	}
	return found, nil
}
