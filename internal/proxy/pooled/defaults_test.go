package pooled

import (
	"strings"
	"testing"

	"github.com/havenha/haven/internal/postgres/pgtest"
)

// TestClientsAreToldTheSettingsOfTheDay changes the settings of a role after clients have been told others.
func TestClientsAreToldTheSettingsOfTheDay(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, func(o *Options) { o.Pool.DefaultPoolSize = 2 })
	old := h.connect()
	exec(t, old, "ALTER ROLE postgres SET TimeZone = 'Asia/Tokyo'")
	const wish = "options='-c IntervalStyle=iso_8601'"
	h.connect(wish)
	// One more server connection, which has the new settings; the older one stays.
	exec(t, old, "BEGIN")
	text(t, h.connect(), "SELECT 1")
	for _, more := range []string{"", wish} {
		c := h.connect(more)
		if got := c.PgConn().ParameterStatus("TimeZone"); got != "Asia/Tokyo" {
			t.Errorf("with %q a new client is told %q", more, got)
		}
		if got := text(t, c, "SHOW TimeZone"); got != "Asia/Tokyo" {
			t.Errorf("with %q a new client has %q", more, got)
		}
	}
	if got := text(t, old, "SHOW TimeZone"); got == "Asia/Tokyo" {
		t.Error("a setting has changed under a client")
	}
	exec(t, old, "COMMIT")
	pgtest.Eventually(t, "both connections are free", func() error {
		if h.door.Snapshot()[0].ServersActive != 0 {
			return errUnasked
		}
		return nil
	})
	if got := text(t, h.connect("options='-c DateStyle=German'"), "SHOW TimeZone"); got != "Asia/Tokyo" {
		t.Errorf("by the older connection a new client has %q", got)
	}
}

// TestAnyApplicationNameLogsInAtOnce: names with a process in them are as many as clients, and none has to be tried at a server.
func TestAnyApplicationNameLogsInAtOnce(t *testing.T) {
	_, _, p := pg(t)
	h := open(t, Transaction, p, size1)
	busy := h.connect()
	exec(t, busy, "BEGIN")
	for given, want := range map[string]string{"worker-17": "worker-17", "gr\u00fcn": "gr??n", strings.Repeat("n", 100): strings.Repeat("n", maxAppName)} {
		c := h.connect("application_name=" + given)
		if got := c.PgConn().ParameterStatus("application_name"); got != want {
			t.Errorf("%q: the client is told %q", given, got)
		}
		exec(t, busy, "COMMIT")
		if got := text(t, c, "SHOW application_name"); got != want {
			t.Errorf("%q: the server has %q", given, got)
		}
		exec(t, busy, "BEGIN")
	}
}
