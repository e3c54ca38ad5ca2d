package cli

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/havenha/haven/internal/api"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/dcs/dcstest"
	"github.com/havenha/haven/internal/dcs/etcd"
)

// TestEditLosesNoChangeOfAnother: a configuration that is not the one that was read any more is left as it is, and the
// text that a person had written is kept.
func TestEditLosesNoChangeOfAnother(t *testing.T) {
	endpoint := dcstest.StartEtcd(t)
	if err := fill(endpoint, "edit", "http://127.0.0.1:1", nil); err != nil {
		t.Fatal(err)
	}
	store, err := etcd.Open(etcd.Options{Endpoints: []string{endpoint}, Scope: "edit"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	snap, err := store.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := store.PutConfig(t.Context(), []byte(`{"ttl":20}`), snap.Config.ModRev); err != nil {
		t.Fatal(err)
	}
	var out, talk bytes.Buffer
	c := &console{out: &out, err: &talk, output: "text"}
	draft := filepath.Join(t.TempDir(), "draft.yaml")
	if err := os.WriteFile(draft, []byte("ttl: 40\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e := &edit{c: c, yes: true, draft: draft}
	old, _ := document(snap.Config.Raw)
	next, _ := document([]byte(`{"ttl":40}`))
	p := picture{scope: "edit", snap: snap}
	var f *Failure
	if err := e.finish(t.Context(), &reader{c: c, store: store}, p, old, next); !errors.As(err, &f) || f.Code != ExitConflict || !strings.Contains(f.Next, draft) {
		t.Errorf("got %v", err)
	}
	now, err := store.Snapshot(t.Context())
	if err != nil || string(now.Config.Raw) != `{"ttl":20}` {
		t.Errorf("the store holds %s (%v): the other's change is lost", now.Config.Raw, err)
	}
	if _, err := os.Stat(draft); err != nil {
		t.Errorf("the draft is gone: %v", err)
	}
}

// TestEditThroughAMember: without etcd, the member is asked to replace the revision that was read, and no other.
func TestEditThroughAMember(t *testing.T) {
	var asked string
	peer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.Method + " " + r.URL.Path + " " + r.Header.Get("If-Match")
		w.WriteHeader(http.StatusConflict)
	}))
	defer peer.Close()
	client, err := api.NewClient(config.CTL{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &console{out: &bytes.Buffer{}, err: &bytes.Buffer{}, output: "text"}
	p := picture{snap: cluster.Snapshot{Config: &cluster.Config{Raw: []byte(`{"ttl":30}`), ModRev: 17}}}
	err = (&edit{c: c}).write(t.Context(), &reader{c: c, client: client, bases: []string{peer.URL}}, p, []byte(`{"ttl":40}`))
	var f *Failure
	if !errors.As(err, &f) || f.Code != ExitConflict || asked != `PUT /config "17"` {
		t.Errorf("asked %q, got %v", asked, err)
	}
}

// TestEditor opens a real editor, and takes what it leaves.
func TestEditor(t *testing.T) {
	c := &console{out: &bytes.Buffer{}, err: &bytes.Buffer{}, output: "text", inTTY: true, outTTY: true, env: []string{"EDITOR=sed -i s/30/40/"}, noColor: true}
	e := &edit{c: c}
	next, err := e.next(t.Context(), map[string]any{"ttl": 30, "loop_wait": 10})
	if err != nil || string(mustJSON(next)) != `{"loop_wait":10,"ttl":40}` {
		t.Errorf("got %v, %v", next, err)
	}
	draft := e.draft
	e.discard()
	if _, err := os.Stat(draft); err == nil {
		t.Error("the draft stays")
	}
	c.env = []string{"EDITOR=sed -i s/ttl:.*/[/"}
	_, err = e.next(t.Context(), map[string]any{"ttl": 30})
	var f *Failure
	if !errors.As(err, &f) || f.Code != ExitConfig || !strings.Contains(f.Next, e.draft) {
		t.Errorf("broken YAML: %v", err)
	}
	e.discard()
}
