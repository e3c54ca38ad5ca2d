package api

import (
	"errors"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
)

// TestFailsafeAnswers: the answers to a leader without the store are Patroni's, whatever the word costs.
func TestFailsafeAnswers(t *testing.T) {
	b := newBench(t, standby(t), nil, nil)
	var asked string
	var ttl time.Duration
	answer := func(lsn cluster.LSN, err error) {
		b.server.opt.Pledge = func(to string, length time.Duration) (cluster.LSN, error) { asked, ttl = to, length; return lsn, err }
	}
	const body = `{"name": "db1", "conn_url": "postgres://10.0.0.1/postgres", "api_url": "http://10.0.0.1:8008/patroni", "slots": {"db2": 900}, "ttl": 7.5}`
	for _, c := range []struct {
		lsn  cluster.LSN
		err  error
		code int
		text string
	}{
		{900, nil, 200, "Accepted"},
		{0, ha.ErrFailsafeOff, 502, "failsafe mode is off"},
		{0, ha.ErrPledgeRefused, 500, "Running as a leader"},
		{0, errors.New("disk full"), 500, "disk full"},
	} {
		answer(c.lsn, c.err)
		code, text, h := b.do("POST", "/failsafe", body)
		if code != c.code || text != c.text || asked != "db1" || ttl != 7500*time.Millisecond {
			t.Errorf("%d %q to %s for %s, want %d %q", code, text, asked, ttl, c.code, c.text)
		}
		if c.lsn > 0 && h.Get("lsn") != "900" {
			t.Errorf("lsn is %q", h.Get("lsn"))
		}
	}
	answer(900, nil)
	for _, other := range []string{`{"name": "db1", "member": "db9"}`, `{"name": "db1", "scope": "other"}`} {
		if code, _, _ := b.do("POST", "/failsafe", other); code != 500 {
			t.Errorf("%s, which means another: %d", other, code)
		}
	}
	if code, _, _ := b.do("POST", "/failsafe", `{"name": "db1", "member": "db2", "scope": "shop"}`); code != 200 {
		t.Errorf("a question that names us: %d", code)
	}
	if code, _, _ := b.do("POST", "/failsafe", `{"name": 3}`); code != 400 {
		t.Errorf("a body without a name: %d", code)
	}
	b.server.opt.Pledge = nil
	if code, _, _ := b.do("POST", "/failsafe", body); code != 502 {
		t.Errorf("a node without a database: %d", code)
	}
}
