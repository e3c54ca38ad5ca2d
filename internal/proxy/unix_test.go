package proxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/postgres/pgtest"
	"github.com/havenha/haven/internal/proxy/listen"
)

// psql runs a statement over the Unix socket in dir, and returns what psql says.
func psql(t *testing.T, dir, as, sql string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "psql", "-XAtw", "-h", dir, "-p", "6432", "-U", as, "-d", "postgres", "-c", sql)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// TestPsqlOverAUnixSocket: in mode transaction by peer, which lets everybody in under their own name only; in mode tcp the
// server decides, for which the client comes from the proxy's address.
func TestPsqlOverAUnixSocket(t *testing.T) {
	if _, err := exec.LookPath("psql"); err != nil {
		t.Skip("psql is not there")
	}
	me, err := user.Current()
	pgtest.Must(t, err)
	a := newReal(t, "db1")
	c := pooledSettings("transaction")
	rules := filepath.Join(t.TempDir(), "hba.conf")
	pgtest.Must(t, os.WriteFile(rules, []byte("local all all peer\nhost all postgres 127.0.0.1/32 trust\nhost all all all reject\n"), 0o600))
	c.Auth.Type, c.Auth.HBAFile = "hba", rules
	pooledDir, plainDir := t.TempDir(), t.TempDir()
	extra := c.Listeners[0]
	extra.Listen, extra.SocketMode = pooledDir+":6432", 0o700
	plain := settings().Listeners[0]
	plain.Listen = plainDir + ":6432"
	c.Listeners = append(c.Listeners, extra, plain)
	w := start(t, c)
	w.show(a.leads(1, a))
	if me.Username != "postgres" {
		_, err := dialPooled(t, w.rw).Exec(context.Background(), `CREATE ROLE "`+me.Username+`" LOGIN`)
		pgtest.Must(t, err)
	}
	const sql = "SELECT current_user || ' ' || (inet_client_addr() IS NOT NULL)"
	for _, dir := range []string{pooledDir, plainDir} {
		if got, err := psql(t, dir, me.Username, sql); got != me.Username+" true" || err != nil {
			t.Errorf("%s: %q, %v", dir, got, err)
		}
	}
	if got, err := psql(t, pooledDir, me.Username+"x", sql); err == nil || !strings.Contains(got, "peer authentication failed") {
		t.Errorf("under the name of another: %q, %v", got, err)
	}
	if info, err := os.Lstat(listen.SocketFile(pooledDir, "6432")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	w.end()
	if _, err := os.Lstat(listen.SocketFile(pooledDir, "6432")); !os.IsNotExist(err) {
		t.Errorf("after the end of the proxy: %v", err)
	}
}

// TestSessionsOfAUnixSocketEndWithTheirLeader, are counted, and are closed when they are idle, as those of a port are.
func TestSessionsOfAUnixSocketEndWithTheirLeader(t *testing.T) {
	c := settings()
	dir := t.TempDir()
	extra := c.Listeners[0]
	extra.Listen = dir + ":1"
	c.Listeners = append(c.Listeners, extra)
	w := start(t, c)
	a := leading(t, w)
	b := newFake(t, "db2")
	conn := atSocket(t, dir)
	if name, err := conn.ReadString('\n'); name != "db1\n" || err != nil {
		t.Fatal(name, err)
	}
	io.WriteString(conn.conn, "ping\n")
	if got, err := conn.ReadString('\n'); got != "ping\n" || err != nil {
		t.Fatal(got, err)
	}
	w.until("bytes are counted both ways", func(s Stats) bool { return s.Listeners[2].In >= 13 && s.Listeners[2].Out >= 9 })
	b.primary.Store(200)
	w.show(scene(b, 2, cluster.TermPromoted, a, b))
	if _, err := io.Copy(io.Discard, conn); isTimeout(err) {
		t.Fatal("the session of the former leader goes on")
	}
	next := atSocket(t, dir)
	if name, err := next.ReadString('\n'); name != "db2\n" || err != nil {
		t.Fatal(name, err)
	}
	changed := *c
	changed.Listeners = append(changed.Listeners[:2:2], extra)
	changed.Listeners[2].IdleTimeout = 50 * time.Millisecond
	if err := w.proxy.Reload(&changed); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, next); isTimeout(err) {
		t.Fatal("an idle session goes on")
	}
}

// local is a client at a Unix socket.
type local struct {
	*bufio.Reader
	conn net.Conn
}

func atSocket(t *testing.T, dir string) *local {
	t.Helper()
	conn, err := net.Dial("unix", listen.SocketFile(dir, "1"))
	pgtest.Must(t, err)
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	_, err = io.WriteString(conn, "hello yo")
	pgtest.Must(t, err)
	return &local{bufio.NewReader(conn), conn}
}

func isTimeout(err error) bool {
	return os.IsTimeout(err)
}
