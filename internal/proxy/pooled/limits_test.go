package pooled

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/havenha/haven/internal/pgwire"
	"github.com/havenha/haven/internal/pgwire/frame"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// TestFailedLoginsFreeTheirPlaces: max_client_conn counts who is there.
func TestFailedLoginsFreeTheirPlaces(t *testing.T) {
	_, _, p := pg(t)
	login := ""
	h := open(t, Transaction, p, func(o *Options) {
		o.Pool.MaxClientConn = 2
		login = withPasswords(t, o)
	})
	for range 2 {
		if _, err := pgx.Connect(context.Background(), h.url("password=wrong")); code(err) != "28P01" {
			t.Error(err)
		}
	}
	for range 2 {
		h.connect(login)
	}
	if _, err := pgx.Connect(context.Background(), h.url(login)); code(err) != "53300" {
		t.Errorf("a third: %v", err)
	}
}

// TestAClientThatWaitsForItsAnswerIsNotIdle: neither is one in a transaction. One without a server is.
func TestAClientThatWaitsForItsAnswerIsNotIdle(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, func(o *Options) { o.Pool.ClientIdleTimeout = 2 * time.Second })
	a := h.raw()
	a.send(query("SELECT pg_sleep(5)"))
	if got := a.reply(1, patience); strings.Contains(got, "E(") {
		t.Error("a client that waits for its answer was ended as idle:", got)
	}
	a.send(query("BEGIN"))
	a.until('Z')
	time.Sleep(4 * time.Second)
	a.send(query("COMMIT"))
	a.until('Z')
	if _, body := a.until('E'); !strings.Contains(string(body), "57P05") {
		t.Errorf("an idle client is told %q", body)
	}
}

// TestNoErrorIsWrittenIntoARow: who has a part of a message cannot be told anything.
func TestNoErrorIsWrittenIntoARow(t *testing.T) {
	p := fake(t, func(conn net.Conn, sql string) bool {
		// A row of 300 bytes of which 200 come.
		row := frame.Append(nil, 'D', "\x00\x01\x00\x00\x00\x64"+strings.Repeat("x", 100))
		conn.Write(row[:30])
		time.Sleep(3 * time.Second)
		return false
	}, func() {})
	h := open(t, Transaction, p, func(o *Options) { o.Pool.QueryTimeout = 500 * time.Millisecond })
	a := h.raw()
	a.send(query("SELECT"))
	got := a.reply(1, 3*time.Second)
	if strings.HasPrefix(got, "D(") {
		t.Error("a row was made up from the error")
	}
}

// TestALesserCredentialReplacesNone: a login by peer, certificate or trust brings what is stored, which may be of no use.
func TestALesserCredentialReplacesNone(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, nil)
	verifier := "SCRAM-SHA-256$4096:MTIzNDU2Nzg5MDEyMzQ1Ng==$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	one := h.raw() // proves a password, say
	defer one.Close()
	c := h.only()
	// what a client by peer, cert or trust comes with if the stored secret is SCRAM
	n, m := net.Pipe()
	defer n.Close()
	defer m.Close()
	h.door.enter(newClient(h.door, &pgwire.Client{Conn: n, User: "postgres", Database: "postgres", Credential: pgwire.ParseSecret(verifier).Credential()}))
	if c.lane.credential.Password == "" {
		t.Error("the pool has lost the credential that it could log in with")
	}
}

// TestPoolsThatNobodyUsesEnd: clients may name any database.
func TestPoolsThatNobodyUsesEnd(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, nil)
	r := h.raw()
	for i := range 5 {
		if _, err := pgx.Connect(context.Background(), fmt.Sprintf("host=127.0.0.1 port=%d user=postgres dbname=no%d sslmode=disable", h.port, i)); code(err) != "3D000" {
			t.Error(err)
		}
	}
	pgtest.Eventually(t, "only the pool that is used is left", func() error {
		h.door.mu.Lock()
		defer h.door.mu.Unlock()
		h.door.sweep()
		if n := len(h.door.lanes); n != 1 {
			return fmt.Errorf("%d pools", n)
		}
		return nil
	})
	r.send(query("SELECT 1"))
	r.until('Z')
}

// told reads up to the error that ends a connection, and returns its SQLSTATE and message.
func (r *raw) told() (code, message string) {
	r.t.Helper()
	_, body := r.until('E')
	e, err := pgwire.ParseError(body)
	pgtest.Must(r.t, err)
	if _, _, err := r.next(); err == nil {
		r.t.Error("the connection goes on after it was ended")
	}
	return e.Code, e.Severity + " " + e.Message
}

// TestQueryTimeout ends the client of a statement that takes too long, and no other. No SQL is read, so any statement may have
// committed something, in a transaction too.
func TestQueryTimeout(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, func(o *Options) { o.Pool.QueryTimeout, o.Pool.DefaultPoolSize = 3*time.Second, 2 })
	other := h.connect()
	alone, within := h.raw(), h.raw()
	alone.send(query("SELECT pg_sleep(60)"))
	if code, message := alone.told(); code != "08007" || message != "FATAL query_timeout" {
		t.Errorf("a statement by itself: %s %s", code, message)
	}
	within.send(query("BEGIN"))
	within.until('Z')
	within.send(query("SELECT pg_sleep(60)"))
	if code, message := within.told(); code != "08007" || message != "FATAL query_timeout" {
		t.Errorf("a statement of a transaction: %s %s", code, message)
	}
	for range 3 { // the places of the two in the pool are free
		if got := text(t, other, "SELECT 'here'"); got != "here" {
			t.Errorf("another client gets %q", got)
		}
	}
}

// TestIdleTransactionTimeout ends who says nothing within a transaction, which is undone; who is idle outside of one stays.
func TestIdleTransactionTimeout(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, func(o *Options) { o.Pool.IdleTransactionTimeout, o.Pool.DefaultPoolSize = 500*time.Millisecond, 1 })
	idle := h.connect()
	exec(t, idle, "CREATE TABLE i (n int)")
	silent := h.raw()
	silent.send(query("BEGIN; INSERT INTO i VALUES (1)"))
	silent.until('Z')
	if code, message := silent.told(); code != "25P03" || message != "FATAL idle_transaction_timeout" {
		t.Errorf("%s %s", code, message)
	}
	// It waits for the only connection until the transaction is undone, and so is no longer than the limit.
	if got := text(t, idle, "SELECT count(*) FROM i"); got != "0" {
		t.Errorf("%s rows of a transaction that was ended", got)
	}
}

// decided is what is found to have lasted too long, with limits that hold for that look only.
func (h *house) decided(t *testing.T) overdue {
	t.Helper()
	d := h.door
	var found []overdue
	pgtest.Eventually(t, "a pause is found", func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		for s := range d.servers {
			set := *s.lane.set.Load()
			short := set
			short.IdleTransactionTimeout = 50 * time.Millisecond
			s.lane.set.Store(&short)
			found, _ = d.overdue()
			s.lane.set.Store(&set)
		}
		if len(found) == 0 {
			return errUnasked
		}
		return nil
	})
	return found[0]
}

// TestALimitOfTimeEndsNobodyWhoHasGoneOn: the client, or the one that has the connection next, does something between the decision
// and what it leads to.
func TestALimitOfTimeEndsNobodyWhoHasGoneOn(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, size1)
	a, b := h.raw(), h.raw()
	a.send(query("BEGIN"))
	a.until('Z')
	late := h.decided(t)
	a.send(query("COMMIT"))
	a.until('Z')
	b.send(query("BEGIN; SELECT 'b'"))
	b.rows("b")
	late.end()
	b.send(query("COMMIT"))
	if kinds, _ := b.until('Z'); kinds != "CZ" {
		t.Errorf("b is told %s", kinds)
	}
	a.send(query("BEGIN; SELECT 'a'"))
	a.rows("a")
	late = h.decided(t)
	a.send(query("SELECT 'on' FROM pg_sleep(3)"))
	pgtest.Eventually(t, "the query is on its way", func() error {
		late.server.mu.Lock()
		defer late.server.mu.Unlock()
		if !late.server.x.Owes() {
			return errUnasked
		}
		return nil
	})
	late.end()
	a.rows("on")
}

// TestAPauseBehindWhatWasExecutedIsOfUnknownOutcome: a COMMIT takes effect before its Sync, whether the client asks for the reply or not.
func TestAPauseBehindWhatWasExecutedIsOfUnknownOutcome(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, func(o *Options) { o.Pool.IdleTransactionTimeout = 3 * time.Second })
	for asks, last := range map[string]string{flush: "C", "": "Z"} {
		a := h.raw()
		a.send(query("BEGIN"))
		a.until('Z')
		a.send(parse("", "COMMIT") + bind("") + execute + asks)
		if last == "C" {
			a.until('C')
		}
		if code, message := a.told(); code != "08007" || message != "FATAL idle_transaction_timeout" {
			t.Errorf("%s %s", code, message)
		}
	}
}

// TestAPauseWithinCopyDataIsAPause: the server waits for the client's data, and an answer is owed all the time.
func TestAPauseWithinCopyDataIsAPause(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, func(o *Options) { o.Pool.IdleTransactionTimeout = 3 * time.Second })
	a := h.raw()
	a.send(query("CREATE TEMP TABLE i (n int); COPY i FROM STDIN"))
	a.until('G')
	for range 4 { // longer than the limit
		a.send(string(frame.Append(nil, 'd', "1\n")))
		time.Sleep(time.Second)
	}
	if code, message := a.told(); code != "08007" || message != "FATAL idle_transaction_timeout" {
		t.Errorf("%s %s", code, message)
	}
}

// TestAPauseBeginsWithTheReply: a statement that is flushed is not the client's pause, however long it takes.
func TestAPauseBeginsWithTheReply(t *testing.T) {
	_, _, p := pg(t)
	const limit = 3 * time.Second
	h := open(t, Transaction, p, func(o *Options) { o.Pool.IdleTransactionTimeout = limit })
	a := h.raw()
	a.send(parse("", "SELECT 'slow' FROM pg_sleep(4)") + bind("") + execute + flush)
	a.until('C')
	time.Sleep(limit / 3)
	a.send(sync_)
	if kinds, _ := a.until('Z'); kinds != "Z" {
		t.Error("a client that was waiting is told", kinds)
	}
	// What comes behind it, and is not flushed yet, does not make it one.
	a.send(parse("", "SELECT 'slow' FROM pg_sleep(4)") + bind("") + execute + flush + bind("") + execute)
	a.until('C')
	a.send(sync_)
	if kinds, _ := a.until('Z'); kinds != "2DCZ" {
		t.Error("a client that was waiting for a part of its batch is told", kinds)
	}
	// Nor does it count when the server comes to want data.
	a.send(query("CREATE TEMP TABLE i (n int); SELECT 'slow' FROM pg_sleep(4); COPY i FROM STDIN"))
	a.until('G')
	time.Sleep(limit / 3)
	a.send("c\x00\x00\x00\x04")
	if kinds, _ := a.until('Z'); kinds != "CZ" {
		t.Error("a client that was waiting to send data is told", kinds)
	}
}

// TestAMessageThatIsNotFinishedIsAPause: the server connection is the client's meanwhile, and no statement runs.
func TestAMessageThatIsNotFinishedIsAPause(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, func(o *Options) { size1(o); o.Pool.IdleTransactionTimeout = 6 * time.Second })
	a, b := h.raw(), h.raw()
	long := query("SELECT '" + strings.Repeat("x", 3*largeBuffer) + "'")
	a.send(long[:2*largeBuffer])
	if code, message := a.told(); code != "08007" || message != "FATAL idle_transaction_timeout" {
		t.Errorf("%s %s", code, message)
	}
	b.send(query("SELECT 'b'"))
	b.rows("b")
	// Who goes on in time is left alone, and so is who waits for an answer.
	for i := 0; i < len(long); i += largeBuffer {
		b.send(long[i:min(len(long), i+largeBuffer)])
		time.Sleep(1800 * time.Millisecond) // all of them together take longer than the limit
	}
	b.rows("x")
	b.send(query("SELECT 'b' FROM pg_sleep(7)"))
	b.rows("b")
}

// TestAMessageThatHasToBeWholeIsAPause: of a Parse, or of the names in a Bind, nothing is sent before all is there, and the server connection
// is the client's all the same.
func TestAMessageThatHasToBeWholeIsAPause(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, func(o *Options) { size1(o); o.Pool.IdleTransactionTimeout = 500 * time.Millisecond })
	b := h.raw()
	for name, m := range map[string]string{
		"Parse": parse("", "SELECT 1"+strings.Repeat(" ", 3*largeBuffer)), "Bind": bindAt(strings.Repeat("p", 3*largeBuffer), ""),
	} {
		a := h.raw()
		a.send(m[:2*largeBuffer])
		if code, message := a.told(); code != "25P03" || message != "FATAL idle_transaction_timeout" {
			t.Errorf("%s: %s %s", name, code, message)
		}
		b.send(query("SELECT 'b'"))
		b.rows("b")
	}
}

// TestFewBytesTakeLittleMemory: each Describe of the unnamed statement in a batch of its own has the whole Parse before it, for the batches
// before may fail.
func TestFewBytesTakeLittleMemory(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, size1)
	a := h.raw()
	a.send(parse("", "SELECT 1"+strings.Repeat(" ", maxKept-1000)) + sync_)
	a.until('Z')
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	runtime.GC()
	before, most := heap(), uint64(0)
	const batches = 100
	ended := make(chan int)
	go func() {
		defer close(ended)
		for range batches {
			if kinds, _, err := a.read('Z'); err != nil || kinds != "tTZ" {
				t.Errorf("%q, %v", kinds, err)
				return
			}
		}
	}()
	a.send(strings.Repeat(describe("")+sync_, batches))
	for over := false; !over; {
		select {
		case <-ended:
			over = true
		case <-time.After(5 * time.Millisecond):
			most = max(most, heap())
		}
	}
	if grown := int64(most) - int64(before); grown > batches*maxKept/2 {
		t.Errorf("the heap has grown by %d bytes", grown)
	}
}

// TestAWaitBehindASplitMessageIsNoPause: who has sent all, in pieces, and waits for the answers to what came before is not idle.
func TestAWaitBehindASplitMessageIsNoPause(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, func(o *Options) { size1(o); o.Pool.IdleTransactionTimeout = 500 * time.Millisecond })
	a := h.raw()
	all := parse("", "SELECT 'slow' FROM pg_sleep(3)") + bind("") + execute + sync_ + parse("s", "SELECT 'fast'") + sync_ + bind("s")
	a.send(all[:len(all)-3])
	time.Sleep(100 * time.Millisecond)
	a.send(all[len(all)-3:] + execute + sync_)
	a.rows("slow")
	a.until('Z')
	a.rows("fast")
}

// TestWhoDoesNotReadLosesItsServer: all was done, and the client does not take the end of it.
func TestWhoDoesNotReadLosesItsServer(t *testing.T) {
	p := fake(t, func(conn net.Conn, sql string) bool {
		row := frame.Append(nil, 'D', "\x00\x01\x00\x00\x00\x64"+strings.Repeat("x", 100))
		conn.Write(frame.Append(frame.Append(row, 'C', "SELECT 1\x00"), 'Z', "I"))
		return true
	}, func() {})
	h := open(t, Transaction, p, func(o *Options) { size1(o); o.Pool.IdleTransactionTimeout = 500 * time.Millisecond })
	a, x := h.hooked(t)
	reads, goOn := make(chan int), make(chan int)
	hook := func() { close(reads); <-goOn }
	x.hook.Store(&hook)
	b := h.only()
	a.send(query("SELECT"))
	<-reads
	pgtest.Eventually(t, "it has no server any more", func() error {
		if !b.doomed.Load() {
			return errUnasked
		}
		return nil
	})
	close(goOn)
}
