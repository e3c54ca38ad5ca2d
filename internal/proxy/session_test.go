package proxy

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// leading starts a world in which db1 is the admitted primary and the others are replicas.
func leading(t testing.TB, w *world, others ...*fake) *fake {
	t.Helper()
	a := newFake(t, "db1")
	a.primary.Store(http.StatusOK)
	w.show(scene(a, 1, cluster.TermPromoted, append([]*fake{a}, others...)...))
	w.until("an admitted primary", func(s Stats) bool { return s.Leader.State == Admitted })
	return a
}

func TestEachHalfOfASessionEndsByItself(t *testing.T) {
	w := start(t, settings())
	leading(t, w)
	c := connect(t, w.rw)
	c.wantServer("db1")
	const text = "the last words, and an answer to them"
	io.WriteString(c, text)
	c.CloseWrite()
	got, err := io.ReadAll(c.r)
	if string(got) != text || err != nil {
		t.Errorf("after the client's end the server's answer is %q, %v", got, err)
	}
}

func TestBytesOfAnOpenSessionAreCounted(t *testing.T) {
	w := start(t, settings())
	leading(t, w)
	c := connect(t, w.rw)
	c.wantServer("db1")
	c.wantEcho()
	w.until("bytes", func(s Stats) bool {
		l := s.Listeners[0]
		return l.Sessions == 1 && l.In == 13 && l.Out == 9
	})
}

// TestTheKernelForwards counts what this process reads. The client lives in it too and reads the bytes once (the echo
// splices); a proxy that copies reads them twice more.
func TestTheKernelForwards(t *testing.T) {
	w := start(t, settings())
	leading(t, w)
	c := connect(t, w.rw)
	c.wantServer("db1")
	const size = 32 << 20
	before := readChars(t)
	go func() {
		io.Copy(struct{ io.Writer }{c.TCPConn}, io.LimitReader(zeroes{}, size))
		c.CloseWrite()
	}()
	n, err := io.Copy(io.Discard, struct{ io.Reader }{c.r})
	if n != size || err != nil {
		t.Fatalf("%d bytes came back, %v", n, err)
	}
	if read := readChars(t) - before; read > 2*size {
		t.Errorf("%d bytes were read for %d sent through the proxy: it does not splice", read, size)
	}
}

type zeroes struct{}

func (zeroes) Read(p []byte) (int, error) { return len(p), nil }

// readChars is the number of bytes that this process has read by read(2) and the like (proc(5), io).
func readChars(t *testing.T) (n int64) {
	t.Helper()
	raw, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Skip(err)
	}
	if _, err := fmt.Sscanf(string(raw), "rchar: %d", &n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAClientThatDoesNotReadCostsOnlyItself(t *testing.T) {
	w, b := start(t, settings()), newFake(t, "db2")
	a := leading(t, w, b)
	deaf := connect(t, w.rw)
	deaf.wantServer("db1")
	other := connect(t, w.rw)
	other.wantServer("db1")
	deaf.SetDeadline(time.Now().Add(300 * time.Millisecond))
	io.Copy(deaf.TCPConn, struct{ io.Reader }{zeroes{}}) // until all buffers on the way are full
	for range 100 {
		other.wantEcho()
	}
	// Not even it outlives its leadership.
	b.primary.Store(http.StatusOK)
	w.show(scene(b, 2, cluster.TermPromoted, a, b))
	other.wantReset()
	deaf.SetDeadline(time.Now().Add(patience))
	deaf.wantReset()
	connect(t, w.rw).wantServer("db2")
}

func TestHoldTimeoutClosesWithTheReasonInTheLog(t *testing.T) {
	c := settings()
	c.Listeners[0].HoldTimeout = 50 * time.Millisecond
	w, a := start(t, c), newFake(t, "db1")
	w.show(scene(a, 2, cluster.TermClaimed, a))
	w.until("a seen claim", func(s Stats) bool { return s.Leader.Name == "db1" })
	began := time.Now()
	if _, err := io.ReadAll(connect(t, w.rw)); err != nil && !isReset(err) {
		t.Error(err)
	}
	if took := time.Since(began); took < 50*time.Millisecond {
		t.Errorf("closed after %s already", took)
	}
	s := w.until("a timeout", func(s Stats) bool { return s.Listeners[0].Timeouts == 1 })
	if l := s.Listeners[0]; l.Waiting != 0 || l.Held != 1 || l.Why != "db1: term 2 is claimed, not yet promoted" {
		t.Errorf("%+v", l)
	}
}

func TestAnIdleSessionIsClosed(t *testing.T) {
	c := settings()
	c.Listeners[0].IdleTimeout = time.Second
	w := start(t, c)
	leading(t, w)
	idle := connect(t, w.rw)
	idle.wantServer("db1")
	if _, err := io.Copy(io.Discard, idle.r); err != nil && !isReset(err) {
		t.Error(err)
	}
	connect(t, w.ro).wantServer("db1") // the other listener has no such limit
}

func TestClientsThatLeaveWhileTheyWaitTakeNoTurn(t *testing.T) {
	w := start(t, settings())
	a := newFake(t, "db1")
	w.show(scene(nil, 0, "", a))
	var leaving []*client
	for range 20 {
		leaving = append(leaving, connect(t, w.rw))
	}
	c := connect(t, w.rw)
	w.until("waiting clients", func(s Stats) bool { return s.Listeners[0].Waiting == 21 })
	for _, c := range leaving {
		c.Close()
	}
	a.primary.Store(http.StatusOK)
	w.show(scene(a, 1, cluster.TermPromoted, a))
	c.wantServer("db1")
	w.until("nobody waiting", func(s Stats) bool { return s.Listeners[0].Waiting == 0 })
	if n := a.accepted.Load(); n != 1 {
		t.Errorf("%d connections reached the server, of which one had a client", n)
	}
}

func TestAStormIsLetInAtABoundedRate(t *testing.T) {
	const clients, rate = 500, 1000
	c := settings()
	c.Listeners[0].Admit = rate
	w := start(t, c)
	all, began := crowd(t, w, clients)
	for _, c := range all {
		c.wantServer("db1")
	}
	// A burst of a tenth of a second's worth, then evenly: 400 of them take 0.4 s, whatever the machine.
	if took := time.Since(began); took < 350*time.Millisecond {
		t.Errorf("%d clients were let in within %s, at a rate of %d a second", clients, took, rate)
	}
	if s := w.proxy.Snapshot().Listeners[0]; s.Sessions != clients || s.Held != clients || s.Timeouts != 0 {
		t.Errorf("%+v", s)
	}
}

func TestTheNumberOfWaitersIsBounded(t *testing.T) {
	b, l := newBoard(time.Now()), newLedger(settings().Listeners[0])
	for i := range maxWaiting {
		if !b.hold(l, &waiter{}) {
			t.Fatalf("waiter %d was turned away", i)
		}
	}
	if b.hold(l, &waiter{}) || l.rejected != 1 {
		t.Errorf("one too many was kept; %d were turned away", l.rejected)
	}
}

func TestTheEndOfTheProxyEndsEverything(t *testing.T) {
	w := start(t, settings())
	leading(t, w)
	c := connect(t, w.rw)
	c.wantServer("db1")
	w.end()
	c.wantReset()
	if conn, err := (&http.Client{}).Get("http://" + w.stats); err == nil {
		conn.Body.Close()
		t.Error("the statistics port still answers")
	}
}

func TestABusyPortIsNamed(t *testing.T) {
	w := start(t, settings())
	c := settings()
	c.Listeners[0].Listen = w.rw
	_, err := New(Options{Config: c, Log: w.proxy.opt.Log})
	if err == nil || !strings.Contains(err.Error(), w.rw+": another program uses this port: stop it, or choose another port, for instance 6432") {
		t.Error(err)
	}
}
