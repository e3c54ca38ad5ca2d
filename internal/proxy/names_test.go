package proxy

import (
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestNamesThatAreNotUTF8AreShown: clients may ask for databases and users of any name, PostgreSQL may have such ones, and the
// statistics port shows them without an end to the process. Names that look the same then are shown as one pool.
func TestNamesThatAreNotUTF8AreShown(t *testing.T) {
	w := start(t, pooledSettings("transaction"))
	for _, name := range []string{"\xff", "\xfe", "fine"} {
		knock(t, w.rw, "u"+name, "d"+name)
	}
	w.until("three clients wait", func(s Stats) bool { return s.Listeners[0].Waiting == 3 })
	for _, path := range []string{"/metrics", "/json", "/"} {
		code, body := fetch(t, "http://"+w.stats+path, "")
		if code != http.StatusOK || !strings.Contains(body, "d\uFFFD") || strings.ToValidUTF8(body, "") != body {
			t.Errorf("%s: %d\n%s", path, code, body)
		}
		if path != "/metrics" {
			continue
		}
		for _, line := range []string{
			`pgbouncer_pools_client_waiting_connections{database="d` + "\uFFFD" + `",listener="127.0.0.1:0",scope="demo",user="u` + "\uFFFD" + `"} 2`,
			`pgbouncer_pools_client_waiting_connections{database="dfine",listener="127.0.0.1:0",scope="demo",user="ufine"} 1`,
		} {
			if !slices.Contains(strings.Split(body, "\n"), line) {
				t.Errorf("without %s:\n%s", line, body)
			}
		}
	}
}

// knock begins to log in, and does not wait for the answer.
func knock(t *testing.T, address, user, database string) net.Conn {
	t.Helper()
	conn := dialed(t, address)
	body := "\x00\x03\x00\x00user\x00" + user + "\x00database\x00" + database + "\x00\x00"
	if _, err := conn.Write(append([]byte{0, 0, 0, byte(len(body) + 4)}, body...)); err != nil {
		t.Fatal(err)
	}
	return conn
}
