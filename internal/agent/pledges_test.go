package agent

import (
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/havenha/haven/internal/bootclock"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

func reopened(dir string) *pledges { return openPledges(dir, slog.New(slog.DiscardHandler)) }

func (p *pledges) left() time.Duration { return p.now().Until.Sub(bootclock.Now()) }

// TestWordsOutliveTheAgent: a word binds the next agent too, for as long as was left; after a restart of the host for its
// whole length, and for a while if it cannot be read any more.
func TestWordsOutliveTheAgent(t *testing.T) {
	dir := t.TempDir()
	p := reopened(dir)
	pgtest.Must(t, p.claim())
	p.settle()
	pgtest.Must(t, p.give("a", time.Hour))
	pgtest.Must(t, p.give("b", time.Minute)) // a shorter one does not take back the longer
	if p = reopened(dir); p.left() < 50*time.Minute || p.now().To != "b" || p.claim() == nil {
		t.Errorf("the next agent is bound to %+v for %s", p.now(), p.left())
	}
	var f pledgeFile
	text, err := os.ReadFile(filepath.Join(dir, pledgeName))
	pgtest.Must(t, err)
	pgtest.Must(t, json.Unmarshal(text, &f))
	f.Boot, f.Until = "another", 1
	text, _ = json.Marshal(f)
	pgtest.Must(t, os.WriteFile(filepath.Join(dir, pledgeName), text, 0o600))
	if p = reopened(dir); p.left() < 50*time.Minute {
		t.Errorf("after a restart of the host %s are left", p.left())
	}
	pgtest.Must(t, os.WriteFile(filepath.Join(dir, pledgeName), []byte("?"), 0o600))
	if p = reopened(dir); p.left() < unreadPledge-time.Minute || p.claim() == nil {
		t.Errorf("a word that cannot be read binds for %s", p.left())
	}
}

// TestWordsAndClaimsExclude: who is about to lead gives no word, and who has given one does not begin to lead.
func TestWordsAndClaimsExclude(t *testing.T) {
	p := reopened(t.TempDir())
	pgtest.Must(t, p.claim())
	if err := p.give("a", time.Hour); !errors.Is(err, ha.ErrPledgeRefused) {
		t.Errorf("a word was given during an attempt at leadership: %v", err)
	}
	p.settle()
	pgtest.Must(t, p.give("a", time.Hour))
	if p.claim() == nil {
		t.Error("an attempt at leadership began against the word")
	}
	p.hold()
	if err := p.give("a", time.Hour); !errors.Is(err, ha.ErrPledgeRefused) {
		t.Errorf("a word was given while the store names this member: %v", err)
	}
}

// TestListOfThoseToAsk: a write of which nobody knows whether it was done has to be counted with; a member whose key has
// just gone is still asked; with the mode off, nobody.
func TestListOfThoseToAsk(t *testing.T) {
	member := func(name string) cluster.Member {
		return cluster.Member{Name: name, APIURL: "http://" + name + "/patroni"}
	}
	urls := func(names ...string) map[string]string {
		out := map[string]string{}
		for _, n := range names {
			out[n] = member(n).APIURL
		}
		return out
	}
	var l lists
	s := cluster.Snapshot{Members: []cluster.Member{member("a"), member("b")}, Failsafe: urls("a")}
	want := l.wanted(s, member("a"), true, time.Hour)
	if !maps.Equal(want, urls("a", "b")) {
		t.Fatalf("it wants %v", want)
	}
	l.trying(want)
	if ask := l.toAsk(s.Failsafe); !maps.Equal(ask, urls("a", "b")) {
		t.Errorf("after a write without an answer it asks %v", ask)
	}
	s.Failsafe, s.Members = urls("a", "b"), []cluster.Member{member("a")}
	if want := l.wanted(s, member("a"), true, time.Hour); want != nil {
		t.Errorf("b's key has just gone, and it wants %v", want)
	}
	if ask := l.toAsk(urls("a")); !maps.Equal(ask, urls("a")) {
		t.Errorf("once the store has shown what was written it asks %v", ask)
	}
	l.seen["b"] = time.Now().Add(-2 * time.Hour)
	if want := l.wanted(s, member("a"), true, time.Hour); !maps.Equal(want, urls("a")) {
		t.Errorf("b's key has been gone for long, and it wants %v", want)
	}
	if want := l.wanted(s, member("a"), false, time.Hour); want == nil || len(want) != 0 {
		t.Errorf("with the mode off it wants %v", want)
	}
}
