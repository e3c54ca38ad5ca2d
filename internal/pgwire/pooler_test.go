package pgwire

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// server is a real PostgreSQL with TLS and a role for each method.
type server struct {
	t       testing.TB
	o       postgres.Options
	ca      *pgtest.Authority
	address string
	admin   *pgconn.PgConn
}

const (
	goodPassword = "geheim, O'Hara"
	kelvin       = "pa\u00a0ss \u212bngstr\u00f6m\u00ad" // SASLprep changes it
)

func startServer(t testing.TB, bin string) *server {
	t.Helper()
	o := pgtest.Options(t, "db1")
	o.BinDir = bin
	dir := filepath.Dir(o.DataDir)
	ca := pgtest.NewAuthority(t)
	cert, key := ca.Write(dir, "server", ca.Issue("db.example", "localhost", "db.example"))
	settings := pgtest.Settings()
	for name, value := range map[string]string{"ssl": "on", "ssl_cert_file": cert, "ssl_key_file": key, "ssl_ca_file": ca.Root(dir),
		"max_connections": "60"} {
		settings.Parameters[name] = value
	}
	settings.HBA = append([]string{
		"local all all trust", "host all u_trust 127.0.0.1/32 trust", "host all u_md5 127.0.0.1/32 md5",
		"host all u_pass 127.0.0.1/32 password", "hostssl all u_cert 127.0.0.1/32 cert", "hostnossl all u_tls 127.0.0.1/32 reject",
	}, settings.HBA...)
	pgtest.PrimaryWith(t, o, settings)
	s := &server{t: t, o: o, ca: ca, address: fmt.Sprintf("127.0.0.1:%d", o.Port)}
	var err error
	s.admin, err = pgconn.Connect(pgtest.Context(t), pgtest.ConnString(o, "postgres"))
	pgtest.Must(t, err)
	t.Cleanup(func() { s.admin.Close(context.Background()) })
	quoted := "'" + strings.ReplaceAll(goodPassword, "'", "''") + "'"
	s.exec("create role u_trust login; create role u_cert login; create role u_scram login password " + quoted +
		"; create role u_pass login password " + quoted + "; create role u_tls login password " + quoted +
		"; create role u_prep login password '" + kelvin + "'; create role u_none login" +
		"; set password_encryption to md5; create role u_md5 login password " + quoted)
	return s
}

func (s *server) exec(sql string) [][]string {
	s.t.Helper()
	results, err := s.admin.Exec(pgtest.Context(s.t), sql).ReadAll()
	pgtest.Must(s.t, err)
	var out [][]string
	for _, r := range results {
		for _, row := range r.Rows {
			var texts []string
			for _, v := range row {
				texts = append(texts, string(v))
			}
			out = append(out, texts)
		}
	}
	return out
}

// stored is the secret of a role.
func (s *server) stored(user string) string {
	return s.exec("select coalesce(rolpassword, '') from pg_authid where rolname = '" + user + "'")[0][0]
}

func (s *server) dial() net.Conn {
	s.t.Helper()
	c, err := net.Dial("tcp", s.address)
	pgtest.Must(s.t, err)
	s.t.Cleanup(func() { c.Close() })
	return c
}

// pooler is the smallest pooler there can be: one server session for each client, bytes passed on.
type pooler struct {
	t       testing.TB
	server  *server
	accept  AcceptOptions
	login   LoginOptions // without user, database, credential
	l       net.Listener
	running sync.WaitGroup
	mu      sync.Mutex
	clients []*Client
	errs    []error
}

func startPooler(s *server, accept AcceptOptions, login LoginOptions) *pooler {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	pgtest.Must(s.t, err)
	return serve(s, l, accept, login)
}

func serve(s *server, l net.Listener, accept AcceptOptions, login LoginOptions) *pooler {
	if accept.LoginTimeout == 0 {
		accept.LoginTimeout = 10 * time.Second
	}
	pgtest.Must(s.t, accept.Validate())
	p := &pooler{t: s.t, server: s, accept: accept, login: login, l: l}
	p.running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			p.running.Go(func() { p.note(p.session(conn)) })
		}
	})
	s.t.Cleanup(p.close)
	return p
}

func (p *pooler) close() {
	p.l.Close()
	p.running.Wait()
}

func (p *pooler) note(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.errs = append(p.errs, err)
	}
}

// last is the last client that was let in.
func (p *pooler) last() *Client {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.clients[len(p.clients)-1]
}

func (p *pooler) port() int { return p.l.Addr().(*net.TCPAddr).Port }

func (p *pooler) session(conn net.Conn) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := Accept(ctx, conn, p.accept)
	if err != nil {
		return err
	}
	defer c.Conn.Close()
	to, err := net.Dial("tcp", p.server.address)
	if err != nil {
		return err
	}
	if c.Cancel != nil {
		return Cancel(ctx, to, *c.Cancel, CancelOptions{SSLMode: p.login.SSLMode, TLS: p.login.TLS, Host: p.login.Host})
	}
	p.mu.Lock()
	p.clients = append(p.clients, c)
	p.mu.Unlock()
	o := p.login
	o.User, o.Database, o.Credential, o.Params = c.User, c.Database, c.Credential, c.Params
	s, err := Login(ctx, to, o)
	if err != nil {
		told := &Error{Code: "08006", Message: err.Error()}
		_, _ = c.Conn.Write(AppendErrorResponse(c.Unsent, told))
		return err
	}
	return p.relay(c, s)
}

func (p *pooler) relay(c *Client, s *Server) error {
	out := c.Unsent
	for _, param := range s.Params {
		out = AppendParameterStatus(out, param.Name, param.Value)
	}
	out = AppendReadyForQuery(AppendBackendKeyData(out, *s.Key), Idle)
	if _, err := c.Conn.Write(out); err != nil {
		return err
	}
	var back sync.WaitGroup
	back.Go(func() {
		_, _ = io.Copy(c.Conn, s.Conn)
		c.Conn.Close()
	})
	_, err := io.Copy(s.Conn, c.Conn)
	s.Conn.Close()
	back.Wait()
	_ = err
	return nil
}

// connect logs in through the pooler with pgconn; more are further settings of the connection string.
func (p *pooler) connect(user, password, more string) (*pgconn.PgConn, error) {
	quoted := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(password)
	text := fmt.Sprintf("host=127.0.0.1 port=%d user=%s password='%s' dbname=postgres %s", p.port(), user, quoted, more)
	config, err := pgconn.ParseConfig(text)
	pgtest.Must(p.t, err)
	return pgconn.ConnectConfig(pgtest.Context(p.t), config)
}

// works runs a query through the pooler, and tells as whom.
func (p *pooler) works(user, password, more string) error {
	p.t.Helper()
	conn, err := p.connect(user, password, more)
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	r := conn.ExecParams(pgtest.Context(p.t), "select current_user || $1", [][]byte{[]byte("!")}, nil, nil, nil).Read()
	if r.Err != nil {
		return r.Err
	}
	if got := string(r.Rows[0][0]); got != user+"!" {
		return fmt.Errorf("the server thinks that we are %q", got)
	}
	return nil
}
