package pooled

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/pgwire/frame"
)

// rows reads up to a row that has that text, and on to the end of its reply.
func (r *raw) rows(want string) (kinds string) {
	r.t.Helper()
	for found := false; ; {
		kind, body, err := r.next()
		if err != nil {
			r.t.Fatalf("no row with %q after %q: %v", want, kinds, err)
		}
		kinds += string(kind)
		if kind == 'D' {
			found = strings.Contains(string(body), want)
			if !found {
				r.t.Fatalf("a row %q, want %q", body, want)
			}
		}
		if kind == 'Z' && found {
			return kinds
		}
	}
}

// TestSyncsAmongTheDataOfACopyThatFails: the server answers those that COPY has not read. No reply is taken for another's.
func TestSyncsAmongTheDataOfACopyThatFails(t *testing.T) {
	_, _, p := pg(t)
	setup := open(t, Transaction, p, nil).connect()
	exec(t, setup, "CREATE TABLE t (i int); CREATE TABLE refusing (i int); CREATE VIEW v AS SELECT 1 AS i")
	exec(t, setup, "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no'; END$$")
	exec(t, setup, "CREATE TRIGGER no BEFORE INSERT ON refusing EXECUTE FUNCTION no()")
	const done = "c\x00\x00\x00\x04"
	bad := string(frame.Append(nil, 'd', "bad\n"))
	extended := func(table string) string {
		return parse("", "COPY "+table+" FROM STDIN") + bind("") + execute
	}
	mine := query("SELECT 'mine' FROM pg_sleep(0.5)")
	prepared := parse("s", "SELECT 'mine' FROM pg_sleep(0.5)") + bind("s") + execute + sync_
	for _, c := range []struct{ name, first, then string }{
		{"simple", query("COPY t FROM STDIN") + bad + sync_ + done, mine},
		{"simple, Sync while copying", query("COPY t FROM STDIN"), bad + sync_ + done + mine},
		{"simple, Syncs on both sides", query("COPY t FROM STDIN") + sync_ + bad + sync_ + sync_ + done, sync_ + mine},
		{"simple, a view", query("COPY v FROM STDIN") + sync_ + bad + done, mine},
		{"simple, a prepared statement behind", query("COPY t FROM STDIN") + bad + sync_ + done, prepared},
		{"extended", extended("t") + sync_ + bad + done + sync_, mine},
		{"extended, as libpq", extended("t") + sync_, bad + done + sync_ + mine},
		{"extended, a view", extended("v") + sync_ + done + sync_, mine},
		{"extended, a view, as libpq", extended("v") + sync_, bad + done + sync_ + mine},
		{"extended, a trigger", extended("refusing") + sync_ + bad + sync_ + done + sync_, mine},
		{"extended, a prepared statement behind", extended("refusing") + sync_ + done + sync_, prepared},
	} {
		for _, pause := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, pause %v", c.name, pause), func(t *testing.T) {
				h := open(t, Transaction, p, size1)
				a, b := h.raw(), h.raw()
				a.send(c.first)
				if pause {
					time.Sleep(100 * time.Millisecond)
				}
				a.send(c.then)
				for i := range 3 {
					token := fmt.Sprintf("b%d", i)
					b.send(query("SELECT '" + token + "'"))
					b.rows(token)
				}
				if kinds := a.rows("mine"); !strings.Contains(kinds, "E") {
					t.Errorf("a has %s", kinds)
				}
				a.send(query("SELECT 'again'"))
				a.rows("again")
			})
		}
	}
}
