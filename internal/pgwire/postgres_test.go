package pgwire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/havenha/haven/internal/postgres/pgtest"
)

// TestAgainstPostgres runs everything that needs a real server on each that there is.
func TestAgainstPostgres(t *testing.T) {
	for _, bin := range pgtest.BinDirs() {
		version, err := exec.Command(filepath.Join(bin, "postgres"), "--version").Output()
		pgtest.Must(t, err)
		t.Run(strings.Fields(string(version))[2], func(t *testing.T) { againstPostgres(t, startServer(t, bin)) })
	}
}

func againstPostgres(t *testing.T, s *server) {
	for _, c := range []struct {
		name string
		run  func(*testing.T, *server)
	}{
		{"login by each method", testLoginMethods},
		{"login over TLS", testLoginTLS},
		{"login refused", testLoginRefused},
		{"passwords that SASLprep changes", testSASLprep},
		{"auth_query", testQuerySecret},
		{"cancel", testCancel},
		{"clients by each method", testClientMethods},
		{"clients over TLS", testClientTLS},
		{"psql", testPsql},
		{"client certificates", testClientCertificates},
	} {
		t.Run(c.name, func(t *testing.T) {
			one := *s
			one.t = t
			c.run(t, &one)
		})
	}
}

func (s *server) login(o LoginOptions) (*Server, error) {
	s.t.Helper()
	o.Database = "postgres"
	return Login(pgtest.Context(s.t), s.dial(), o)
}

func testLoginMethods(t *testing.T, s *server) {
	md5 := Credential{MD5: s.stored("u_md5")}
	password := Credential{Password: goodPassword}
	v, ok := parseVerifier(s.stored("u_scram"))
	if !ok {
		t.Fatal("the server stores no SCRAM secret")
	}
	keys := Credential{SCRAM: keysOf(goodPassword, v.salt, v.iterations)}
	for _, c := range []struct {
		user       string
		credential Credential
	}{{"u_trust", Credential{}}, {"u_md5", md5}, {"u_md5", password}, {"u_pass", password}, {"u_scram", password}, {"u_scram", keys},
		{"u_prep", Credential{Password: kelvin}}} {
		for _, version := range []Version{0, Version32} {
			one, err := s.login(LoginOptions{User: c.user, Credential: c.credential, Version: version,
				Params: []Param{{"application_name", "wire"}, {"options", "-c statement_timeout=7s"}}})
			if err != nil {
				t.Errorf("%s by %s: %v", c.user, c.credential, err)
				continue
			}
			checkSession(t, s, one, version)
		}
	}
}

// checkSession looks at what the login brought. PostgreSQL 18 and later speak 3.2, if they are asked for it.
func checkSession(t *testing.T, s *server, one *Server, asked Version) {
	t.Helper()
	reported := map[string]string{}
	for _, p := range one.Params {
		reported[p.Name] = p.Value
	}
	if reported["application_name"] != "wire" || reported["server_version"] == "" {
		t.Errorf("reported: %v", reported)
	}
	spoken, key := Version30, 4
	if major, _, _ := strings.Cut(reported["server_version"], "."); asked == Version32 && major >= "18" {
		spoken, key = Version32, 32
	}
	if one.Version != spoken || one.Key == nil || len(one.Key.Secret) != key {
		t.Errorf("version %s, key %v", one.Version, one.Key)
	}
	rows := s.exec(fmt.Sprintf("select 1 from pg_stat_activity where pid = %d", one.Key.PID))
	if len(rows) != 1 {
		t.Errorf("no session has the process id %d", one.Key.PID)
	}
	pgtest.Must(t, one.Terminate())
}

func testLoginTLS(t *testing.T, s *server) {
	trusting := &tls.Config{RootCAs: s.ca.Pool}
	stranger := &tls.Config{RootCAs: pgtest.NewAuthority(t).Pool}
	certified := &tls.Config{RootCAs: s.ca.Pool, Certificates: []tls.Certificate{s.ca.Issue("u_cert")}}
	password := Credential{Password: goodPassword}
	for _, c := range []struct {
		name      string
		o         LoginOptions
		encrypted bool
		fails     string
	}{
		{"disable", LoginOptions{User: "u_scram", SSLMode: SSLDisable, Credential: password}, false, ""},
		{"allow", LoginOptions{User: "u_tls", SSLMode: SSLAllow, Credential: password}, true, ""},
		{"prefer", LoginOptions{User: "u_tls", SSLMode: SSLPrefer, Credential: password}, true, ""},
		{"require, unknown authority", LoginOptions{User: "u_tls", SSLMode: SSLRequire, TLS: stranger, Credential: password}, true, ""},
		{"verify-ca, other name", LoginOptions{User: "u_tls", SSLMode: SSLVerifyCA, TLS: trusting, Host: "other", Credential: password}, true, ""},
		{"verify-ca, unknown authority", LoginOptions{User: "u_tls", SSLMode: SSLVerifyCA, TLS: stranger, Credential: password}, false, "unknown authority"},
		{"verify-full", LoginOptions{User: "u_tls", SSLMode: SSLVerifyFull, TLS: trusting, Host: "db.example", Credential: password}, true, ""},
		{"verify-full, other name", LoginOptions{User: "u_tls", SSLMode: SSLVerifyFull, TLS: trusting, Host: "other", Credential: password}, false, "not other"},
		{"verify-full, no name", LoginOptions{User: "u_tls", SSLMode: SSLVerifyFull, TLS: trusting, Credential: password}, false, "certificate"},
		{"our certificate", LoginOptions{User: "u_cert", SSLMode: SSLRequire, TLS: certified}, true, ""},
		{"MD5", LoginOptions{User: "u_md5", SSLMode: SSLRequire, Credential: password}, true, ""},
	} {
		one, err := s.login(c.o)
		if c.fails != "" || err != nil {
			if c.fails == "" || err == nil || !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%s: %v, want %q", c.name, err, c.fails)
			}
			continue
		}
		rows := s.exec(fmt.Sprintf("select ssl from pg_stat_ssl where pid = %d", one.Key.PID))
		if (rows[0][0] == "t") != c.encrypted || (one.TLS != nil) != c.encrypted {
			t.Errorf("%s: pg_stat_ssl says %s", c.name, rows[0][0])
		}
		pgtest.Must(t, one.Terminate())
	}
}

func testLoginRefused(t *testing.T, s *server) {
	var said *Error
	_, err := s.login(LoginOptions{User: "u_scram", Credential: Credential{Password: "wrong"}})
	if !errors.As(err, &said) || said.Code != "28P01" || said.Severity != "FATAL" || len(said.Other) == 0 {
		t.Errorf("wrong password: %v, %+v", err, said)
	}
	_, err = s.login(LoginOptions{User: "u_tls", Credential: Credential{Password: goodPassword}})
	if !errors.As(err, &said) || said.Code != "28000" {
		t.Errorf("rejected by pg_hba.conf: %v", err)
	}
	_, err = Login(pgtest.Context(t), s.dial(), LoginOptions{User: "u_trust", Database: "nowhere"})
	if !errors.As(err, &said) || said.Code != "3D000" {
		t.Errorf("no such database: %v", err)
	}
	other := keysOf(goodPassword, []byte("another salt...."), 4096)
	for _, c := range []LoginOptions{
		{User: "u_scram"}, {User: "u_md5"}, {User: "u_pass"},
		{User: "u_scram", Credential: Credential{SCRAM: other}}, {User: "u_scram", Credential: Credential{MD5: s.stored("u_md5")}},
		{User: "u_pass", Credential: Credential{SCRAM: other}}, {User: "u_md5", Credential: Credential{SCRAM: other}},
	} {
		if _, err := s.login(c); !errors.Is(err, ErrCredential) {
			t.Errorf("%s by %s: %v", c.User, c.Credential, err)
		}
	}
}

// testSASLprep holds our normalization against the server's: it makes the secret, we check the password.
func testSASLprep(t *testing.T, s *server) {
	for _, password := range []string{"plain", "I\u00adX", "\u2168", "a\u0301b", "x\u200by\u2003z", "\u0627\u0031", "\u0627\u0031\u0628", "ctrl\u0007", "\u00a0",
		"\u00ad", "\U0001f600\ufb01", "n\u1e0d\u0307", "\u3000wide\uff21", "\ufb01", "a\u0627", "\u0221\ufb01", "\u00e9", "\ue000\ufb01", "caf\u00e9\u200d"} {
		s.exec("alter role u_none password '" + password + "'")
		if !ParseSecret(s.stored("u_none")).matches("u_none", password) {
			t.Errorf("%+q does not match what the server made of it", password)
		}
	}
	s.exec("alter role u_none password null")
}

func testQuerySecret(t *testing.T, s *server) {
	ctx := pgtest.Context(t)
	one, err := s.login(LoginOptions{User: s.o.Superuser.Username, Credential: Credential{Password: s.o.Superuser.Password}})
	pgtest.Must(t, err)
	defer one.Terminate()
	for user, kind := range map[string]string{"u_scram": "SCRAM", "u_md5": "MD5", "u_none": "none"} {
		secret, err := QuerySecret(ctx, one, DefaultAuthQuery, user)
		if err != nil || secret.kind() != kind {
			t.Errorf("%s: %v, %v, want kind %s", user, secret, err, kind)
		}
	}
	if _, err := QuerySecret(ctx, one, DefaultAuthQuery, "nobody' or true --\x00u_md5"); !errors.Is(err, ErrUnknownUser) {
		t.Errorf("unknown user: %v", err)
	}
	var said *Error
	if _, err := QuerySecret(ctx, one, "select nothing from nowhere where $1 = ''", "u"); !errors.As(err, &said) || said.Code != "42P01" {
		t.Errorf("a faulty query: %v", err)
	}
	if _, err := QuerySecret(ctx, one, "select $1::text", "u"); !errors.As(err, &said) || said.Severity != "ERROR" {
		t.Errorf("a query of one column: %v", err)
	}
	if _, err := QuerySecret(ctx, one, "select set_config('application_name', $1, false), 'md5'", "renamed"); err != nil {
		t.Errorf("a query after failed ones: %v", err)
	}
	if !strings.Contains(fmt.Sprint(one.Params), "renamed") {
		t.Errorf("a change of a setting was not noted: %v", one.Params)
	}
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if _, err := QuerySecret(short, one, "select $1::text, pg_sleep(10)::text", "u"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a slow query: %v", err)
	}
}

func testCancel(t *testing.T, s *server) {
	for _, mode := range []SSLMode{SSLDisable, SSLRequire} {
		one, err := s.login(LoginOptions{User: "u_trust"})
		pgtest.Must(t, err)
		_, err = one.Conn.Write(finish(nil, func(b []byte) []byte { return text(b, "select pg_sleep(60)") }, 'Q'))
		pgtest.Must(t, err)
		pgtest.Eventually(t, "a running statement", func() error {
			if len(s.exec(fmt.Sprintf("select 1 from pg_stat_activity where pid = %d and wait_event = 'PgSleep'", one.Key.PID))) == 0 {
				return errors.New("not yet")
			}
			return nil
		})
		pgtest.Must(t, Cancel(pgtest.Context(t), s.dial(), *one.Key, CancelOptions{SSLMode: mode}))
		for {
			kind, body, err := readMessage(one.Conn, maxReply)
			pgtest.Must(t, err)
			if kind != 'E' {
				continue
			}
			if e, err := ParseError(body); err != nil || e.Code != "57014" {
				t.Errorf("mode %s: %v, %v", mode, e, err)
			}
			break
		}
		pgtest.Must(t, one.Terminate())
	}
	nobody := CancelKey{PID: 1, Secret: make([]byte, 4)}
	pgtest.Must(t, Cancel(pgtest.Context(t), s.dial(), nobody, CancelOptions{}))
}

// testClientMethods lets clients in by each method and each kind of secret, through to the server.
func testClientMethods(t *testing.T, s *server) {
	escaped := strings.ReplaceAll(goodPassword, `"`, `""`)
	file := users(t, fmt.Sprintf("\"u_scram\" \"%s\"\n\"u_md5\" \"%s\"\n\"u_pass\" \"%s\"\n\"u_trust\" \"%s\"\n\"u_prep\" \"%s\"\n\"u_none\" \"\"\n",
		s.stored("u_scram"), s.stored("u_md5"), escaped, s.stored("u_scram"), s.stored("u_prep")))
	for _, c := range []struct {
		method Method
		user   string
		fails  bool
	}{
		{Trust, "u_trust", false}, {Trust, "u_pass", false}, {Trust, "u_md5", false}, {Trust, "u_scram", true},
		{Password, "u_scram", false}, {Password, "u_md5", false}, {Password, "u_pass", false}, {Password, "u_prep", false}, {Password, "u_none", true},
		{MD5, "u_scram", false}, {MD5, "u_md5", false}, {MD5, "u_pass", false}, {MD5, "u_none", true}, {MD5, "nobody", true},
		{SCRAM, "u_scram", false}, {SCRAM, "u_md5", true}, {SCRAM, "u_pass", false}, {SCRAM, "u_none", true}, {SCRAM, "nobody", true},
		{Reject, "u_trust", true}, {Peer, "u_trust", true}, {Cert, "u_trust", true},
	} {
		p := startPooler(s, AcceptOptions{Auth: authenticator(t, c.method, file)}, LoginOptions{})
		password := goodPassword
		if c.user == "u_prep" {
			password = kelvin
		}
		if err := p.works(c.user, password, "sslmode=disable"); (err != nil) != c.fails {
			t.Errorf("%s, %s: %v", c.method, c.user, err)
		}
		if c.method.compares() {
			checkWrongPassword(t, p, c.user)
		}
		p.close()
	}
}

// checkWrongPassword wants the same answer whatever is stored of the user, if there is one.
func checkWrongPassword(t *testing.T, p *pooler, user string) {
	t.Helper()
	var said *pgconn.PgError
	for _, password := range []string{"wrong", strings.Repeat("long", 500)} {
		err := p.works(user, password, "sslmode=disable")
		if !errors.As(err, &said) || said.Code != "28P01" || said.Message != fmt.Sprintf("password authentication failed for user %q", user) {
			t.Errorf("%s with a wrong password: %v", user, err)
		}
	}
}

func testClientTLS(t *testing.T, s *server) {
	file := users(t, fmt.Sprintf("\"u_scram\" \"%s\"\n\"u_md5\" \"%s\"\n", s.stored("u_scram"), s.stored("u_md5")))
	config := &tls.Config{Certificates: []tls.Certificate{s.ca.Issue("pooler", "localhost", "127.0.0.1")}}
	root := "sslrootcert=" + s.ca.Root(t.TempDir())
	for _, c := range []struct {
		mode   SSLMode
		client string
		fails  string
	}{
		{SSLDisable, "sslmode=disable", ""}, {SSLDisable, "sslmode=require", "refused TLS"},
		{SSLAllow, "sslmode=disable", ""}, {SSLAllow, "sslmode=verify-full " + root, ""},
		{SSLPrefer, "sslmode=disable", ""}, {SSLPrefer, "sslmode=verify-full " + root, ""},
		{SSLPrefer, "sslmode=require sslnegotiation=direct", ""}, {SSLDisable, "sslmode=require sslnegotiation=direct", "startup message"},
		{SSLRequire, "sslmode=disable", "TLS is required"}, {SSLRequire, "sslmode=require", ""},
		{SSLRequire, "sslmode=require channel_binding=require", ""},
	} {
		p := startPooler(s, AcceptOptions{TLS: config, SSLMode: c.mode, Auth: authenticator(t, MD5, file)},
			LoginOptions{SSLMode: SSLVerifyFull, TLS: &tls.Config{RootCAs: s.ca.Pool}, Host: "localhost"})
		err := p.works("u_scram", goodPassword, c.client)
		if c.fails == "" && err != nil || c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)) {
			t.Errorf("%s, %s: %v", c.mode, c.client, err)
		}
		if c.fails == "" {
			if last := p.last(); (last.TLS != nil) == strings.Contains(c.client, "disable") || last.Credential.SCRAM == nil {
				t.Errorf("%s, %s: TLS %v, %v", c.mode, c.client, last.TLS != nil, last.Credential)
			}
			checkWrongPassword2(t, p, c.client)
		}
		p.close()
	}
}

func checkWrongPassword2(t *testing.T, p *pooler, more string) {
	t.Helper()
	var said *pgconn.PgError
	if err := p.works("u_scram", "wrong", more); !errors.As(err, &said) || said.Code != "28P01" {
		t.Errorf("wrong password over TLS: %v", err)
	}
	if strings.Contains(more, "channel_binding") {
		return
	}
	if err := p.works("nobody", "wrong", more); !errors.As(err, &said) || said.Code != "28P01" {
		t.Errorf("unknown user over TLS: %v", err)
	}
}

func testPsql(t *testing.T, s *server) {
	psql, err := exec.LookPath("psql")
	if err != nil {
		t.Skip("no psql")
	}
	file := users(t, fmt.Sprintf("\"u_scram\" \"%s\"\n\"u_md5\" \"%s\"\n\"u_prep\" \"%s\"", s.stored("u_scram"), s.stored("u_md5"), s.stored("u_prep")))
	config := &tls.Config{Certificates: []tls.Certificate{s.ca.Issue("pooler", "localhost", "127.0.0.1")}}
	p := startPooler(s, AcceptOptions{TLS: config, SSLMode: SSLAllow, Auth: authenticator(t, MD5, file)}, LoginOptions{SSLMode: SSLPrefer})
	root := s.ca.Root(t.TempDir())
	for _, c := range []struct{ user, password, more, want string }{
		{"u_scram", goodPassword, "sslmode=disable", "u_scram"},
		{"u_scram", goodPassword, "sslmode=verify-full sslrootcert=" + root, "u_scram"},
		{"u_scram", goodPassword, "sslmode=require channel_binding=require", "u_scram"},
		{"u_scram", goodPassword, "sslmode=require channel_binding=disable", "u_scram"},
		{"u_prep", kelvin, "sslmode=disable", "u_prep"}, // pgx does not normalize as the server does
		{"u_md5", goodPassword, "sslmode=prefer", "u_md5"},
		{"u_md5", goodPassword, "sslmode=disable gssencmode=disable", "u_md5"},
		{"u_scram", "wrong", "sslmode=prefer", `password authentication failed for user "u_scram"`},
		{"nobody", "wrong", "sslmode=require", `password authentication failed for user "nobody"`},
	} {
		dsn := fmt.Sprintf("host=127.0.0.1 port=%d user=%s dbname=postgres %s", p.port(), c.user, c.more)
		cmd := exec.CommandContext(pgtest.Context(t), psql, "-XAtc", "select current_user", dsn)
		cmd.Env = append(cmd.Environ(), "PGPASSWORD="+c.password)
		out, _ := cmd.CombinedOutput()
		if !strings.Contains(string(out), c.want) {
			t.Errorf("%s %s: %s", c.user, c.more, out)
		}
	}
	p.close()
	for _, err := range p.errs {
		if !strings.Contains(err.Error(), "the password is wrong") {
			t.Errorf("the pooler saw: %v", err)
		}
	}
}

func testClientCertificates(t *testing.T, s *server) {
	dir := t.TempDir()
	root := s.ca.Root(dir)
	cert, key := s.ca.Write(dir, "u_trust", s.ca.Issue("u_trust"))
	other := pgtest.NewAuthority(t)
	foreignCert, foreignKey := other.Write(dir, "foreign", other.Issue("u_trust"))
	config := &tls.Config{Certificates: []tls.Certificate{s.ca.Issue("pooler", "127.0.0.1")}, ClientCAs: s.ca.Pool}
	ours := fmt.Sprintf("sslmode=verify-ca sslrootcert=%s sslcert=%s sslkey=%s", root, cert, key)
	foreign := fmt.Sprintf("sslmode=verify-ca sslrootcert=%s sslcert=%s sslkey=%s", root, foreignCert, foreignKey)
	none := "sslmode=verify-ca sslrootcert=" + root
	for _, c := range []struct {
		mode       SSLMode
		method     Method
		user, more string
		fails      bool
	}{
		{SSLRequire, Cert, "u_trust", ours, false}, {SSLRequire, Cert, "u_trust", foreign, true}, {SSLRequire, Cert, "u_trust", none, true},
		{SSLRequire, Cert, "u_scram", ours, true}, {SSLAllow, Cert, "u_trust", "sslmode=disable", true},
		{SSLRequire, Trust, "u_trust", foreign, false}, {SSLRequire, Trust, "u_trust", none, false},
		{SSLVerifyCA, Trust, "u_trust", ours, false}, {SSLVerifyCA, Trust, "u_trust", none, true}, {SSLVerifyFull, Trust, "u_trust", foreign, true},
		{SSLVerifyFull, Cert, "u_trust", ours, false},
	} {
		p := startPooler(s, AcceptOptions{TLS: config, SSLMode: c.mode, Auth: authenticator(t, c.method, nil)}, LoginOptions{})
		if err := p.works(c.user, "", c.more); (err != nil) != c.fails {
			t.Errorf("%s, %s, %s, %s: %v", c.mode, c.method, c.user, c.more, err)
		}
		p.close()
	}
}
