package pgwire

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/havenha/haven/internal/postgres/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority makes certificates for a test.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	pgtest.Must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	pgtest.Must(t, err)
	cert, err := x509.ParseCertificate(raw)
	pgtest.Must(t, err)
	a := &authority{t: t, cert: cert, key: key, pool: x509.NewCertPool()}
	a.pool.AddCert(cert)
	return a
}

// issue makes a certificate of that common name, for the hosts besides.
func (a *authority) issue(name string, hosts ...string) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	pgtest.Must(a.t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	pgtest.Must(a.t, err)
	leaf, err := x509.ParseCertificate(raw)
	pgtest.Must(a.t, err)
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key, Leaf: leaf}
}

// write puts a certificate and its key into a folder, for programs that want files.
func (a *authority) write(dir, name string, c tls.Certificate) (cert, key string) {
	a.t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	pgtest.Must(a.t, err)
	cert, key = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	a.file(cert, "CERTIFICATE", c.Certificate[0])
	a.file(key, "PRIVATE KEY", der)
	return cert, key
}

// root puts the authority's own certificate into a folder.
func (a *authority) root(dir string) string {
	path := filepath.Join(dir, "root.crt")
	a.file(path, "CERTIFICATE", a.cert.Raw)
	return path
}

func (a *authority) file(path, kind string, der []byte) {
	a.t.Helper()
	pgtest.Must(a.t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	if account := pgtest.Account(a.t); account != nil {
		pgtest.Must(a.t, os.Chown(path, account.UID, account.GID))
	}
}

// pair is a TCP connection with both of its ends.
func pair(t testing.TB) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	pgtest.Must(t, err)
	defer l.Close()
	near, err = net.Dial("tcp", l.Addr().String())
	pgtest.Must(t, err)
	far, err = l.Accept()
	pgtest.Must(t, err)
	t.Cleanup(func() {
		near.Close()
		far.Close()
	})
	return near, far
}

// secrets are users by name.
func users(t testing.TB, text string) *UserFile {
	t.Helper()
	path := filepath.Join(t.TempDir(), "userlist.txt")
	pgtest.Must(t, os.WriteFile(path, []byte(text), 0o600))
	f, err := OpenUserFile(path)
	pgtest.Must(t, err)
	return f
}

func authenticator(t testing.TB, m Method, s Secrets) *Authenticator {
	t.Helper()
	a, err := NewAuthenticator(AuthOptions{Method: m, Secrets: s})
	pgtest.Must(t, err)
	return a
}
