package pooled

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/pgwire"
	"github.com/havenha/haven/internal/pgwire/frame"
)

// TestTheUnnamedStatementOutlivesOurStatements: a Query drops it at the server, and what brings a connection into the state of a client
// is one.
func TestTheUnnamedStatementOutlivesOurStatements(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, size1)
	a, b := h.raw(), h.raw()
	b.send(parse("set", "SET application_name = 'b'") + bind("set") + execute + sync_)
	b.until('Z')
	a.send(parse("", "SELECT 'mine'") + sync_)
	a.until('Z')
	b.send(bind("set") + execute + sync_) // a connection with another application_name, and no Query of its own
	b.until('Z')
	a.send(bind("") + execute + sync_)
	a.rows("mine")
}

// TestStatementsAreSharedByThoseWhoMeanTheSame: PostgreSQL makes constants of a text when it parses it, by the settings of that moment.
func TestStatementsAreSharedByThoseWhoMeanTheSame(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, size1)
	const midnight = "SELECT ('2024-01-01 00:00'::timestamptz AT TIME ZONE 'UTC')::text"
	use := bind("s") + execute + sync_
	berlin, utc, tokyo, plain := h.raw(), h.raw(), h.raw(), h.raw()
	berlin.send(query("SET TimeZone = 'Europe/Berlin'"))
	berlin.until('Z')
	utc.send(query("SET TimeZone = 'UTC'"))
	utc.until('Z')
	plain.send(query("SET TimeZone = 'Etc/GMT+5'"))
	plain.until('Z')
	tokyo.send(query("SET TimeZone = 'Etc/GMT+5'"))
	tokyo.until('Z')
	berlin.send(parse("s", midnight) + use)
	berlin.rows("2023-12-31 23:00:00")
	utc.send(parse("s", midnight) + use)
	utc.rows("2024-01-01 00:00:00")
	berlin.send(use)
	berlin.rows("2023-12-31 23:00:00")
	// By which settings it is parsed is not known before the SET is answered.
	tokyo.send(query("SELECT set_config('TimeZone', 'Asia/Tokyo', false)") + parse("s", midnight) + use)
	tokyo.rows("Asia/Tokyo")
	tokyo.rows("2023-12-31 15:00:00")
	plain.send(parse("s", midnight) + use)
	plain.rows("2024-01-01 05:00:00")
	tokyo.send(use)
	tokyo.rows("2023-12-31 15:00:00")
}

// TestStatementsOfPassingSettingsAreNotShared: a setting that has changed back before the end of its batch is never reported.
func TestStatementsOfPassingSettingsAreNotShared(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, size1)
	const midnight = "SELECT ('2024-01-01 00:00'::timestamptz AT TIME ZONE 'UTC')::text"
	run := func(sql string) string { return parse("", sql) + bind("") + execute }
	for name, set := range map[string]string{
		"for its transaction":          run("BEGIN") + run("SELECT set_config('TimeZone', 'Asia/Tokyo', true)"),
		"in a transaction that failed": run("SELECT set_config('TimeZone', 'Asia/Tokyo', false)"),
		"by a portal that is not done": run("BEGIN") + parse("", "SELECT set_config('TimeZone', 'Asia/Tokyo', true) FROM generate_series(1, 2)") + bind("") + "E\x00\x00\x00\x09\x00\x00\x00\x00\x01",
	} {
		t.Run(name, func(t *testing.T) {
			a, b := h.raw(), h.raw()
			own := midnight + " -- " + name
			play(a, query("SET TimeZone = 'UTC'"))
			play(b, query("SET TimeZone = 'UTC'"))
			end := run("COMMIT")
			if strings.Contains(name, "failed") {
				end = run("SELECT 1/0")
			}
			if got := play(a, set+parse("s", own)+bind("s")+execute+end+sync_); !strings.Contains(got, "2023-12-31 15:00:00") {
				t.Error("the settings do not change:", got)
			}
			if got := play(b, parse("s", own)+bind("s")+execute+sync_); !strings.Contains(got, "2024-01-01 00:00:00") {
				t.Error("another client executes what was meant otherwise:", got)
			}
		})
	}
}

// TestStatementsOfSettingsThatComeBackAreNotShared: the end of a subtransaction, or of a transaction, changes settings in the middle of a
// batch, and if they are as they were at its end nobody is told.
func TestStatementsOfSettingsThatComeBackAreNotShared(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, size1)
	const midnight = "SELECT ('2024-01-01 00:00'::timestamptz AT TIME ZONE 'UTC')::text"
	run := func(sql string) string { return parse("", sql) + bind("") + execute }
	tokyo := run("SELECT set_config('TimeZone', 'Asia/Tokyo', true)")
	for name, turn := range map[string][2]string{
		"of a subtransaction": {run("ROLLBACK TO s"), ""}, "of a transaction": {run("ROLLBACK"), run("BEGIN")}, "of what is kept": {run("COMMIT"), run("BEGIN")},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := h.raw(), h.raw()
			own := midnight + " -- " + name
			play(a, query("SET TimeZone = 'UTC'"))
			play(b, query("SET TimeZone = 'Asia/Tokyo'"))
			play(a, query("BEGIN; SAVEPOINT s")+tokyo+sync_)
			if got := play(a, turn[0]+parse("s", own)+turn[1]+tokyo+bind("s")+execute+sync_); !strings.Contains(got, "2024-01-01 00:00:00") {
				t.Error("it is not parsed in between:", got)
			}
			play(a, query("COMMIT"))
			if got := play(b, parse("s", own)+bind("s")+execute+sync_); !strings.Contains(got, "2023-12-31 15:00:00") {
				t.Error("another client executes what was meant otherwise:", got)
			}
		})
	}
}

// TestValuesAreInTheClientsEncoding: a setting that is not plain ASCII is brought to another server connection as what it is.
func TestValuesAreInTheClientsEncoding(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, size1)
	a, b := h.raw(), h.raw()
	play(a, query("SET client_encoding = 'LATIN1'"))
	if got := play(a, query("SET TimeZone = '<\xe9>5'")); strings.Contains(got, "E(") {
		t.Fatal(got)
	}
	comesAlong := func() {
		t.Helper()
		for range 2 {
			b.send(query("SHOW TimeZone"))
			b.until('Z')
			a.send(query("SHOW TimeZone"))
			a.rows("<\xe9>5")
		}
	}
	comesAlong()
	// It was reported in the encoding of then.
	play(a, query("SET client_encoding = 'UTF8'"))
	play(a, query("SET TimeZone = 'UTC'"))
	play(a, query("SET TimeZone = '<\xc3\xa9>5'"))
	play(a, query("SET client_encoding = 'LATIN1'"))
	comesAlong()
}

// TestStatementsAreKeptBehindBegin: drivers send BEGIN and the first statement of a transaction at once.
func TestStatementsAreKeptBehindBegin(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, size1)
	a := h.raw()
	a.send(parse("begin", "BEGIN") + parse("s", "SELECT 'mine'") + sync_)
	a.until('Z')
	copies := func() (all []*copyOf) {
		h.door.mu.Lock()
		defer h.door.mu.Unlock()
		for s := range h.door.servers {
			s.mu.Lock()
			all = slices.AppendSeq(all, maps.Values(s.statements.has))
			s.mu.Unlock()
		}
		return all
	}
	before := copies()
	for range 3 {
		a.send(bind("begin") + execute + bind("s") + execute + sync_)
		a.rows("mine")
		a.send(query("COMMIT"))
		a.until('Z')
	}
	for _, c := range copies() {
		if len(before) != 2 || !slices.Contains(before, c) {
			t.Error("a statement was parsed again")
		}
	}
}

// TestHoldTimeoutIsNotForABusyPool: who has waited for a place in its pool is not refused because there is no server for a moment.
func TestHoldTimeoutIsNotForABusyPool(t *testing.T) {
	o, _, p := pg(t)
	const hold = 5 * time.Second
	h := open(t, Transaction, p, func(o *Options) { size1(o); o.HoldTimeout = hold })
	a, b := h.raw(), h.raw()
	a.send(query("BEGIN"))
	a.until('Z')
	b.send(query("SELECT 'b'"))
	time.Sleep(hold + pause)
	p.depose("nobody leads")
	time.Sleep(pause)
	p.admit(fmt.Sprintf("127.0.0.1:%d", o.Port))
	b.rows("b")
}

// TestACancelRequestNeedsNoConnection: where the server has none left to ask whether it waits for a standby, the request is sent all
// the same.
func TestACancelRequestNeedsNoConnection(t *testing.T) {
	slow, cancelled := make(chan int), make(chan int)
	p := played(t, func(conn net.Conn, kind byte, body string) bool {
		said := &pgwire.Error{Severity: "ERROR", Code: "57014", Message: "canceling statement due to user request"}
		if strings.Contains(body, "pg_stat_activity") {
			said = &pgwire.Error{Severity: "FATAL", Code: "53300", Message: "too many connections"}
		} else {
			close(slow)
			<-cancelled
		}
		conn.Write(frame.Append(pgwire.AppendErrorResponse(nil, said), 'Z', "I"))
		return true
	}, func() { close(cancelled) })
	h := open(t, Transaction, p, size1)
	a := h.raw()
	a.send(query("SLOW"))
	<-slow
	h.door.cancel(&h.only().key)
	if kinds, _ := a.until('Z'); kinds != "EZ" {
		t.Error(kinds)
	}
}
