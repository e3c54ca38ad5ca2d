package agent

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/dcs"
)

// TestSlowAnswerOfAMemberIsAwaited: a lost leader's host refuses at once, and a standby that is alive says nothing of its server at first,
// and takes its time. A member that did not wait for it would promote itself over WAL that only the slow one has.
func TestSlowAnswerOfAMemberIsAwaited(t *testing.T) {
	var asked atomic.Int32
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) == 1 {
			_, _ = w.Write([]byte(`{"role": "replica"}`))
			return
		}
		time.Sleep(stragglers + 100*time.Millisecond)
		_, _ = w.Write([]byte(`{"role": "replica", "timeline": 2, "xlog": {"received_location": 83886080, "replayed_location": 83886080}}`))
	}))
	defer slow.Close()
	lost := httptest.NewServer(http.NotFoundHandler())
	lost.Close() // its port refuses now

	a := &Agent{opt: Options{Peers: http.DefaultClient}}
	in := input{
		node: &config.Node{Name: "db3"},
		snap: cluster.Snapshot{Members: []cluster.Member{
			{Name: "db1", APIURL: slow.URL, State: cluster.StateRunning, Role: cluster.RoleReplica, Haven: &cluster.HavenField{}}, {Name: "db3"},
		}},
		story: story{oldLeader: &cluster.Member{Name: "db2", APIURL: lost.URL, Haven: &cluster.HavenField{}}},
	}
	var e effects
	if err := a.ask(t.Context(), in, &e); err != nil {
		t.Fatal(err)
	}
	if answer, _ := e.survey.Answer("db1"); !answer.Reachable || answer.Position != 83886080 {
		t.Errorf("db1, which is alive: %+v", answer)
	}
	if answer, _ := e.survey.Answer("db2"); !answer.Refused {
		t.Errorf("db2, which is lost: %+v", answer)
	}
}

// TestLastLeaderThatMayWriteIsAwaited: in pause, and if it is Patroni's, nothing ends a server with the lease of its member; and where
// somebody has deleted the leader key, that lease lasts.
func TestLastLeaderThatMayWriteIsAwaited(t *testing.T) {
	writes := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(stragglers + 100*time.Millisecond)
		_, _ = w.Write([]byte(`{"role": "primary", "timeline": 1, "xlog": {"location": 83886080}}`))
	}))
	defer writes.Close()
	haven := &cluster.HavenField{}
	for name, c := range map[string]struct {
		pause bool
		last  cluster.Member
		alive bool // its key is there
	}{
		"in pause":                    {true, cluster.Member{Haven: haven}, false},
		"in a pause of which it knew": {false, cluster.Member{Haven: haven, Pause: true}, false},
		"Patroni's":                   {false, cluster.Member{}, false},
		"the leader key was deleted":  {false, cluster.Member{Haven: haven, State: cluster.StateRunning, Role: cluster.RolePrimary}, true},
	} {
		a := &Agent{opt: Options{Peers: http.DefaultClient}}
		in := input{
			node:    &config.Node{Name: "db1"},
			snap:    cluster.Snapshot{Members: []cluster.Member{{Name: "db1"}}},
			dynamic: config.Dynamic{Pause: c.pause},
		}
		c.last.Name, c.last.APIURL = "db2", writes.URL
		in.story.oldLeader = &c.last
		if c.alive {
			in.snap.Members = append(in.snap.Members, c.last)
		}
		var e effects
		if err := a.ask(t.Context(), in, &e); err != nil {
			t.Fatal(err)
		}
		if answer, _ := e.survey.Answer("db2"); !answer.Primary {
			t.Errorf("%s: %+v", name, answer)
		}
	}
}

// TestALeaderThatHandsOverWaitsForNoMoreThanItNeeds: one of two synchronous standbys has answered, which has every commit, and the other
// says nothing.
func TestALeaderThatHandsOverWaitsForNoMoreThanItNeeds(t *testing.T) {
	answers := func(wait <-chan struct{}) *httptest.Server {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-wait:
			case <-r.Context().Done():
			}
			_, _ = w.Write([]byte(`{"role": "replica", "timeline": 1, "xlog": {"received_location": 83886080, "replayed_location": 83886080}}`))
		}))
		t.Cleanup(s.Close)
		return s
	}
	at := make(chan struct{})
	close(at)
	member := func(name, url string) cluster.Member {
		return cluster.Member{Name: name, APIURL: url, State: cluster.StateRunning, Role: cluster.RoleReplica, Haven: &cluster.HavenField{}}
	}
	a := &Agent{opt: Options{Peers: http.DefaultClient}}
	in := input{
		node: &config.Node{Name: "db1"}, holder: &dcs.Holder{},
		snap: cluster.Snapshot{
			Leader: &cluster.Leader{Name: "db1"}, Sync: &cluster.Sync{Leader: "db1", Standbys: []string{"db2", "db3"}},
			Members: []cluster.Member{{Name: "db1"}, member("db2", answers(at).URL), member("db3", answers(nil).URL)},
		},
	}
	var e effects
	began := time.Now()
	if err := a.ask(t.Context(), in, &e); err != nil {
		t.Fatal(err)
	}
	if answer, _ := e.survey.Answer("db2"); !answer.Reachable {
		t.Errorf("db2: %+v", answer)
	}
	if answer, ok := e.survey.Answer("db3"); !ok || answer.Reachable {
		t.Errorf("db3: %+v", answer)
	}
	if took := time.Since(began); took >= askTimeout {
		t.Errorf("it took %s", took)
	}
}
