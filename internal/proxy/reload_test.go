package proxy

import (
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/dcs/dcstest"
)

func TestReloadTouchesOnlyWhatChanges(t *testing.T) {
	c := settings()
	b := newFake(t, "db2")
	c.Listeners[0].Listen, c.Listeners[1].Listen = dcstest.FreeAddress(t), dcstest.FreeAddress(t)
	w := start(t, c)
	leading(t, w, b)
	writer, reader := connect(t, w.rw), connect(t, w.ro)
	writer.wantServer("db1")
	reader.wantServer("db2")

	next := *c
	third := c.Listeners[1]
	third.Listen = dcstest.FreeAddress(t)
	kept := c.Listeners[0]
	kept.Admit = 7
	next.Listeners = []config.Listener{third, kept}
	if err := w.proxy.Reload(&next); err != nil {
		t.Fatal(err)
	}
	writer.wantEcho()
	reader.wantReset()
	connect(t, third.Listen).wantServer("db2")
	if _, err := net.Dial("tcp", w.ro); err == nil {
		t.Error("a listener that is gone still accepts")
	}
	var order []string
	for _, l := range w.proxy.Snapshot().Listeners {
		order = append(order, l.Listen)
	}
	if got, want := strings.Join(order, " "), third.Listen+" "+kept.Listen; got != want {
		t.Errorf("order %s, want %s", got, want)
	}
	if got := w.proxy.board.limits(w.proxy.listeners[1].ledger).Admit; got != 7 {
		t.Errorf("admit is %d", got)
	}
}

func TestReloadWithABusyPortChangesNothing(t *testing.T) {
	c := settings()
	w := start(t, c)
	leading(t, w)
	writer := connect(t, w.rw)
	writer.wantServer("db1")
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	next := *c
	third := c.Listeners[0]
	third.Listen = busy.Addr().String()
	next.Listeners = []config.Listener{third}
	if err := w.proxy.Reload(&next); err == nil || !strings.Contains(err.Error(), "another program uses this port") {
		t.Fatal(err)
	}
	writer.wantEcho()
	connect(t, w.rw).wantServer("db1")
	connect(t, w.ro).wantServer("db1")
}

// TestReloadThatCannotBeDoneKeepsTheListener: a port that is to get another mode is not closed for files, groups or directories that are
// not there.
func TestReloadThatCannotBeDoneKeepsTheListener(t *testing.T) {
	c := settings()
	c.Listeners[0].Listen = dcstest.FreeAddress(t)
	w := start(t, c)
	leading(t, w)
	writer := connect(t, w.rw)
	writer.wantServer("db1")
	port := portOf(c.Listeners[0].Listen)
	for want, change := range map[string]func(*config.Proxy){
		"auth_file": func(c *config.Proxy) { c.Listeners[0].Mode = "transaction"; c.Auth.File = "/nowhere/users" },
		"no such group": func(c *config.Proxy) {
			c.Listeners[0].Listen = t.TempDir() + ":" + port
			c.Listeners[0].SocketGroup = "haven-no-such-group"
		},
		"there is no directory": func(c *config.Proxy) { c.Listeners[0].Listen = "127.0.0.1,/nowhere:" + port },
	} {
		next := *c
		next.Auth = config.ProxyAuth{Type: "scram-sha-256", ClientMode: "disable", ServerMode: "disable"}
		next.Listeners = slices.Clone(c.Listeners)
		change(&next)
		if err := w.proxy.Reload(&next); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		writer.wantEcho()
		connect(t, w.rw).wantServer("db1")
	}
}

// TestReloadRestoresAListener whose place another was to take that could not be opened after all.
func TestReloadRestoresAListener(t *testing.T) {
	c := settings()
	c.Listeners[0].Listen = dcstest.FreeAddress(t)
	w := start(t, c)
	leading(t, w)
	next := *c
	next.Listeners = slices.Clone(c.Listeners)
	next.Listeners[0].Listen = "192.0.2.1:" + portOf(c.Listeners[0].Listen) // an address of nobody's (RFC 5737)
	if err := w.proxy.Reload(&next); err == nil || !strings.Contains(err.Error(), "this host has no such address") {
		t.Errorf("%v", err)
	}
	connect(t, w.rw).wantServer("db1")
}

func TestReloadMovesAPortFromOneTargetToTheOther(t *testing.T) {
	c := settings()
	c.Listeners[0].Listen, c.Listeners[1].Listen = dcstest.FreeAddress(t), dcstest.FreeAddress(t)
	w, b := start(t, c), newFake(t, "db2")
	leading(t, w, b)
	next := *c
	next.Listeners = []config.Listener{c.Listeners[0], c.Listeners[1]}
	next.Listeners[0].Target, next.Listeners[1].Target = "replica", "primary"
	if err := w.proxy.Reload(&next); err != nil {
		t.Fatal(err)
	}
	connect(t, w.rw).wantServer("db2")
	connect(t, w.ro).wantServer("db1")
}

func TestReloadOfTheStatisticsPort(t *testing.T) {
	c := settings()
	w := start(t, c)
	if code, _ := fetch(t, "http://"+w.stats, ""); code != 403 {
		t.Fatalf("nobody is allowed, and yet: %d", code)
	}
	same := *c
	same.Stats = &config.Stats{Listen: c.Stats.Listen, Allow: loopback}
	if err := w.proxy.Reload(&same); err != nil {
		t.Fatal(err)
	}
	if code, _ := fetch(t, "http://"+w.stats, ""); code != 200 {
		t.Errorf("after the reload: %d", code)
	}
	moved := same
	moved.Stats = &config.Stats{Listen: dcstest.FreeAddress(t), Allow: loopback}
	if err := w.proxy.Reload(&moved); err != nil {
		t.Fatal(err)
	}
	if code, _ := fetch(t, "http://"+moved.Stats.Listen, ""); code != 200 {
		t.Errorf("at its new address: %d", code)
	}
	none := moved
	none.Stats = nil
	if err := w.proxy.Reload(&none); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("tcp", moved.Stats.Listen); err == nil {
		t.Error("a statistics port that is gone still accepts")
	}
}
