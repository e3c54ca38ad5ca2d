package pooled

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/havenha/haven/internal/freeze"
	"github.com/havenha/haven/internal/pgwire"
	"github.com/havenha/haven/internal/pgwire/frame"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// lastWords are those of a server process that stood in that routine.
func lastWords(code, routine string) []byte {
	return frame.Append(nil, 'E', "SFATAL\x00VFATAL\x00C"+code+"\x00Mthe end\x00Fbe-secure.c\x00L1\x00R"+routine+"\x00\x00")
}

// TestWhatIsProvedUnreadIsSentAgain has a server end with the first statement on its way. Only if its words prove that it has read
// nothing, another one gets the statement.
func TestWhatIsProvedUnreadIsSentAgain(t *testing.T) {
	notice := frame.Append(nil, 'N', "SNOTICE\x00VNOTICE\x00C00000\x00Mrunning\x00\x00")
	answer := frame.Append(frame.Append(nil, 'C', "INSERT 0 1\x00"), 'Z', "I")
	for _, c := range []struct {
		name  string
		words []byte
		next  bool // the client sends another statement before those words come
		again bool
	}{
		{"waiting for its client", lastWords("57P01", "secure_read"), false, true},
		{"anywhere", lastWords("57P01", "ProcessInterrupts"), false, false},
		{"without a place", frame.Append(nil, 'E', "SFATAL\x00VFATAL\x00C57P01\x00Mthe end\x00\x00"), false, false},
		{"another reason", lastWords("XX000", "secure_read"), false, false},
		{"after something was run", append(notice, lastWords("57P01", "secure_read")...), false, false},
		{"with two statements on their way", lastWords("57P01", "secure_read"), true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var statements atomic.Int32
			arrived := make(chan struct{})
			p := fake(t, func(conn net.Conn, sql string) bool {
				if statements.Add(1) > 1 {
					conn.Write(answer)
					return true
				}
				close(arrived)
				if c.next {
					(&raw{t, conn}).next()
				}
				conn.Write(c.words)
				return false
			}, func() {})
			h := open(t, Transaction, p, size1)
			a := h.raw()
			a.send(query("SELECT 1"))
			<-arrived
			if c.next {
				a.send(query("SELECT 2"))
			}
			got := a.reply(1, patience)
			if again := strings.Contains(got, "INSERT 0 1"); again != c.again || strings.Contains(got, "the end") == c.again {
				t.Errorf("the client is told %s", got)
			}
			if n := statements.Load(); c.again && n != 2 || !c.again && n != 1 {
				t.Errorf("%d statements reached a server", n)
			}
		})
	}
}

// TestStatementOnItsWayWhenThePostmasterIsKilled stops a server process that waits, kills the postmaster, sends a batch, and lets the
// process go on: it finds both, and ends. The batch has to run on the next server, as if it had been sent there first.
func TestStatementOnItsWayWhenThePostmasterIsKilled(t *testing.T) {
	const old, another = "SELECT 'old'", "SELECT 'another'"
	run := bind("s") + execute
	config := selfSigned(t)
	for _, c := range []struct{ name, before, batch, want, after, then string }{
		{"simple", "", query("SELECT 'x'"), "x", "", ""},
		{"prepared", parse("s", old) + sync_, run + sync_, "old", run + sync_, "old"},
		{"prepared with it", "", parse("s", old) + run + sync_, "old", run + sync_, "old"},
		{"closed with it", parse("s", old) + sync_, run + closing("s") + sync_, "old", run + sync_, "C26000"},
		{"made anew with it", parse("s", old) + sync_, run + closing("s") + parse("s", another) + sync_, "old", run + sync_, "another"},
		{"the unnamed one", parse("", old) + sync_, bind("") + execute + parse("", another) + sync_, "old", bind("") + execute + sync_, "another"},
	} {
		for _, safely := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, TLS %v", c.name, safely), func(t *testing.T) {
				t.Parallel()
				_, server, p := pg(t)
				next := pgtest.Options(t, "db2")
				pgtest.Primary(t, next)
				h := open(t, Transaction, p, func(o *Options) {
					size1(o)
					o.Accept.TLS, o.Accept.SSLMode = config, pgwire.SSLPrefer
				})
				a := h.raw()
				if safely {
					a = h.safely(t)
				}
				if c.before != "" {
					play(a, c.before)
				}
				pid := text(t, h.connect(), "SELECT pg_backend_pid()")
				n, err := strconv.Atoi(pid)
				pgtest.Must(t, err)
				freeze.Process(t, n)
				kill(t, fmt.Sprint(server.Server().PID()))
				p.move(fmt.Sprintf("127.0.0.1:%d", next.Port))
				a.send(c.batch)
				pgtest.Eventually(t, "it is on its way", h.sent)
				pgtest.Must(t, syscall.Kill(n, syscall.SIGCONT))
				if got := a.reply(1, patience); !strings.Contains(got, c.want) {
					t.Errorf("the client is told %s", got)
				}
				if c.after == "" {
					return
				}
				if got := play(a, c.after); !strings.Contains(got, c.then) {
					t.Errorf("afterwards it is told %s", got)
				}
			})
		}
	}
}

// sent is nil if a client's first messages have been sent, and nothing has come since.
func (h *house) sent() error {
	h.door.mu.Lock()
	defer h.door.mu.Unlock()
	for s := range h.door.servers {
		s.mu.Lock()
		sent := len(s.kept) > 0 && !s.writing
		s.mu.Unlock()
		if sent {
			return nil
		}
	}
	return errUnasked
}

// safely is a client with TLS.
func (h *house) safely(t *testing.T) *raw {
	t.Helper()
	conn, err := net.Dial("tcp", h.address)
	pgtest.Must(t, err)
	t.Cleanup(func() { conn.Close() })
	login, err := pgwire.Login(pgtest.Context(t), conn, pgwire.LoginOptions{User: "postgres", Database: "postgres", SSLMode: pgwire.SSLRequire})
	pgtest.Must(t, err)
	return &raw{t, login.Conn}
}

// move leads to another server from now on; connections stay.
func (p *place) move(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.address = address
}

// plain answers a message of each type with success.
func plain(conn net.Conn, kind byte) bool {
	switch kind {
	case 'P':
		conn.Write(frame.Append(nil, '1'))
	case 'B':
		conn.Write(frame.Append(nil, '2'))
	case 'E':
		conn.Write(frame.Append(nil, 'C', "INSERT 0 1\x00"))
	case 'S':
		conn.Write(frame.Append(nil, 'Z', "I"))
	}
	return true
}

// slow is a place whose connections are slow to return from a write of that text, and have no socket that is known.
type slow struct {
	*place
	text string
}

type slowChair struct {
	*chair
	text string
}

type slowConn struct {
	net.Conn
	text string
}

// pause is for what is to come meanwhile. Tests that it is too short for pass, too.
const pause = 200 * time.Millisecond

func (p slow) Connect(ctx context.Context, cut func()) (Seat, error) {
	s, err := p.place.Connect(ctx, cut)
	if err != nil {
		return nil, err
	}
	return slowChair{s.(*chair), p.text}, nil
}

func (c slowChair) Conn() net.Conn { return slowConn{c.chair.Conn(), c.text} }

func (c slowConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if bytes.Contains(b, []byte(c.text)) {
		time.Sleep(pause)
	}
	return n, err
}

// TestWhatWasAnsweredIsNotUndone has a server answer a batch and end, before the goroutine that has sent it goes on.
func TestWhatWasAnsweredIsNotUndone(t *testing.T) {
	var mu sync.Mutex
	var parsed []string
	syncs := 0
	p := played(t, func(conn net.Conn, kind byte, body string) bool {
		mu.Lock()
		defer mu.Unlock()
		switch kind {
		case 'P':
			parsed = append(parsed, body)
		case 'S':
			syncs++
		}
		return plain(conn, kind) && (kind != 'S' || syncs != 2)
	}, func() {})
	h := open(t, Transaction, p, func(o *Options) { size1(o); o.Cluster = slow{p, "SELECT 'second'"} })
	a := h.raw()
	play(a, parse("", "SELECT 'first'")+sync_)
	play(a, parse("", "SELECT 'second'")+sync_)
	play(a, bind("")+execute+sync_)
	mu.Lock()
	defer mu.Unlock()
	if last := parsed[len(parsed)-1]; len(parsed) != 3 || !strings.Contains(last, "second") {
		t.Errorf("the server got %q", parsed)
	}
}

// TestWhatIsUnreadWhileItIsSent has the last words come before the goroutine that sends goes on.
func TestWhatIsUnreadWhileItIsSent(t *testing.T) {
	var statements atomic.Int32
	p := fake(t, func(conn net.Conn, _ string) bool {
		if statements.Add(1) == 1 {
			conn.Write(lastWords("57P01", "secure_read"))
			return false
		}
		return plain(conn, 'E') && plain(conn, 'S')
	}, func() {})
	h := open(t, Transaction, p, func(o *Options) { size1(o); o.Cluster = slow{p, "SELECT 1"} })
	a := h.raw()
	a.send(query("SELECT 1"))
	if got := a.reply(1, patience); !strings.Contains(got, "INSERT") || statements.Load() != 2 {
		t.Errorf("the client is told %s, %d statements reached a server", got, statements.Load())
	}
}

// TestBeginningOfAMessageBehindWhatIsUnread: messages that are undone are the last that were sent, whatever has come since.
func TestBeginningOfAMessageBehindWhatIsUnread(t *testing.T) {
	var mu sync.Mutex
	var parsed []string
	syncs, arrived, goOn := 0, make(chan struct{}), make(chan struct{})
	p := played(t, func(conn net.Conn, kind byte, body string) bool {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case kind == 'S':
			if syncs++; syncs == 2 {
				close(arrived)
				<-goOn
				conn.Write(lastWords("57P01", "secure_read"))
				return false
			}
		case syncs == 1:
			return true // the second batch has no answer
		case kind == 'P':
			parsed = append(parsed, body)
		}
		return plain(conn, kind)
	}, func() {})
	h := open(t, Transaction, p, size1)
	a := h.raw()
	play(a, parse("", "SELECT 'first'")+sync_)
	a.send(bind("") + execute + parse("", "SELECT 'second'") + sync_)
	<-arrived
	next := bind("") + execute + sync_
	a.send(next[:3])
	time.Sleep(pause)
	close(goOn)
	if got := a.reply(1, patience); !strings.Contains(got, "INSERT") {
		t.Fatalf("the client is told %s", got)
	}
	a.send(next[3:])
	a.reply(1, patience)
	mu.Lock()
	defer mu.Unlock()
	if got := strings.Join(parsed, " "); len(parsed) != 3 || !strings.Contains(parsed[1], "first") || !strings.Contains(parsed[2], "second") {
		t.Errorf("the servers got %q", got)
	}
}

// TestLastWordsBehindTheRestOfAMessage: nobody else may answer a client that has a part of a message.
func TestLastWordsBehindTheRestOfAMessage(t *testing.T) {
	notice := frame.Append(nil, 'N', "SNOTICE\x00VNOTICE\x00C00000\x00M"+strings.Repeat("x", largeBuffer)+"\x00\x00")
	cut := len(notice) - 100
	var statements atomic.Int32
	p := fake(t, func(conn net.Conn, _ string) bool {
		if statements.Add(1) == 1 {
			conn.Write(append(frame.Append(frame.Append(nil, 'C', "INSERT 0 1\x00"), 'Z', "I"), notice[:cut]...))
			return true
		}
		conn.Write(append(slices.Clip(notice[cut:]), lastWords("57P01", "secure_read")...))
		return false
	}, func() {})
	h := open(t, Transaction, p, size1)
	a := h.raw()
	a.send(query("INSERT"))
	a.reply(1, patience)
	a.send(query("INSERT"))
	if got := a.reply(1, patience); !strings.Contains(got, "N(") || !strings.Contains(got, "the end") {
		t.Errorf("the client is told %s", got)
	}
}

// TestServersThatEndReadAndUnread has servers end before and after they answer, and clients send the beginning of the next statement
// along. Each statement runs once.
func TestServersThatEndReadAndUnread(t *testing.T) {
	config := selfSigned(t)
	for _, safely := range []bool{false, true} {
		t.Run(fmt.Sprint("TLS ", safely), func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			ran := map[string]int{}
			p := fake(t, func(conn net.Conn, sql string) bool {
				chance := rand.IntN(8)
				if chance < 3 {
					time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
					conn.Write(lastWords("57P01", "secure_read"))
					return false
				}
				mu.Lock()
				ran[sql]++
				mu.Unlock()
				conn.Write(frame.Append(frame.Append(nil, 'C', "INSERT ", sql), 'Z', "I"))
				if chance == 3 {
					conn.Write(lastWords("57P01", "secure_read"))
				}
				return chance != 3
			}, func() {})
			h := open(t, Transaction, p, func(o *Options) {
				o.Pool.DefaultPoolSize = 2
				o.Accept.TLS, o.Accept.SSLMode = config, pgwire.SSLPrefer
			})
			const clients, statements = 4, 200
			var all sync.WaitGroup
			for k := range clients {
				a := h.raw()
				if safely {
					a = h.safely(t)
				}
				all.Go(func() {
					sent := 0
					for i := range statements {
						q := query(fmt.Sprintf("%d-%d", k, i))
						next := query(fmt.Sprintf("%d-%d", k, i+1))[:rand.IntN(5)]
						a.send(q[sent:] + next)
						sent = len(next)
						if got := a.reply(1, patience); !strings.Contains(got, fmt.Sprintf("INSERT %d-%d\\x00", k, i)) {
							t.Errorf("statement %d of client %d is told %s", i, k, got)
							return
						}
					}
				})
			}
			all.Wait()
			mu.Lock()
			defer mu.Unlock()
			if len(ran) != clients*statements {
				t.Errorf("%d statements ran", len(ran))
			}
			for sql, n := range ran {
				if n != 1 {
					t.Errorf("%s ran %d times", sql, n)
				}
			}
		})
	}
}

// TestALostServerDoesNotWaitForItsClient has a client send on and on without reading, and its server end in the middle of rows.
func TestALostServerDoesNotWaitForItsClient(t *testing.T) {
	rows := bytes.Repeat(frame.Append(nil, 'D', "\x00\x01\x00\x00\x10\x00", strings.Repeat("x", 4096)), 256)
	lost := make(chan struct{})
	p := fake(t, func(conn net.Conn, _ string) bool {
		for { // until nobody takes them
			_ = conn.SetWriteDeadline(time.Now().Add(2 * time.Second))
			if _, err := conn.Write(rows); err != nil {
				break
			}
		}
		_ = conn.(*net.TCPConn).SetLinger(0) // the client's next write fails
		conn.Close()
		close(lost)
		return false
	}, func() {})
	h := open(t, Transaction, p, size1)
	a := h.raw()
	_ = a.SetDeadline(time.Now().Add(3 * patience))
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for {
			if _, err := a.Write([]byte(query("SELECT 1"))); err != nil {
				return
			}
		}
	}()
	<-lost
	pgtest.Eventually(t, "the place in the pool is free", func() error {
		if h.door.Snapshot()[0].ServersActive != 0 {
			return errUnasked
		}
		return nil
	})
	a.Close()
	<-sent
}
