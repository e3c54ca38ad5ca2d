package pgtest

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
)

// Authority makes certificates for a test.
type Authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	// Pool holds its own certificate.
	Pool *x509.CertPool
}

// validity is that of certificates whose end is no matter: longer than any test.
const validity = 12 * time.Hour

// NewAuthority makes one.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	Must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"},
		NotBefore: time.Now().Add(-validity), NotAfter: time.Now().Add(validity), IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	Must(t, err)
	cert, err := x509.ParseCertificate(raw)
	Must(t, err)
	a := &Authority{t: t, cert: cert, key: key, Pool: x509.NewCertPool()}
	a.Pool.AddCert(cert)
	return a
}

// Issue makes a certificate of that common name, for the hosts besides.
func (a *Authority) Issue(name string, hosts ...string) tls.Certificate {
	a.t.Helper()
	return a.IssueUntil(time.Now().Add(validity), name, hosts...)
}

// IssueUntil makes a certificate that ends then, which may be an hour ago.
func (a *Authority) IssueUntil(end time.Time, name string, hosts ...string) tls.Certificate {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	Must(a.t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-validity), NotAfter: end, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, h)
		}
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	Must(a.t, err)
	leaf, err := x509.ParseCertificate(raw)
	Must(a.t, err)
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key, Leaf: leaf}
}

// Write puts a certificate and its key into a folder, for programs that want files.
func (a *Authority) Write(dir, name string, c tls.Certificate) (cert, key string) {
	a.t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	Must(a.t, err)
	cert, key = filepath.Join(dir, name+".crt"), filepath.Join(dir, name+".key")
	a.file(cert, "CERTIFICATE", c.Certificate[0])
	a.file(key, "PRIVATE KEY", der)
	return cert, key
}

// Root puts the authority's own certificate into a folder, as ca.crt.
func (a *Authority) Root(dir string) string {
	path := filepath.Join(dir, "ca.crt")
	a.file(path, "CERTIFICATE", a.cert.Raw)
	return path
}

func (a *Authority) file(path, kind string, der []byte) {
	a.t.Helper()
	Must(a.t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	if account := Account(a.t); account != nil {
		Must(a.t, os.Chown(path, account.UID, account.GID))
	}
}
