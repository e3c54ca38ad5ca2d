package pooled

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/pgwire"
	"github.com/havenha/haven/internal/pgwire/frame"
)

func parse(name, sql string) string {
	return string(frame.Append(nil, 'P', name, "\x00", sql, "\x00\x00\x00"))
}
func bind(name string) string {
	return string(frame.Append(nil, 'B', "\x00", name, "\x00\x00\x00\x00\x00\x00\x00"))
}
func describe(name string) string { return string(frame.Append(nil, 'D', "S", name, "\x00")) }
func closing(name string) string  { return string(frame.Append(nil, 'C', "S", name, "\x00")) }
func query(sql string) string     { return string(frame.Append(nil, 'Q', sql, "\x00")) }

const (
	execute = "E\x00\x00\x00\x09\x00\x00\x00\x00\x00"
	sync_   = "S\x00\x00\x00\x04"
	flush   = "H\x00\x00\x00\x04"
)

// TestRepliesAreThoseOfAServer plays the same messages to a session of its own and through the pool: the replies have the same
// types, and the errors the same code and text.
func TestRepliesAreThoseOfAServer(t *testing.T) {
	_, _, p := pg(t)
	direct := open(t, Session, p, func(o *Options) { o.Pool.DefaultPoolSize = 25 })
	for _, c := range []struct{ name, script string }{
		{"named", parse("s", "SELECT 1") + sync_ + "|" + bind("s") + execute + sync_ + "|" + bind("s") + execute + sync_},
		{"described", parse("s", "SELECT 1") + describe("s") + sync_ + "|" + describe("s") + sync_},
		{"unnamed over batches", parse("", "SELECT 1") + describe("") + sync_ + "|" + bind("") + execute + sync_},
		{"unnamed is gone after a query", parse("", "SELECT 1") + sync_ + "|" + query("SELECT 2") + "|" + bind("") + execute + sync_},
		{"no unnamed", bind("") + execute + sync_},
		{"closed", parse("s", "SELECT 1") + closing("s") + bind("s") + execute + sync_},
		{"closed, and made anew", parse("s", "SELECT 1") + closing("s") + parse("s", "SELECT 2") + bind("s") + execute + sync_},
		{"closed without being there", closing("s") + sync_},
		{"twice", parse("s", "SELECT 1") + sync_ + "|" + parse("s", "SELECT 2") + bind("s") + execute + sync_ + "|" + bind("s") + execute + sync_},
		{"twice in one batch", parse("s", "SELECT 1") + parse("s", "SELECT 2") + bind("s") + execute + sync_ + "|" + bind("s") + execute + sync_},
		{"twice, and too long to be kept", parse("s", "SELECT 1") + sync_ + "|" + parse("s", "SELECT 2 -- "+strings.Repeat("x", maxKept)) + sync_ + "|" + bind("s") + execute + sync_},
		{"twice in a failed transaction", parse("s", "SELECT 1") + sync_ + "|" + query("BEGIN") + "|" + query("SELECT 1/0") + "|" + parse("s", "SELECT 2") + sync_ + "|" + query("ROLLBACK")},
		{"wrong", parse("s", "SELEC 1") + bind("s") + execute + sync_ + "|" + bind("s") + execute + sync_},
		{"wrong, then right", parse("s", "SELEC 1") + sync_ + parse("s", "SELECT 1") + bind("s") + execute + sync_},
		{"skipped parse", parse("a", "SELEC 1") + parse("b", "SELECT 1") + sync_ + "|" + bind("b") + execute + sync_},
		{"unknown", bind("nobody") + execute + sync_},
		{"discard all", parse("s", "SELECT 1") + sync_ + "|" + query("DISCARD ALL") + "|" + bind("s") + execute + sync_},
		{"deallocate all", parse("s", "SELECT 1") + sync_ + "|" + query("DEALLOCATE ALL") + "|" + bind("s") + execute + sync_ + "|" + parse("s", "SELECT 2") + bind("s") + execute + sync_},
		{"discard all before it in its packet", query("DISCARD ALL") + parse("s", "SELECT 1") + describe("s") + sync_ + "|" + bind("s") + execute + sync_},
		{"deallocate all before it in its packet", query("DEALLOCATE ALL") + parse("s", "SELECT 1") + sync_ + "|" + bind("s") + execute + sync_},
		{"discard all before a text that the server has", query("SELECT 0") + "|" + query("DISCARD ALL") + parse("s", "SELECT 'another'") + bind("s") + execute + sync_},
		{"discard all before a text that the client has", parse("s", "SELECT 1") + sync_ + "|" + query("DISCARD ALL") + parse("t", "SELECT 1") + bind("t") + execute + sync_ + "|" + bind("t") + execute + sync_},
		{"discard all before the unnamed one", query("DISCARD ALL") + parse("", "SELECT 1") + sync_ + "|" + bind("") + execute + sync_},
		{"deallocate all keeps the unnamed one", parse("", "SELECT 1") + parse("d", "DEALLOCATE ALL") + bind("d") + execute + sync_ + "|" + bind("") + execute + sync_},
		{"discard all, and the name anew", parse("s", "SELECT 1") + sync_ + "|" + query("DISCARD ALL") + parse("s", "SELECT 2") + sync_ + "|" + bind("s") + execute + sync_},
		{"deallocate all by a batch, and the name anew", parse("s", "SELECT 1") + sync_ + "|" + parse("", "DEALLOCATE ALL") + bind("") + execute + sync_ + parse("s", "SELECT 2") + bind("s") + execute + sync_},
		{"deallocate all by a batch, and the text anew", parse("s", "SELECT 1") + sync_ + "|" + parse("", "DEALLOCATE ALL") + bind("") + execute + sync_ + parse("t", "SELECT 1") + bind("t") + execute + sync_},
		{"a parse that fails behind a command, and is used", query("SELECT 1") + parse("s", "SELEC") + sync_ + bind("s") + execute + sync_ + "|" + parse("s", "SELECT 2") + bind("s") + execute + sync_},
		{"deallocate all after a pipeline", query("SELECT 1") + parse("s", "SELECT 1") + sync_ + bind("s") + execute + sync_ + "|" + query("DEALLOCATE ALL") + "|" + parse("s", "SELECT 2") + bind("s") + execute + sync_},
		{"another text behind an error", parse("s", "SELECT 1") + sync_ + "|" + parse("", "SELECT 1/0") + bind("") + execute + closing("s") + parse("s", "SELECT 2") + sync_ + bind("s") + execute + sync_},
		{"same text, two names", parse("a", "SELECT 1") + parse("b", "SELECT 1") + bind("a") + execute + bind("b") + execute + sync_},
		{"in a failed transaction", query("BEGIN") + "|" + query("SELECT 1/0") + "|" + parse("s", "SELECT 1") + bind("s") + execute + sync_ + "|" + query("ROLLBACK")},
		{"error in a batch before a use", parse("s", "SELECT 1") + sync_ + "|" + parse("", "SELECT 1/0") + bind("") + execute + bind("s") + execute + sync_ + bind("s") + execute + sync_},
		{"close that is skipped", parse("s", "SELECT 1") + sync_ + "|" + parse("x", "SELEC") + closing("s") + sync_ + "|" + bind("s") + execute + sync_},
		{"made anew, but skipped", parse("s", "SELECT 1") + sync_ + "|" + parse("x", "SELEC") + closing("s") + parse("s", "SELECT 2") + sync_ + "|" + bind("s") + execute + sync_},
		{"made and closed, but skipped", parse("x", "SELEC") + parse("s", "SELECT 1") + closing("s") + sync_ + "|" + bind("s") + execute + sync_},
		{"another name behind what was skipped", parse("s", "SELECT 'old'") + sync_ + "|" + parse("x", "SELEC") + closing("s") + parse("s", "SELECT 'new'") + sync_ + parse("t", "SELECT 2") + bind("s") + execute + sync_},
		{"another name behind a parse that was skipped", parse("x", "SELEC") + parse("s", "SELECT 1") + sync_ + parse("t", "SELECT 2") + bind("s") + execute + sync_},
		{"the name anew behind a close that was skipped", parse("s", "SELECT 'old'") + sync_ + "|" + parse("x", "SELEC") + closing("s") + sync_ + parse("s", "SELECT 'new'") + bind("s") + execute + sync_ + "|" + bind("s") + execute + sync_},
		{"another close behind a close that was skipped", parse("s", "SELECT 'old'") + sync_ + "|" + parse("x", "SELEC") + closing("s") + sync_ + closing("t") + bind("s") + execute + sync_},
		{"function call keeps the unnamed", parse("", "SELECT 1") + sync_ + string(frame.Append(nil, 'F', "\x00\x00\x00\x59\x00\x00\x00\x00\x00\x00")) + bind("") + execute + sync_},
		{"many names", parse("a", "SELECT 1") + parse("b", "SELECT 2") + parse("c", "SELECT 3") + parse("d", "SELECT 4") + sync_ + "|" + bind("a") + execute + bind("b") + execute + bind("c") + execute + bind("d") + execute + sync_},
		{"sql prepared", query("BEGIN") + "|" + query("PREPARE s AS SELECT 7") + "|" + bind("s") + execute + sync_ + "|" + query("COMMIT")},
	} {
		t.Run(c.name, func(t *testing.T) {
			// Another client uses the only server between any two batches.
			h := open(t, Transaction, p, func(o *Options) { o.Pool.DefaultPoolSize, o.Pool.MaxPreparedStatements = 1, 2 })
			own, shared, other := direct.raw(), h.raw(), h.raw()
			defer own.Close()
			inTransaction := false
			for _, batch := range strings.Split(c.script, "|") {
				want, got := play(own, batch), play(shared, batch)
				if got != want {
					t.Errorf("the replies to %q are\n%s, want\n%s", batch, got, want)
				}
				if inTransaction = !strings.HasSuffix(got, "I]"); !inTransaction {
					play(other, parse("", "SELECT 'other'")+parse("s", "SELECT 'another'")+bind("s")+execute+closing("s")+sync_)
				}
			}
		})
	}
}

// play sends a batch, and returns the replies in words.
func play(r *raw, batch string) string {
	r.t.Helper()
	syncs := 0
	for b := []byte(batch); len(b) > 0; {
		kind, size := frame.Next(b)
		if kind == 'S' || kind == 'Q' || kind == 'F' {
			syncs++
		}
		b = b[size:]
	}
	r.send(batch)
	var out strings.Builder
	for syncs > 0 {
		kind, body, err := r.next()
		if err != nil {
			r.t.Fatalf("after %s: %v", out.String(), err)
		}
		out.WriteByte(kind)
		switch kind {
		case 'D', 'C', 'Z':
			out.WriteString("[" + strings.Trim(string(body), "\x00\x01") + "]")
		case 'E':
			for part := range strings.SplitSeq(string(body), "\x00") {
				if part != "" && (part[0] == 'S' || part[0] == 'C' || part[0] == 'M') {
					out.WriteString("[" + part + "]")
				}
			}
		}
		if kind == 'Z' {
			syncs--
		}
	}
	return out.String()
}

// TestANameThatMayBeTakenWaitsForItsBatchOnly has a name wait for replies, behind a batch whose own Sync waits for it.
func TestANameThatMayBeTakenWaitsForItsBatchOnly(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, size1)
	a, b := h.raw(), h.raw()
	a.send(parse("s1", "SELECT pg_sleep(0.2)") + query("SELECT pg_sleep(0.2)") + sync_)
	a.reply(2, patience)
	a.send(query("SELECT pg_sleep(0.3)") + parse("s2", "SELECT 1") + sync_ + parse("x", "SELECT 1") + parse("s2", "SELECT 2") + sync_)
	got := a.reply(3, patience)
	if strings.Count(got, "Z(") != 3 {
		t.Error("a hangs:", got)
	}
	a.Close()
	time.Sleep(300 * time.Millisecond)
	b.send(query("SELECT 42"))
	if got := b.reply(1, patience); !strings.Contains(got, "42") {
		t.Error("a is gone, and holds its server still: b gets", got)
	}
}

// TestWhoLeavesWhileANameWaitsLosesItsServer: nobody reads the client meanwhile.
func TestWhoLeavesWhileANameWaitsLosesItsServer(t *testing.T) {
	_, _, p := pg(t)
	config := selfSigned(t)
	for name, connect := range map[string]func(*house) *raw{
		"plain": (*house).raw, "TLS": func(h *house) *raw { return h.safely(t) }, "direct TLS": (*house).directly,
	} {
		t.Run(name, func(t *testing.T) {
			h := open(t, Transaction, p, func(o *Options) {
				size1(o)
				o.Accept.TLS, o.Accept.SSLMode = config, pgwire.SSLPrefer
			})
			a := connect(h)
			a.send(query("SELECT pg_sleep(60)") + parse("s", "SELECT 1") + sync_ + parse("s", "SELECT 2") + sync_)
			waitSent(t, h)
			a.Close()
			b := h.raw()
			b.send(query("SELECT 42"))
			if got := b.reply(1, 10*time.Second); !strings.Contains(got, "42") {
				t.Error(got)
			}
		})
	}
}

// TestAStalePlanIsPreparedAnew: a statement that does not fit its table any more fails once, as in a session that had it.
func TestAStalePlanIsPreparedAnew(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, size1)
	a := h.raw()
	a.send(query("CREATE TABLE st AS SELECT 1 AS i"))
	a.until('Z')
	use := parse("s", "SELECT * FROM st") + bind("s") + execute + closing("s") + sync_
	a.send(use)
	a.until('Z')
	exec(t, open(t, Session, p, nil).connect(), "ALTER TABLE st ADD j int") // through the same server, the reset would hide it
	if got := play(a, use); !strings.Contains(got, "0A000") {
		t.Error(got)
	}
	for _, r := range []*raw{a, h.raw()} {
		if got := play(r, closing("s")+use); strings.Contains(got, "E[") {
			t.Error(got)
		}
	}
}

// TestEvictionsThatAreSkippedAreMadeUpFor counts what is at the server.
func TestEvictionsThatAreSkippedAreMadeUpFor(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, func(o *Options) { size1(o); o.Pool.MaxPreparedStatements = 2 })
	a := h.raw()
	for i := range 20 {
		play(a, parse(fmt.Sprintf("a%d", i), fmt.Sprintf("SELECT %d", i))+sync_)
		play(a, parse("x", "SELEC")+parse("y", fmt.Sprintf("SELECT %d", 100+i))+parse("z", fmt.Sprintf("SELECT %d", 200+i))+sync_)
	}
	got := text(t, h.connect(), "SELECT count(*) FROM pg_prepared_statements")
	if len(got) != 1 || got > "4" {
		t.Errorf("%s statements at a server, where max_prepared_statements is 2", got)
	}
}

// TestANameThatIsFreedInItsBatchGetsNoOtherText: that it is free turns out too late, so the client loses its connection.
func TestANameThatIsFreedInItsBatchGetsNoOtherText(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, size1)
	a := h.raw()
	direct := h.connect()
	exec(t, direct, "CREATE TABLE old (i int)")
	play(a, parse("s", "INSERT INTO old VALUES (1)")+sync_)
	a.send(parse("", "DEALLOCATE ALL") + bind("") + execute + parse("s", "SELECT 'new'") + bind("s") + execute + sync_)
	if got := a.reply(1, patience); !strings.Contains(got, "08007") {
		t.Error(got)
	}
	if got := text(t, direct, "SELECT count(*) FROM old"); got != "0" {
		t.Error("the old text was executed")
	}
}

// TestWhatIsPreparedBehindAResetIsResetToo: statements that are not followed stay at the server until that.
func TestWhatIsPreparedBehindAResetIsResetToo(t *testing.T) {
	_, _, p := pg(t)
	for _, c := range []struct {
		name, text string
		most       int
	}{{"not followed", "SELECT 1", 0}, {"too long", "SELECT 1 /*" + strings.Repeat("x", maxKept) + "*/", 10}} {
		t.Run(c.name, func(t *testing.T) {
			h := open(t, Transaction, p, func(o *Options) { size1(o); o.Pool.MaxPreparedStatements = c.most })
			a := h.raw()
			play(a, query("DISCARD ALL")+parse("s", c.text)+sync_)
			if got := text(t, h.connect(), "SELECT count(*) FROM pg_prepared_statements"); got != "0" {
				t.Errorf("another client finds %s prepared statements", got)
			}
		})
	}
}
