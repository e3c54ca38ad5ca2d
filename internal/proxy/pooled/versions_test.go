package pooled

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"math/big"
	"net"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/havenha/haven/internal/pgwire"
	"github.com/havenha/haven/internal/pgwire/frame"
	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// TestNewProtocolsOnEachServer runs clients of protocol 3.2, and such that begin with TLS, through the pooler on every server
// that there is, and libpq of that server's own version where it is there.
func TestNewProtocolsOnEachServer(t *testing.T) {
	config := selfSigned(t)
	for _, bin := range pgtest.BinDirs() {
		version, err := osexec.Command(filepath.Join(bin, "postgres"), "--version").Output()
		pgtest.Must(t, err)
		t.Run(strings.Fields(string(version))[2], func(t *testing.T) {
			o := pgtest.Options(t, "db1")
			o.BinDir = bin
			pgtest.Primary(t, o)
			p := newPlace()
			p.admit(fmt.Sprintf("127.0.0.1:%d", o.Port))
			h := open(t, Transaction, p, func(o *Options) { o.Accept.TLS, o.Accept.SSLMode = config, pgwire.SSLPrefer })
			t.Run("protocol 3.2", h.speaksNewest)
			t.Run("TLS from the first byte", h.beginsWithTLS)
			t.Run("libpq", func(t *testing.T) { h.libpq(t, o) })
		})
	}
}

func selfSigned(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	pgtest.Must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	pgtest.Must(t, err)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
}

// speaksNewest: the cancel key is a long one, and serves.
func (h *house) speaksNewest(t *testing.T) {
	conn, err := net.Dial("tcp", h.address)
	pgtest.Must(t, err)
	defer conn.Close()
	s, err := pgwire.Login(pgtest.Context(t), conn, pgwire.LoginOptions{User: "postgres", Database: "postgres", Version: pgwire.Version32})
	pgtest.Must(t, err)
	if s.Version != pgwire.Version32 || s.Key == nil || len(s.Key.Secret) != 32 {
		t.Fatalf("version %s, key %v", s.Version, s.Key)
	}
	r := &raw{t, conn}
	conn.SetDeadline(time.Now().Add(patience))
	r.send(query("SELECT pg_sleep(60)"))
	stop := make(chan struct{})
	go func() { // a request may come before the statement
		defer close(stop)
		r.until('Z')
	}()
	for ended := false; !ended; {
		second, err := net.Dial("tcp", h.address)
		pgtest.Must(t, err)
		pgtest.Must(t, pgwire.Cancel(pgtest.Context(t), second, *s.Key, pgwire.CancelOptions{}))
		select {
		case <-stop:
			ended = true
		case <-time.After(100 * time.Millisecond):
		}
	}
	if got := h.parts(r, "SELECT 'still here'"); got != "still here" {
		t.Errorf("after the cancel request: %q", got)
	}
}

// parts prepares, binds and executes a statement by its name, and returns the only column of its only row.
func (h *house) parts(r *raw, sql string) string {
	out := frame.Append(nil, 'P', "name\x00", sql, "\x00\x00\x00")
	out = frame.Append(out, 'B', "\x00name\x00\x00\x00\x00\x00\x00\x00")
	out = frame.Append(out, 'E', "\x00\x00\x00\x00\x00")
	r.send(string(frame.Append(out, 'S')))
	_, row := r.until('D')
	r.until('Z')
	return string(row[6 : 6+binary.BigEndian.Uint32(row[2:])])
}

func (h *house) beginsWithTLS(t *testing.T) {
	ctx := pgtest.Context(t)
	c, err := pgx.Connect(ctx, fmt.Sprintf("host=localhost port=%d user=postgres dbname=postgres sslmode=require sslnegotiation=direct", h.port))
	pgtest.Must(t, err)
	defer c.Close(context.Background())
	if got := text(t, c, "SELECT 'here'"); got != "here" {
		t.Error(got)
	}
	without, err := tls.Dial("tcp", h.address, &tls.Config{InsecureSkipVerify: true}) // the certificate is not what the test is about
	if err == nil {
		without.SetDeadline(time.Now().Add(patience))
		_, err = without.Read(make([]byte, 1))
		without.Close()
	}
	if err == nil {
		t.Error("a client that does not name the protocol (ALPN) gets in")
	}
}

// libpq runs psql with the library that lies beside the server's programs: protocol 3.2 and direct TLS are libpq 18's and 17's.
func (h *house) libpq(t *testing.T, o postgres.Options) {
	libraries, err := filepath.Glob(filepath.Join(o.BinDir, "..", "lib", "libpq.so.5.1[7-9]"))
	pgtest.Must(t, err)
	psql, err := osexec.LookPath(filepath.Join(pgtest.BinDirs()[0], "psql"))
	if len(libraries) == 0 || err != nil {
		t.Skip("there is no libpq of PostgreSQL 17 or newer beside the server, or no psql")
	}
	more := "sslnegotiation=direct"
	if strings.HasSuffix(libraries[0], "18") {
		more += " min_protocol_version=3.2 max_protocol_version=3.2"
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := osexec.CommandContext(ctx, psql, "-XAtq", "-v", "ON_ERROR_STOP=1", fmt.Sprintf("host=localhost port=%d user=postgres dbname=postgres sslmode=require %s", h.port, more))
	cmd.Env = append(cmd.Environ(), "LD_LIBRARY_PATH="+filepath.Dir(libraries[0]))
	cmd.Stdin = strings.NewReader(`begin;
create temporary table t (n int) on commit drop;
\copy t from stdin
1
2
\.
select sum(n) from t;
commit;
\conninfo
`)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "3\n") || !strings.Contains(string(out), "SSL connection") {
		t.Errorf("%v\n%s", err, out)
	}
}
