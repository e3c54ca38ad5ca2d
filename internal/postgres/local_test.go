package postgres_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// authority signs certificates into files of the server's user.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, dir string) *authority {
	a := &authority{t: t, dir: dir}
	a.cert, a.key = a.issue("ca", true)
	return a
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) issue(name string, ca bool) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	pgtest.Must(a.t, err)
	c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: ca, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	parent, signer := c, key
	if !ca {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	pgtest.Must(a.t, err)
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	pgtest.Must(a.t, err)
	for file, block := range map[string]*pem.Block{name + ".crt": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "PRIVATE KEY", Bytes: raw}} {
		pgtest.Must(a.t, os.WriteFile(a.path(file), pem.EncodeToMemory(block), 0o600))
		if u := pgtest.Account(a.t); u != nil {
			pgtest.Must(a.t, os.Chown(a.path(file), u.UID, u.GID))
		}
	}
	return c, key
}

// role is somebody who logs in with a certificate and without a password.
func (a *authority) role(name string) postgres.Credentials {
	a.issue(name, false)
	return postgres.Credentials{Username: name, SSLMode: "verify-full", SSLRootCert: a.path("ca.crt"), SSLCert: a.path(name + ".crt"), SSLKey: a.path(name + ".key")}
}

// TestRolesLogInByCertificate runs a primary and a standby whose roles have no passwords: sessions, copy and stream.
func TestRolesLogInByCertificate(t *testing.T) {
	ao := pgtest.Options(t, "a")
	ca := newAuthority(t, filepath.Dir(ao.DataDir))
	ca.issue("server", false)
	ao.Superuser, ao.Replication = ca.role("postgres"), ca.role("replicator")
	ao.InitDB = []string{"--data-checksums", "--locale=C", "--auth=trust"}
	s := pgtest.Settings()
	s.HBA = []string{"hostssl all all 127.0.0.1/32 cert", "hostssl replication all 127.0.0.1/32 cert"}
	for name, value := range map[string]string{"ssl": "on", "ssl_ca_file": ca.path("ca.crt"), "ssl_cert_file": ca.path("server.crt"), "ssl_key_file": ca.path("server.key")} {
		s.Parameters[name] = value
	}
	a, ctx := pgtest.New(t, ao), pgtest.Context(t)
	pgtest.Must(t, a.InitDB(ctx))
	_, err := a.Configure(s, nil, false)
	pgtest.Must(t, err)
	_, err = a.Start(ctx, s)
	pgtest.Must(t, err)
	pgtest.Must(t, a.PostBootstrap(ctx, postgres.Bootstrap{}))

	bo := pgtest.Options(t, "b")
	bo.Superuser, bo.Replication = ao.Superuser, ao.Replication
	b, up := pgtest.New(t, bo), pgtest.Upstream(ao, "")
	pgtest.Must(t, b.Clone(ctx, up, nil))
	_, err = b.Configure(s, &up, true)
	pgtest.Must(t, err)
	_, err = b.Start(ctx, s)
	pgtest.Must(t, err)
	awaitStreaming(t, a, b, "b")
}

// TestCustomConfIsIncluded has the server read a file of the operator's in place of the base configuration, and is reached
// by the first absolute one of its socket directories.
func TestCustomConfIsIncluded(t *testing.T) {
	o := pgtest.Options(t, "a")
	dir := o.SocketDir
	o.SocketDir, o.UseUnixSocket = "., "+dir, true
	o.InitDB = append(o.InitDB, "--auth-local=trust")
	i, ctx := pgtest.New(t, o), pgtest.Context(t)
	pgtest.Must(t, i.InitDB(ctx))
	s := pgtest.Settings()
	s.HBA = []string{"local all all trust"} // whoever comes by TCP is refused
	s.CustomConf = filepath.Join(dir, "operator's own.conf")
	pgtest.Must(t, os.WriteFile(s.CustomConf, []byte("work_mem = 9MB\nmax_connections = 7\n"), 0o644))
	s.Controlled["max_connections"] = "50"
	_, err := i.Configure(s, nil, false)
	pgtest.Must(t, err)
	_, err = i.Start(ctx, s)
	pgtest.Must(t, err)
	got, err := i.ShowSettings(ctx, []string{"work_mem", "max_connections"})
	pgtest.Must(t, err)
	if !strings.HasPrefix(got["work_mem"], "9") || got["max_connections"] != "50" {
		t.Errorf("work_mem and max_connections are %v, want 9MB of the file and 50 of the cluster", got)
	}
}
