package pooled

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

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
			var connections, statements atomic.Int32
			arrived := make(chan struct{})
			p := fake(t, func(conn net.Conn, sql string) bool {
				statements.Add(1)
				if connections.Add(1) > 1 {
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
			if c.again && statements.Load() != 2 {
				t.Errorf("%d statements reached a server", statements.Load())
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
				o, _, p := pg(t)
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
				file, err := os.ReadFile(filepath.Join(o.DataDir, "postmaster.pid"))
				pgtest.Must(t, err)
				postmaster, _, _ := strings.Cut(string(file), "\n")
				kill(t, postmaster)
				p.move(fmt.Sprintf("127.0.0.1:%d", next.Port))
				a.send(c.batch)
				pgtest.Eventually(t, "it is on its way", func() error {
					if s := h.door.Snapshot()[0]; s.ServersActive != 1 {
						return fmt.Errorf("%+v", s)
					}
					return nil
				})
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
