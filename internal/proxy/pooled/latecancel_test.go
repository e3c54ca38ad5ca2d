package pooled

import (
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/havenha/haven/internal/pgwire"
	"github.com/havenha/haven/internal/pgwire/frame"
)

// TestNothingIsSentWhileACancelRequestIsUnderWay: the statement that it was for has failed by itself, and the request could hit the
// COMMIT behind it while that waits for a standby.
func TestNothingIsSentWhileACancelRequestIsUnderWay(t *testing.T) {
	slow, underWay, over := make(chan int), make(chan int), make(chan int)
	var isOver, early atomic.Bool
	p := fake(t, func(conn net.Conn, sql string) bool {
		switch {
		case strings.HasPrefix(sql, "SLOW"):
			close(slow)
			<-underWay
			failed := pgwire.AppendErrorResponse(nil, &pgwire.Error{Severity: "ERROR", Code: "22012", Message: "division by zero"})
			conn.Write(frame.Append(failed, 'Z', "E"))
			return true
		case strings.HasPrefix(sql, "COMMIT"):
			early.Store(early.Load() || !isOver.Load())
			conn.Write(frame.Append(frame.Append(nil, 'C', "COMMIT\x00"), 'Z', "I"))
		default:
			early.Store(early.Load() || strings.HasPrefix(sql, "ROLLBACK") && !isOver.Load())
			conn.Write(frame.Append(frame.Append(nil, 'C', "BEGIN\x00"), 'Z', "T"))
		}
		return true
	}, func() { close(underWay); <-over })
	h := open(t, Transaction, p, size1)
	a := h.cancelsSlow(slow)
	a.until('Z')
	a.send(query("ROLLBACK TO s"))
	time.Sleep(200 * time.Millisecond)
	if early.Load() {
		t.Error("a statement is sent to a server that a cancel request may hit")
	}
	isOver.Store(true)
	close(over)
	a.until('Z')
	a.send(query("COMMIT"))
	if kinds, _ := a.until('Z'); kinds != "CZ" || early.Load() {
		t.Errorf("the COMMIT was answered by %s, early %v", kinds, early.Load())
	}
}

// batches is a server that answers messages of the extended protocol and, when a cancel request has come, the first Sync.
func batches(t *testing.T, answer func(conn net.Conn, kind byte, body string) bool) *place {
	cancelled := make(chan int)
	var began atomic.Bool
	return played(t, func(conn net.Conn, kind byte, body string) bool {
		switch {
		case kind == 'Q' && strings.Contains(body, "pg_stat_activity"):
			conn.Write(frame.Append(frame.Append(frame.Append(nil, 'D', "\x00\x01\x00\x00\x00\x00"), 'C', "SELECT 1\x00"), 'Z', "I"))
			return true
		case kind == 'E' && began.CompareAndSwap(false, true):
			<-cancelled
		case kind == 'C':
			conn.Write(frame.Append(nil, '3'))
			return true
		}
		return answer(conn, kind, body)
	}, func() { close(cancelled) })
}

// TestWhatIsWithheldBehindAFlushIsNotWithheldForEver: the client waits for replies before it sends the next Sync, and nothing of ours
// can be run within its batch.
func TestWhatIsWithheldBehindAFlushIsNotWithheldForEver(t *testing.T) {
	p := batches(t, func(conn net.Conn, kind byte, _ string) bool { return plain(conn, kind) })
	h := open(t, Transaction, p, size1)
	a := h.raw()
	a.send(bind("") + execute + sync_ + bind("") + execute + flush)
	waitSent(t, h)
	h.door.cancel(&h.only().key)
	if got := a.reply(1, patience); strings.Contains(got, "INSERT") || !strings.Contains(got, "08007") {
		t.Error(got)
	}
}

// taken is what a server says of a name that is taken.
var taken = pgwire.AppendErrorResponse(nil, &pgwire.Error{Severity: "ERROR", Code: "42P05", Message: "taken"})

// cancelsBehindName is a client that has prepared s, and cancels a batch.
func cancelsBehindName(t *testing.T, p *place, batch string) *raw {
	t.Helper()
	h := open(t, Transaction, p, size1)
	a := h.raw()
	play(a, parse("s", "x")+sync_)
	a.send(batch)
	waitSent(t, h)
	h.door.cancel(&h.only().key)
	return a
}

// TestAnErrorOfOursComesAfterWhatIsWithheld: the name of a statement is refused behind what was to be cancelled.
func TestAnErrorOfOursComesAfterWhatIsWithheld(t *testing.T) {
	p := batches(t, func(conn net.Conn, kind byte, body string) bool {
		switch {
		case kind == 'Q':
			conn.Write(frame.Append(frame.Append(nil, 'C', "SELECT 1\x00"), 'Z', "I"))
		case kind == 'P' && strings.HasSuffix(body, harmless):
			conn.Write(taken)
		default:
			return plain(conn, kind)
		}
		return true
	})
	a := cancelsBehindName(t, p, bind("")+execute+parse("s", "y")+sync_)
	got := a.reply(1, patience)
	if done, refused := strings.Index(got, "INSERT"), strings.Index(got, "42P05"); done < 0 || refused < done {
		t.Error(got)
	}
}

// TestARefusalDoesNotDenyWhatIsWithheld: in statement mode a transaction block is refused behind an INSERT that may have been committed.
func TestARefusalDoesNotDenyWhatIsWithheld(t *testing.T) {
	gotCancel := make(chan int)
	p := fake(t, func(conn net.Conn, sql string) bool {
		if strings.HasPrefix(sql, "INSERT") {
			<-gotCancel
			conn.Write(frame.Append(frame.Append(nil, 'C', "INSERT 0 1\x00"), 'Z', "I"))
			return true
		}
		conn.Write(frame.Append(frame.Append(nil, 'C', "BEGIN\x00"), 'Z', "T"))
		return true
	}, func() { close(gotCancel) })
	h := open(t, Statement, p, size1)
	a := h.raw()
	a.send(query("INSERT") + query("BEGIN"))
	waitSent(t, h)
	h.door.cancel(&h.only().key)
	if code, message := a.told(); code != "08007" {
		t.Error(code, message)
	}
}

// TestAnErrorOfOursBehindAFlush: the same, where the client waits for the replies to its Flush.
func TestAnErrorOfOursBehindAFlush(t *testing.T) {
	p := batches(t, func(conn net.Conn, kind byte, body string) bool {
		switch {
		case kind == 'P' && strings.HasSuffix(body, harmless):
			conn.Write(taken)
		case kind == 'E':
			conn.Write(frame.Append(nil, 'C', "COMMIT\x00"))
		default:
			return plain(conn, kind)
		}
		return true
	})
	a := cancelsBehindName(t, p, bind("")+execute+parse("s", "y")+flush)
	if code, message := a.told(); code != "08007" {
		t.Error(code, message)
	}
}

// TestACancelRequestThatMayStillCome: the postmaster has it and does not say that it is done. It could hit a commit of later, so the
// session ends.
func TestACancelRequestThatMayStillCome(t *testing.T) {
	slow, over := make(chan int), make(chan int)
	p := fake(t, func(conn net.Conn, sql string) bool {
		switch {
		case strings.HasPrefix(sql, "SLOW"):
			close(slow)
		default:
			conn.Write(frame.Append(frame.Append(nil, 'C', "BEGIN\x00"), 'Z', "T"))
		}
		return true
	}, func() { <-over })
	defer close(over)
	h := open(t, Session, p, func(o *Options) { size1(o); o.ConnectTimeout = 3 * time.Second })
	a := h.cancelsSlow(slow)
	if code, message := a.told(); code != "08007" { // what it sent might have been a COMMIT
		t.Error(code, message)
	}
}

// cancelsSlow is a client that asks to cancel the statement SLOW of its transaction, once the server has that.
func (h *house) cancelsSlow(slow <-chan int) *raw {
	a := h.raw()
	a.send(query("BEGIN"))
	a.until('Z')
	a.send(query("SLOW"))
	<-slow
	go h.door.cancel(&h.only().key)
	return a
}
