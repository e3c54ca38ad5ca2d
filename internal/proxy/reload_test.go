package proxy

import (
	"net"
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
