package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/pgwire"
	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
	"github.com/havenha/haven/internal/proxy/pooled"
)

// The role that clients of the transaction mode log in as. The pool is smaller than the number of connections that each
// client opens, so that sessions do change servers.
const (
	clientRole     = "shop"
	clientPassword = "shop' password"
	clientPool     = 2
)

// front is a pooler in transaction mode, with TLS and SCRAM, in front of a real server.
type front struct {
	port   int
	root   string // file of the authority that vouches for its certificate
	server postgres.Options
}

// TestClients runs real clients through the transaction mode: prepared statements, COPY, cancel requests, TLS and SCRAM.
func TestClients(t *testing.T) {
	f := startFront(t)
	for _, c := range []struct {
		name string
		run  func(*testing.T, *front)
	}{
		{"psql", psqlClient}, {"pgbench", pgbenchClient}, {"pgx", pgxClient}, {"lib-pq", pqClient}, {"node", nodeClient},
	} {
		t.Run(c.name, func(t *testing.T) { c.run(t, f) })
	}
	t.Run("nothing is left", func(t *testing.T) { f.nothingIsLeft(t) })
}

func startFront(t *testing.T) *front {
	t.Helper()
	o := pgtest.Options(t, "db1")
	pgtest.Primary(t, o)
	f := &front{server: o}
	secret := f.fill(t)
	dir := t.TempDir()
	users := filepath.Join(dir, "users.txt")
	pgtest.Must(t, os.WriteFile(users, []byte(fmt.Sprintf("%q %q\n", clientRole, secret)), 0o600))
	file, err := pgwire.OpenUserFile(users)
	pgtest.Must(t, err)
	auth, err := pgwire.NewAuthenticator(pgwire.AuthOptions{Method: pgwire.SCRAM, Secrets: file})
	pgtest.Must(t, err)
	cert := f.certificate(t, dir)
	f.serve(t, pooled.Options{
		Cluster: onlyServer(fmt.Sprintf("127.0.0.1:%d", o.Port)), Mode: pooled.Transaction,
		Pool: config.Pool{DefaultPoolSize: clientPool, MaxClientConn: 200, MaxPreparedStatements: 200, ClientLoginTimeout: time.Minute,
			QueryWaitTimeout: time.Minute, ServerLifetime: time.Hour, ServerIdleTimeout: time.Minute, ServerLoginRetry: time.Second},
		Accept:      pgwire.AcceptOptions{Auth: auth, SSLMode: pgwire.SSLRequire, TLS: &tls.Config{Certificates: []tls.Certificate{cert}}},
		HoldTimeout: 10 * time.Second, ConnectTimeout: 5 * time.Second, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	return f
}

// fill makes the role, and returns its SCRAM secret.
func (f *front) fill(t *testing.T) string {
	t.Helper()
	ctx := pgtest.Context(t)
	conn, err := pgx.Connect(ctx, pgtest.ConnString(f.server, "postgres"))
	pgtest.Must(t, err)
	defer conn.Close(ctx)
	for _, sql := range []string{
		"create role shop login password '" + strings.ReplaceAll(clientPassword, "'", "''") + "'", "create database shop owner shop",
	} {
		_, err = conn.Exec(ctx, sql)
		pgtest.Must(t, err)
	}
	var secret string
	pgtest.Must(t, conn.QueryRow(ctx, "select rolpassword from pg_authid where rolname = 'shop'").Scan(&secret))
	return secret
}

// certificate makes one for localhost that vouches for itself.
func (f *front) certificate(t *testing.T, dir string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	pgtest.Must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "pooler"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	pgtest.Must(t, err)
	f.root = filepath.Join(dir, "root.crt")
	pgtest.Must(t, os.WriteFile(f.root, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), 0o644))
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
}

func (f *front) serve(t *testing.T, o pooled.Options) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	pgtest.Must(t, err)
	f.port = l.Addr().(*net.TCPAddr).Port
	d := pooled.New(o)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { d.Serve(conn) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		d.Close()
		serving.Wait()
	})
}

// nothingIsLeft looks at the server: no more sessions than the pool may have, and none in a transaction.
func (f *front) nothingIsLeft(t *testing.T) {
	ctx := pgtest.Context(t)
	conn, err := pgx.Connect(ctx, pgtest.ConnString(f.server, "postgres"))
	pgtest.Must(t, err)
	defer conn.Close(ctx)
	pgtest.Eventually(t, "idle sessions only", func() error {
		var all, busy int
		err := conn.QueryRow(ctx, "select count(*), count(*) filter (where state <> 'idle') from pg_stat_activity where usename = 'shop'").Scan(&all, &busy)
		if err == nil && (all > clientPool || busy > 0) {
			err = fmt.Errorf("%d sessions, %d of them not idle", all, busy)
		}
		return err
	})
}

// url is how clients that take connection URIs reach the pooler.
func (f *front) url(more string) string {
	return fmt.Sprintf("postgres://%s:%s@localhost:%d/shop?sslmode=verify-full&sslrootcert=%s%s", clientRole, "shop%27%20password", f.port, f.root, more)
}

// program runs a client program to its end.
func (f *front) program(t *testing.T, input string, command ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin = strings.NewReader(input)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+clientPassword, "PGSSLMODE=verify-full", "PGSSLROOTCERT="+f.root, "HAVEN_URL="+f.url(""))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, out)
	}
	return string(out)
}

// onlyServer is a cluster of one server, which is always the primary.
type onlyServer string

func (s onlyServer) Why() string { return "" }

func (s onlyServer) Connect(ctx context.Context, _ func()) (pooled.Seat, error) {
	conn, err := s.Dial(ctx)
	return onlySeat{s, conn}, err
}

func (s onlyServer) Dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", string(s))
}

type onlySeat struct {
	onlyServer
	conn net.Conn
}

func (s onlySeat) Conn() net.Conn     { return s.conn }
func (s onlySeat) Server() string     { return string(s.onlyServer) }
func (s onlySeat) Primary() bool      { return true }
func (s onlySeat) Valid() bool        { return true }
func (s onlySeat) Failed(string)      {}
func (s onlySeat) Leave(int64, int64) {}
