package pooled

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/havenha/haven/internal/pgwire"
	"github.com/havenha/haven/internal/pgwire/frame"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// welcome is what a server that lets everybody in says to the startup packet.
func welcome() []byte {
	hello := frame.Append(nil, 'R', "\x00\x00\x00\x00")
	hello = frame.Append(hello, 'S', "in_hot_standby\x00off\x00")
	hello = frame.Append(hello, 'S', "application_name\x00\x00")
	hello = frame.Append(hello, 'S', "DateStyle\x00ISO, MDY\x00")
	hello = frame.Append(hello, 'K', "\x00\x00\x00\x01\x00\x00\x00\x02")
	return frame.Append(hello, 'Z', "I")
}

// fake is a server that the test plays. It answers simple queries only.
func fake(t *testing.T, answer func(conn net.Conn, sql string) bool, cancelled func()) *place {
	return played(t, func(conn net.Conn, kind byte, body string) bool {
		if kind == 'Q' && strings.Contains(body, "pg_stat_activity") {
			conn.Write(frame.Append(frame.Append(frame.Append(nil, 'D', "\x00\x01\x00\x00\x00\x00"), 'C', "SELECT 1\x00"), 'Z', "I"))
			return true
		}
		return answer(conn, body)
	}, cancelled)
}

// played is a server that the test plays message by message, until answer is false.
func played(t *testing.T, answer func(conn net.Conn, kind byte, body string) bool, cancelled func()) *place {
	address, _ := accepting(t, func(conn net.Conn, head []byte) {
		io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(head)-8))
		if binary.BigEndian.Uint32(head[4:]) == 1234<<16|5678 {
			cancelled()
			return
		}
		conn.Write(welcome())
		r := &raw{t, conn}
		for {
			kind, body, err := r.next()
			if err != nil || kind == 'X' || !answer(conn, kind, string(body)) {
				return
			}
		}
	})
	p := newPlace()
	p.admit(address)
	return p
}

// accepting serves each connection with the head of its startup packet. What it returns waits until all of them are served.
func accepting(t *testing.T, serve func(conn net.Conn, head []byte)) (address string, wait func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	pgtest.Must(t, err)
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			tasks.Go(func() {
				defer conn.Close()
				var head [8]byte
				if _, err := io.ReadFull(conn, head[:]); err != nil {
					return
				}
				serve(conn, head[:])
			})
		}
	})
	t.Cleanup(func() { l.Close() })
	return l.Addr().String(), func() { l.Close(); tasks.Wait() }
}

func (h *house) only() *client {
	h.door.mu.Lock()
	defer h.door.mu.Unlock()
	for _, c := range h.door.clients {
		return c
	}
	return nil
}

func waitSent(t *testing.T, h *house) {
	pgtest.Eventually(t, "sent", func() error {
		if h.door.Snapshot()[0].OpenTransactions != 1 {
			return errUnasked
		}
		return nil
	})
}

// TestALossWhileASuccessIsWithheldIsUnknown loses the server while it is made sure that a standby has the commit.
func TestALossWhileASuccessIsWithheldIsUnknown(t *testing.T) {
	for _, pipelined := range []bool{false, true} {
		t.Run(fmt.Sprint("next statement sent: ", pipelined), func(t *testing.T) {
			gotCancel, verifying, goOn := make(chan int), make(chan int), make(chan int)
			p := fake(t, func(conn net.Conn, sql string) bool {
				switch {
				case strings.HasPrefix(sql, "COMMIT"):
					<-gotCancel
					conn.Write(frame.Append(frame.Append(nil, 'C', "COMMIT\x00"), 'Z', "I"))
				case strings.Contains(sql, "emit_message"):
					close(verifying)
					<-goOn
					return false
				default:
					conn.Write(frame.Append(frame.Append(nil, 'C', "NEXT\x00"), 'Z', "I"))
				}
				return true
			}, func() { close(gotCancel) })
			h := open(t, Transaction, p, size1)
			a := h.raw()
			a.send(query("COMMIT"))
			pgtest.Eventually(t, "sent", func() error {
				if h.door.Snapshot()[0].OpenTransactions != 1 {
					return errUnasked
				}
				return nil
			})
			go h.door.cancel(&h.only().key)
			<-verifying
			if pipelined {
				a.send(query("SELECT next"))
				time.Sleep(100 * time.Millisecond)
			}
			close(goOn)
			got := a.reply(1, patience)
			if !strings.Contains(got, "08007") {
				t.Error("the client is not told that the outcome of its COMMIT is unknown")
			}
		})
	}
}

// TestAFatalErrorWhileASuccessIsWithheldIsUnknown: the words of the server would deny the commit.
func TestAFatalErrorWhileASuccessIsWithheldIsUnknown(t *testing.T) {
	gotCancel, sent := make(chan int), make(chan int)
	p := fake(t, func(conn net.Conn, sql string) bool {
		<-gotCancel
		conn.Write(frame.Append(frame.Append(nil, 'C', "COMMIT\x00"), 'Z', "I"))
		time.Sleep(100 * time.Millisecond)
		conn.Write(pgwire.AppendErrorResponse(nil, &pgwire.Error{Code: "57P01", Message: "terminating connection due to administrator command"}))
		time.Sleep(200 * time.Millisecond)
		close(sent)
		return false
	}, func() { close(gotCancel); <-sent })
	h := open(t, Transaction, p, size1)
	a := h.raw()
	a.send(query("COMMIT"))
	waitSent(t, h)
	go h.door.cancel(&h.only().key)
	got := a.reply(1, patience)
	if !strings.Contains(got, "08007") {
		t.Error("a COMMIT that was done is told as a failure")
	}
}

// TestACopyBehindWhatIsWithheldIsNotWaitedFor: the server waits for data, and the client for the word that it does.
func TestACopyBehindWhatIsWithheldIsNotWaitedFor(t *testing.T) {
	gotCancel := make(chan int)
	p := fake(t, func(conn net.Conn, _ string) bool {
		<-gotCancel
		conn.Write(frame.Append(frame.Append(nil, 'C', "UPDATE 1\x00"), 'G', "\x00\x00\x01\x00\x00"))
		return true
	}, func() { close(gotCancel) })
	h := open(t, Transaction, p, size1)
	a := h.raw()
	a.send(query("UPDATE; COPY"))
	waitSent(t, h)
	go h.door.cancel(&h.only().key)
	if code, message := a.told(); code != "08007" {
		t.Error(code, message)
	}
}

// TestACommitBeforeATransactionThatIsOpenIsMadeSureOf pipelines BEGIN behind a statement that commits by itself.
func TestACommitBeforeATransactionThatIsOpenIsMadeSureOf(t *testing.T) {
	gotCancel := make(chan int)
	var verified atomic.Bool
	p := fake(t, func(conn net.Conn, sql string) bool {
		switch {
		case strings.HasPrefix(sql, "INSERT"):
			<-gotCancel
			conn.Write(frame.Append(frame.Append(nil, 'C', "INSERT 0 1\x00"), 'Z', "I"))
		case strings.HasPrefix(sql, "BEGIN"):
			conn.Write(frame.Append(frame.Append(nil, 'C', "BEGIN\x00"), 'Z', "T"))
		case strings.Contains(sql, "emit_message"):
			verified.Store(true)
			conn.Write(frame.Append(frame.Append(nil, 'C', "SELECT 1\x00"), 'Z', "I"))
		}
		return true
	}, func() { close(gotCancel) })
	h := open(t, Transaction, p, size1)
	a := h.raw()
	a.send(query("INSERT") + query("BEGIN"))
	waitSent(t, h)
	go h.door.cancel(&h.only().key)
	got := a.reply(2, patience)
	if strings.Contains(got, "INSERT") && !verified.Load() {
		t.Error("success of an INSERT that was committed beside a cancel, and nobody made sure of it")
	}
}

// TestACommitBehindARollbackIsMadeSureOf: in a batch that has left its transaction block a procedure commits by itself.
func TestACommitBehindARollbackIsMadeSureOf(t *testing.T) {
	gotCancel := make(chan int)
	p := played(t, func(conn net.Conn, kind byte, body string) bool {
		switch {
		case kind == 'Q' && strings.Contains(body, "pg_stat_activity"):
			conn.Write(frame.Append(frame.Append(frame.Append(nil, 'D', "\x00\x01\x00\x00\x00\x00"), 'C', "SELECT 1\x00"), 'Z', "I"))
		case kind == 'Q':
			conn.Write(frame.Append(frame.Append(nil, 'C', "BEGIN\x00"), 'Z', "T"))
		case kind == 'H':
			conn.Write(frame.Append(frame.Append(frame.Append(nil, '1'), '2'), 'C', "ROLLBACK\x00"))
			<-gotCancel
			conn.Write(frame.Append(frame.Append(frame.Append(nil, '1'), '2'), 'C', "CALL\x00"))
		}
		return true
	}, func() { close(gotCancel) })
	h := open(t, Transaction, p, size1)
	a := h.raw()
	a.send(query("BEGIN"))
	a.until('Z')
	a.send(parse("", "ROLLBACK") + bind("") + execute + parse("", "CALL p()") + bind("") + execute + flush)
	a.until('C')
	go h.door.cancel(&h.only().key)
	if got := a.reply(1, patience); strings.Contains(got, "CALL") || !strings.Contains(got, "08007") {
		t.Error("nobody made sure of what a procedure has committed:", got)
	}
}

type hooked struct {
	net.Conn
	hook atomic.Pointer[func()]
}

func (k *hooked) Write(b []byte) (int, error) {
	if f := k.hook.Swap(nil); f != nil {
		(*f)()
	}
	return k.Conn.Write(b)
}

// hooked is a client whose side of the door has a hook.
func (h *house) hooked(t *testing.T) (*raw, *hooked) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	pgtest.Must(t, err)
	h.address = l.Addr().String()
	k := make(chan *hooked, 1)
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { l.Close() })
	wg.Go(func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		x := &hooked{Conn: conn}
		k <- x
		h.door.Serve(x)
	})
	a := h.raw()
	t.Cleanup(func() { a.Close() })
	return a, <-k
}

func TestWhatIsWithheldComesAfterItsRows(t *testing.T) {
	gotCancel, reached := make(chan int), make(chan int)
	p := fake(t, func(conn net.Conn, sql string) bool {
		switch {
		case strings.HasPrefix(sql, "SELECT"):
			<-gotCancel
			conn.Write(frame.Append(frame.Append(frame.Append(nil, 'D', "\x00\x01\x00\x00\x00\x01x"), 'C', "SELECT 1\x00"), 'Z', "T"))
		default:
			conn.Write(frame.Append(frame.Append(nil, 'C', "BEGIN\x00"), 'Z', "T"))
		}
		return true
	}, func() { close(gotCancel); <-reached })
	h := open(t, Transaction, p, size1)
	a, x := h.hooked(t)
	a.send(query("BEGIN"))
	a.reply(1, patience)
	hook := func() { close(reached); time.Sleep(300 * time.Millisecond) }
	x.hook.Store(&hook)
	a.send(query("SELECT"))
	time.Sleep(100 * time.Millisecond)
	go h.door.cancel(&h.only().key)
	first := a.reply(1, patience)
	if !strings.HasPrefix(first, "D(") {
		t.Error("CommandComplete and ReadyForQuery came before the row:", first)
	}
}
