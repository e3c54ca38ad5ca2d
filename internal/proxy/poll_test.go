package proxy

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// patroni is a member of a Patroni cluster whose etcd is out of reach: all that it shows is its REST API.
type patroni struct {
	*fake
	rest    *httptest.Server
	replica atomic.Int32
	list    atomic.Pointer[string]
}

func newPatroni(t *testing.T, name string) *patroni {
	p := &patroni{fake: newFake(t, name)}
	p.replica.Store(http.StatusOK)
	p.rest = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		list := p.list.Load()
		switch {
		case r.URL.Path == "/primary":
			w.WriteHeader(int(p.primary.Load()))
		case r.URL.Path == "/replica":
			w.WriteHeader(int(p.replica.Load()))
		case list == nil:
			w.WriteHeader(http.StatusServiceUnavailable)
		default:
			fmt.Fprint(w, *list)
		}
	}))
	t.Cleanup(p.rest.Close)
	return p
}

// listCluster is what GET /cluster of any member answers.
func listCluster(leader *patroni, all ...*patroni) *string {
	var members []string
	for _, p := range all {
		host, port, _ := strings.Cut(p.listener.Addr().String(), ":")
		rest := `"role":"replica","state":"streaming","lag":0`
		if p == leader {
			rest = `"role":"leader","state":"running"`
		}
		members = append(members, fmt.Sprintf(`{"name":%q,"api_url":%q,"host":%q,"port":%s,"timeline":1,%s}`, p.name, p.rest.URL+"/patroni", host, port, rest))
	}
	s := `{"scope":"demo","members":[` + strings.Join(members, ",") + "]}"
	return &s
}

func TestDiscoverByREST(t *testing.T) {
	a, b := newPatroni(t, "db1"), newPatroni(t, "db2")
	c := settings()
	c.Discover, c.Members = "rest", []string{a.rest.Listener.Addr().String(), b.rest.URL + "/"}
	a.primary.Store(http.StatusOK)
	a.list.Store(listCluster(a, a, b))
	b.list.Store(listCluster(a, a, b))
	w := start(t, c)
	w.until("a ready replica", func(s Stats) bool {
		l := s.Listeners[1].Servers
		return len(l) == 2 && l[1].State == Ready
	})
	writer, reader := connect(t, w.rw), connect(t, w.ro)
	writer.wantServer("db1")
	reader.wantServer("db2")

	// The members answer nothing for a while: sessions and routes stay.
	a.list.Store(nil)
	b.list.Store(nil)
	w.until("an unknown store", func(s Stats) bool { return !s.Store.Known })
	writer.wantEcho()
	connect(t, w.rw).wantServer("db1")

	// The leader has not noticed yet that it is none: it lists itself still, but is not believed.
	a.primary.Store(http.StatusServiceUnavailable)
	a.list.Store(listCluster(a, a, b))
	w.until("a doubted leader", func(s Stats) bool {
		return s.Store.Known && s.Leader.State == Checking && s.Leader.Why == "its REST API answers 503 to /primary"
	})
	writer.wantEcho()

	b.primary.Store(http.StatusOK)
	a.list.Store(listCluster(b, a, b))
	b.list.Store(listCluster(b, a, b))
	writer.wantReset()
	reader.wantReset()
	connect(t, w.rw).wantServer("db2")

	a.replica.Store(http.StatusServiceUnavailable)
	w.until("a refused replica", func(s Stats) bool { return s.Listeners[1].Servers[0].State == Refused })
	connect(t, w.ro).wantServer("db2")
}

func TestSketch(t *testing.T) {
	p := sketch(listing{Members: []listed{
		{Name: "db3", Role: "replica", State: "in archive recovery", Host: "10.0.0.3", Port: []byte("5432"), Lag: []byte(`"unknown"`)},
		{Name: "db1", Role: "leader", State: "running", Host: "10.0.0.1", Port: []byte(`"5433"`), APIURL: "https://10.0.0.1:8008/patroni"},
		{Name: "db2", Role: "sync_standby", State: "streaming", Host: "fe80::2", Port: []byte("5432"), Lag: []byte("17"), Tags: map[string]any{"noloadbalance": true}},
		{Name: "db4", Role: "replica", State: "stopped"},
	}})
	want := picture{leader: &leadership{holder: "db1"}, ready: true, servers: []server{
		{name: "db1", address: "10.0.0.1:5433", api: "https://10.0.0.1:8008", state: "running", leads: true, lag: -1},
		{name: "db2", address: "[fe80::2]:5432", state: "running", streaming: true, excluded: true, lag: 17},
		{name: "db3", address: "10.0.0.3:5432", state: "running", lag: -1},
		{name: "db4", state: "stopped", lag: -1},
	}}
	if d := cmp.Diff(want, p, cmp.AllowUnexported(picture{}, leadership{}, server{})); d != "" {
		t.Error(d)
	}
}

func TestBelieved(t *testing.T) {
	led := func(name string, timeline int) *listing {
		l := &listing{Scope: fmt.Sprintf("%s/%d", name, timeline)}
		if name != "" {
			l.Members = []listed{{Name: name, Role: "leader", Timeline: timeline}}
		}
		return l
	}
	for name, c := range map[string]struct {
		answers []*listing
		want    string
	}{
		"most":              {[]*listing{led("db1", 9), led("db2", 2), led("db2", 2)}, "db2/2"},
		"a tie: the newer":  {[]*listing{led("db1", 1), led("db2", 2)}, "db2/2"},
		"a tie with nobody": {[]*listing{led("", 0), led("db2", 2)}, "db2/2"},
		"most see nobody":   {[]*listing{led("", 0), led("db1", 1), led("", 0)}, "/0"},
		"only one answers":  {[]*listing{nil, led("db1", 1), nil}, "db1/1"},
	} {
		if got := believed(c.answers); got.Scope != c.want {
			t.Errorf("%s: %s, want %s", name, got.Scope, c.want)
		}
	}
	if believed([]*listing{nil, nil}) != nil {
		t.Error("nobody answered, and yet somebody is believed")
	}
}
