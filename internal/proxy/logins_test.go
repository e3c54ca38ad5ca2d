package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/pgwire"
	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// asSuperuser runs SQL at a member itself, and returns the first column of the last row.
func (r *member) asSuperuser(t *testing.T, sql string) string {
	t.Helper()
	c, err := pgx.Connect(pgtest.Context(t), pgtest.ConnString(r.o, "postgres"))
	pgtest.Must(t, err)
	defer c.Close(context.Background())
	all, err := c.PgConn().Exec(pgtest.Context(t), sql).ReadAll()
	pgtest.Must(t, err)
	if last := all[len(all)-1]; len(last.Rows) > 0 {
		return string(last.Rows[0][0])
	}
	return ""
}

// TestAuthQueryThroughAChangeOfLeader: the proxy's file has the secret of auth_user alone; those of all others are looked up at the server
// that leads, and what a client proves logs it in there.
func TestAuthQueryThroughAChangeOfLeader(t *testing.T) {
	byPassword := func(*postgres.Settings, string) {} // as pgtest has it
	a, b := newRealWith(t, "db1", byPassword), newRealWith(t, "db2", byPassword)
	a.asSuperuser(t, "CREATE ROLE lookup LOGIN SUPERUSER PASSWORD 'looks'; CREATE ROLE app LOGIN PASSWORD 'right'; CREATE ROLE gone LOGIN PASSWORD 'right' VALID UNTIL '2001-01-01'")
	for _, role := range []string{"lookup", "app"} { // a replica has the same secrets
		secret := a.asSuperuser(t, "SELECT rolpassword FROM pg_authid WHERE rolname = '"+role+"'")
		b.asSuperuser(t, "CREATE ROLE "+role+" LOGIN SUPERUSER PASSWORD '"+secret+"'")
	}
	file := filepath.Join(t.TempDir(), "userlist.txt")
	pgtest.Must(t, os.WriteFile(file, []byte("\"lookup\" \"looks\"\n"), 0o600))
	c := pooledSettings("transaction")
	c.Auth = config.ProxyAuth{Type: "scram-sha-256", File: file, User: "lookup", Database: "postgres", Query: pgwire.DefaultAuthQuery, ClientMode: "disable", ServerMode: "disable"}
	w := start(t, c)
	w.show(a.leads(1, a, b))

	first, err := at(t, w.rw, "postgres", "app", "right")
	pgtest.Must(t, err)
	if port, err := portOn(first); err != nil || port != a.o.Port {
		t.Errorf("served by port %d, %v", port, err)
	}
	for _, refused := range []struct{ user, password string }{{"app", "wrong"}, {"nobody", "right"}, {"gone", "right"}} {
		if _, err := at(t, w.rw, "postgres", refused.user, refused.password); sqlState(err) != "28P01" {
			t.Errorf("%s with password %s: %v", refused.user, refused.password, err)
		}
	}

	// Whoever knocks costs the server no process of its own.
	processes, begun := map[string]bool{}, time.Now()
	for n := range 20 {
		if _, err := at(t, w.rw, "postgres", fmt.Sprintf("nobody%d", n), "right"); sqlState(err) != "28P01" {
			t.Errorf("a user that does not exist: %v", err)
		}
		for _, pid := range strings.Fields(a.asSuperuser(t, "SELECT coalesce(string_agg(pid::text, ' '), '') FROM pg_stat_activity WHERE usename = 'lookup'")) {
			processes[pid] = true
		}
	}
	if most := 2 + int(time.Since(begun)/(5*time.Second)); len(processes) > most {
		t.Errorf("20 lookups, one after another, had %d sessions, want at most %d: %v", len(processes), most, processes)
	}

	claimed := b.leads(2, a, b)
	claimed.Term.State = cluster.TermClaimed
	w.show(claimed)
	w.until("nobody is admitted", func(s Stats) bool { return s.Leader.Term == 2 && s.Leader.State == Checking })
	type login struct {
		conn *pgx.Conn
		err  error
	}
	came := make(chan login, 1)
	go func() {
		conn, err := at(t, w.rw, "postgres", "app", "right")
		came <- login{conn, err}
	}()
	select {
	case l := <-came:
		t.Fatalf("a login while there is no server: %v", l.err)
	case <-time.After(500 * time.Millisecond):
	}
	w.show(b.leads(2, a, b))
	second := <-came
	pgtest.Must(t, second.err)
	for _, conn := range []*pgx.Conn{first, second.conn} {
		if port, err := portOn(conn); err != nil || port != b.o.Port {
			t.Errorf("served by port %d, %v, want %d", port, err, b.o.Port)
		}
	}
}

// secured is a member that is reached by TLS only, with a certificate for that host, and lets in by passwords.
func secured(t *testing.T, name string, ca *pgtest.Authority, host string) *member {
	t.Helper()
	return newRealWith(t, name, func(s *postgres.Settings, dir string) {
		cert, key := ca.Write(dir, "server", ca.Issue("server", host))
		for key, value := range map[string]string{"ssl": "on", "ssl_cert_file": cert, "ssl_key_file": key} {
			s.Parameters[key] = value
		}
		s.HBA = append([]string{"hostssl all u_md5 127.0.0.1/32 md5", "hostnossl all u_scram,u_plain,u_md5,u_cert 127.0.0.1/32 reject"}, s.HBA...)
	})
}

// TestEachWayToLogIn goes through rules of a file, with TLS that is verified on both sides: what a client has shown logs it in at the server.
func TestEachWayToLogIn(t *testing.T) {
	ca, dir := pgtest.NewAuthority(t), t.TempDir()
	a, elsewhere := secured(t, "db1", ca, "127.0.0.1"), secured(t, "db2", ca, "db2.example")
	a.asSuperuser(t, "CREATE ROLE u_scram LOGIN PASSWORD 'right'; CREATE ROLE u_plain LOGIN PASSWORD 'right'; CREATE ROLE u_cert LOGIN PASSWORD 'its own';"+
		" SET password_encryption = md5; CREATE ROLE u_md5 LOGIN PASSWORD 'right'")
	stored := func(role string) string {
		return a.asSuperuser(t, "SELECT rolpassword FROM pg_authid WHERE rolname = '"+role+"'")
	}
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		pgtest.Must(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	cert, key := ca.Write(dir, "proxy", ca.Issue("proxy", "127.0.0.1"))
	c := pooledSettings("transaction")
	c.TLS = config.TLS{CAFile: ca.Root(dir), CertFile: cert, KeyFile: key}
	c.ServerTLS.CAFile = c.TLS.CAFile
	c.Auth = config.ProxyAuth{
		Type: "hba", ClientMode: "prefer", ServerMode: "verify-full",
		HBAFile: file("hba.conf", "hostssl all u_cert all cert\nhostssl all u_scram all scram-sha-256\nhostssl all u_plain all password\nhostssl all u_md5 all md5\n"),
		File: file("userlist.txt", fmt.Sprintf("\"u_cert\" \"its own\"\n\"u_scram\" \"%s\"\n\"u_plain\" \"%s\"\n\"u_md5\" \"%s\"\n",
			stored("u_scram"), stored("u_plain"), stored("u_md5"))),
	}
	w := start(t, c)
	w.show(a.leads(1, a, elsewhere))
	verified := "sslmode=verify-full sslrootcert=" + c.TLS.CAFile
	shows := func(name string) string {
		cert, key := ca.Write(dir, "client-"+name, ca.Issue(name))
		return verified + " sslcert=" + cert + " sslkey=" + key
	}
	for _, l := range []struct{ user, password, more, code string }{
		{"u_scram", "right", verified, ""}, {"u_scram", "wrong", verified, "28P01"}, {"u_scram", "right", "sslmode=disable", "28000"},
		{"u_plain", "right", verified, ""}, {"u_plain", "wrong", verified, "28P01"},
		{"u_md5", "right", verified, ""}, {"u_md5", "wrong", verified, "28P01"},
		{"u_cert", "", shows("u_cert"), ""}, {"u_cert", "", shows("u_other"), "28000"}, {"u_cert", "its own", verified, "28000"},
		{"u_nobody", "right", verified, "28000"},
	} {
		conn, err := at(t, w.rw, "postgres", l.user, l.password, l.more)
		if sqlState(err) != l.code || (err == nil) != (l.code == "") {
			t.Errorf("%s with %q, %s: %v, want %q", l.user, l.password, l.more, err, l.code)
			continue
		}
		if err != nil {
			continue
		}
		var user string
		var encrypted bool
		err = conn.QueryRow(pgtest.Context(t), "SELECT current_user, ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").Scan(&user, &encrypted)
		if err != nil || user != l.user || !encrypted {
			t.Errorf("%s is %q at the server, encrypted %v, %v", l.user, user, encrypted, err)
		}
	}
	w.show(elsewhere.leads(2, a, elsewhere))
	w.until("db2 is admitted", func(s Stats) bool { return s.Leader.Term == 2 && s.Leader.State == Admitted })
	conn, err := at(t, w.rw, "postgres", "u_scram", "right", verified)
	pgtest.Must(t, err)
	if _, err := portOn(conn); sqlState(err) != "08P01" || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a server with a certificate for another host: %v", err)
	}
}

// TestServersThatWantACertificate: the proxy shows them that of server_tls_cert_file; whom it does not help is told why.
func TestServersThatWantACertificate(t *testing.T) {
	servers, proxies, dir := pgtest.NewAuthority(t), pgtest.NewAuthority(t), t.TempDir()
	a := newRealWith(t, "db1", func(s *postgres.Settings, data string) {
		cert, key := servers.Write(data, "server", servers.Issue("server", "127.0.0.1"))
		for key, value := range map[string]string{"ssl": "on", "ssl_cert_file": cert, "ssl_key_file": key, "ssl_ca_file": proxies.Root(data)} {
			s.Parameters[key] = value
		}
		s.HBA = append([]string{"hostssl all app 127.0.0.1/32 trust clientcert=verify-ca"}, s.HBA...)
	})
	a.asSuperuser(t, "CREATE ROLE app LOGIN")
	good, expired := proxies.Issue("proxy"), proxies.IssueUntil(time.Now().Add(-time.Hour), "proxy")
	for name, tt := range map[string]struct {
		shown *tls.Certificate
		told  string
	}{
		"good": {&good, ""}, "none": {nil, "server login failed: connection requires a valid client certificate"},
		"expired": {&expired, "the server does not accept the certificate of this proxy"},
	} {
		t.Run(name, func(t *testing.T) {
			c := pooledSettings("transaction")
			c.Auth.ServerMode = "verify-full"
			c.ServerTLS.CAFile = servers.Root(dir)
			if tt.shown != nil {
				c.ServerTLS.CertFile, c.ServerTLS.KeyFile = proxies.Write(dir, name, *tt.shown)
			}
			w := start(t, c)
			w.show(a.leads(1, a))
			conn, err := at(t, w.rw, "postgres", "app", "")
			if err == nil {
				_, err = portOn(conn)
			}
			if tt.told == "" {
				pgtest.Must(t, err)
			} else if sqlState(err) != "08P01" || !strings.Contains(err.Error(), tt.told) {
				t.Errorf("got %v, want %q", err, tt.told)
			}
		})
	}
}

// TestClientsOfTheAuthorityOnly: with client_tls_sslmode verify-ca nobody else comes as far as a password.
func TestClientsOfTheAuthorityOnly(t *testing.T) {
	ca, strangers, dir := pgtest.NewAuthority(t), pgtest.NewAuthority(t), t.TempDir()
	a := newReal(t, "db1")
	cert, key := ca.Write(dir, "proxy", ca.Issue("proxy", "127.0.0.1"))
	c := pooledSettings("transaction")
	c.TLS = config.TLS{CAFile: ca.Root(dir), CertFile: cert, KeyFile: key}
	c.Auth.ClientMode = "verify-ca"
	w := start(t, c)
	w.show(a.leads(1, a))
	for name, l := range map[string]struct {
		of *pgtest.Authority
		in bool
	}{"ours": {ca, true}, "strangers": {strangers, false}, "none": {nil, false}} {
		more := "sslmode=verify-full sslrootcert=" + c.TLS.CAFile
		if l.of != nil {
			cert, key := l.of.Write(dir, name, l.of.Issue("anybody"))
			more += " sslcert=" + cert + " sslkey=" + key
		}
		if _, err := at(t, w.rw, "postgres", "postgres", "", more); (err == nil) != l.in {
			t.Errorf("%s: %v", name, err)
		}
	}
}
