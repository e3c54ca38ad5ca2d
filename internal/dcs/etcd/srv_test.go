package etcd

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/havenha/haven/internal/dcs"
	"github.com/havenha/haven/internal/dcs/dcstest"
)

// zone is a DNS with SRV records: of each service, host:port of its targets.
type zone struct {
	mu      sync.Mutex
	records map[string][]string // by "service domain"
	broken  map[string]bool     // services whose lookup fails
}

func (z *zone) lookup(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.broken[service] {
		return "", nil, &net.DNSError{Err: "server misbehaving", Name: name, IsTemporary: true}
	}
	var out []*net.SRV
	for _, target := range z.records[service+" "+name] {
		host, port, err := net.SplitHostPort(target)
		if err != nil {
			return "", nil, err
		}
		n, err := strconv.Atoi(port)
		if err != nil {
			return "", nil, err
		}
		out = append(out, &net.SRV{Target: host + ".", Port: uint16(n)})
	}
	if len(out) == 0 || proto != "tcp" {
		return "", nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	return "", out, nil
}

func (z *zone) set(service string, targets ...string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.records = map[string][]string{service + " example.com": targets}
	z.broken = nil
}

// address is an endpoint without its scheme.
func address(endpoint string) string { return strings.TrimPrefix(endpoint, "http://") }

func TestSRVRecordsNameTheEndpoints(t *testing.T) {
	peers := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/members" {
			_, _ = w.Write([]byte(`[{"name": "a", "clientURLs": ["https://10.0.0.1:2379"]}, {"name": "b", "clientURLs": ["https://10.0.0.2:2379"]}]`))
		}
	}))
	defer peers.Close()
	for name, c := range map[string]struct {
		records map[string][]string
		broken  string
		suffix  string
		want    string
	}{
		"TLS before plain":        {records: map[string][]string{"etcd-client-ssl": {"a.example.com:2379", "b.example.com:4001"}, "etcd-client": {"c.example.com:2379"}}, want: "https://a.example.com:2379 https://b.example.com:4001"},
		"plain":                   {records: map[string][]string{"etcd-client": {"c.example.com:2379"}, "etcd-ssl": {"d.example.com:2379"}}, want: "http://c.example.com:2379"},
		"without client":          {records: map[string][]string{"etcd": {"e.example.com:2379"}}, want: "http://e.example.com:2379"},
		"suffix":                  {records: map[string][]string{"etcd-client": {"c.example.com:2379"}, "etcd-client-ssl-main": {"f.example.com:2379"}}, suffix: "main", want: "https://f.example.com:2379"},
		"peers":                   {records: map[string][]string{"etcd-server": {"127.0.0.1:1", strings.TrimPrefix(peers.URL, "http://")}}, want: "https://10.0.0.1:2379 https://10.0.0.2:2379"},
		"none":                    {want: "error: none of _etcd-client-ssl._tcp.example.com, _etcd-client._tcp.example.com, "},
		"no plain for broken TLS": {records: map[string][]string{"etcd-client": {"c.example.com:2379"}}, broken: "etcd-client-ssl", want: "error: look up _etcd-client-ssl._tcp.example.com: "},
	} {
		z := &zone{records: map[string][]string{}, broken: map[string]bool{c.broken: true}}
		for service, targets := range c.records {
			for i := range targets {
				targets[i] = strings.Replace(targets[i], "127.0.0.1:", "localhost:", 1) // a target is a name
			}
			z.records[service+" example.com"] = targets
		}
		client := openClient(t, Options{SRV: "example.com", SRVSuffix: c.suffix, LookupSRV: z.lookup})
		found, err := client.srvEndpoints(t.Context())
		got := strings.Join(found, " ")
		if err != nil {
			got = "error: " + err.Error()
		}
		if got != c.want && (err == nil || !strings.HasPrefix(got, c.want)) {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}

// A client that knows its etcd by SRV records alone reads, watches and renews, also where the DNS answers only later.
func TestClientBySRVRecords(t *testing.T) {
	endpoint := dcstest.StartEtcd(t)
	z := &zone{broken: map[string]bool{"etcd-client-ssl": true}}
	c := openClient(t, Options{SRV: "example.com", LookupSRV: z.lookup, RetryTimeout: 30 * time.Second})
	if err := c.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "look up _etcd-client-ssl._tcp.example.com") || Refused(err) {
		t.Fatalf("ping without a DNS: %v", err)
	}
	if h := c.Health(t.Context()); len(h) != 1 || h[0].Endpoint != "" || h[0].Error == "" {
		t.Errorf("health without a DNS: %+v", h)
	}
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var u *Unreachable
	if _, err := c.Snapshot(short); !errors.As(err, &u) || !strings.Contains(err.Error(), "SRV records of example.com: ") {
		t.Errorf("a call without a DNS: %v", err)
	}
	updates := c.Watch(t.Context())
	if first := <-updates; first.Err == nil {
		t.Error("the watch without a DNS tells of no error")
	}
	z.set("etcd-client", address(endpoint))
	h := lead(t, c, "db1")
	if _, err := c.Renew(t.Context(), h); err != nil {
		t.Errorf("renewal: %v", err)
	}
	awaitLeader(t, updates, "db1")
}

// awaitLeader waits until a watch shows that leader.
func awaitLeader(t *testing.T, updates <-chan dcs.Update, name string) {
	t.Helper()
	limit := time.After(60 * time.Second)
	for {
		select {
		case u := <-updates:
			if u.Err == nil && u.Snapshot.Leader != nil && u.Snapshot.Leader.Name == name {
				return
			}
		case <-limit:
			t.Fatalf("the watch does not show that %s leads", name)
		}
	}
}

// The records are looked up again when that is due, and what they name takes the place of what they named.
func TestSRVRecordsThatChange(t *testing.T) {
	one, two := dcstest.StartEtcd(t), dcstest.StartEtcd(t)
	z := &zone{}
	z.set("etcd-client", address(one))
	c := openClient(t, Options{SRV: "example.com", LookupSRV: z.lookup, RetryTimeout: 30 * time.Second})
	if _, err := c.Snapshot(t.Context()); err != nil {
		t.Fatal(err)
	}
	z.set("etcd-client", address(two))
	c.records.mu.Lock()
	c.records.last = time.Now().Add(-2 * discoverEvery)
	c.records.mu.Unlock()
	for began := time.Now(); !slices.Equal(c.calls.configured(), []string{two}); time.Sleep(10 * time.Millisecond) {
		if _, err := c.Snapshot(t.Context()); err != nil || time.Since(began) > 30*time.Second {
			t.Fatalf("the endpoints are %v: %v", c.calls.configured(), err)
		}
	}
}

// TestAClosedEndpointHasASuccessor: a call that met an endpoint which other records have just taken the place of goes on with those.
func TestAClosedEndpointHasASuccessor(t *testing.T) {
	one, two := dcstest.StartEtcd(t), dcstest.StartEtcd(t)
	c := openClient(t, Options{Endpoints: []string{one}})
	met := 0
	if err := c.call(t.Context(), "read", func(context.Context, *link) error {
		if met++; met == 1 {
			c.calls.fix([]string{two})
			return errClosed
		}
		return nil
	}); err != nil || met != 2 {
		t.Errorf("after %d tries: %v", met, err)
	}
}
