package scenarios

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/havenha/haven/internal/dcs/dcstest"
	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// site is what the stories of one run share: an etcd, and the certificates of a run with TLS.
type site struct {
	dir     string
	account *postgres.Account
	tls     *tls.Config // of a client; nil: plain
	etcd    *store
}

func newSite(t *testing.T, encrypted bool) *site {
	t.Helper()
	if _, err := exec.LookPath("etcd"); err != nil {
		t.Skip("etcd is not installed: make test installs it")
	}
	s := &site{dir: pgtest.Dir(t), account: pgtest.Account(t)}
	if err := os.Chmod(s.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if encrypted {
		s.certificates(t)
	}
	s.etcd = s.startEtcd(t)
	return s
}

// file is the path of a certificate or key.
func (s *site) file(name string) string { return filepath.Join(s.dir, name) }

func (s *site) scheme() string {
	if s.tls != nil {
		return "https"
	}
	return "http"
}

// certificates makes an authority and a certificate for the node, and for each user of PostgreSQL.
func (s *site) certificates(t *testing.T) {
	t.Helper()
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of the scenarios"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(12 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	key := newKey(t)
	s.sign(t, "ca", authority, authority, &key.PublicKey, key)
	for i, name := range []string{"node", "postgres", "replicator"} {
		k := newKey(t)
		s.sign(t, name, &x509.Certificate{
			SerialNumber: big.NewInt(int64(i) + 2), Subject: pkix.Name{CommonName: name},
			NotBefore: authority.NotBefore, NotAfter: authority.NotAfter, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		}, authority, &k.PublicKey, key)
		der, err := x509.MarshalECPrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		s.write(t, name+".key", "EC PRIVATE KEY", der)
	}
	pair, err := tls.LoadX509KeyPair(s.file("node.crt"), s.file("node.key"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pem, err := os.ReadFile(s.file("ca.crt"))
	if err != nil || !pool.AppendCertsFromPEM(pem) {
		t.Fatalf("read the authority: %v", err)
	}
	s.tls = &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, MinVersion: tls.VersionTLS12}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (s *site) sign(t *testing.T, name string, template, parent *x509.Certificate, public *ecdsa.PublicKey, signer *ecdsa.PrivateKey) {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		t.Fatal(err)
	}
	s.write(t, name+".crt", "CERTIFICATE", der)
}

func (s *site) write(t *testing.T, name, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(s.file(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	give(t, s.account, s.file(name))
}

func give(t *testing.T, a *postgres.Account, path string) {
	t.Helper()
	if a == nil {
		return
	}
	if err := os.Lchown(path, a.UID, a.GID); err != nil {
		t.Fatal(err)
	}
}

// store is a genuine etcd.
type store struct {
	address string
	cmd     *exec.Cmd
}

// startEtcd runs an etcd that asks for client certificates if the run has them.
func (s *site) startEtcd(t *testing.T) *store {
	t.Helper()
	e := &store{address: dcstest.FreeAddress(t)}
	client, peer := s.scheme()+"://"+e.address, "http://"+dcstest.FreeAddress(t)
	args := []string{
		"--name", "test", "--data-dir", t.TempDir(), "--log-level", "error",
		"--listen-client-urls", client, "--advertise-client-urls", client,
		"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "test=" + peer,
	}
	if s.tls != nil {
		args = append(args, "--client-cert-auth", "--trusted-ca-file", s.file("ca.crt"), "--cert-file", s.file("node.crt"), "--key-file", s.file("node.key"))
	}
	if exec.Command("etcd", "--unsafe-no-fsync", "--version").Run() == nil { // early releases of 3.4 do not know it
		args = append(args, "--unsafe-no-fsync")
	}
	e.cmd = exec.Command("etcd", args...)
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = e.cmd.Process.Kill()
		_ = e.cmd.Wait()
	})
	for begun := time.Now(); time.Since(begun) < limit; time.Sleep(50 * time.Millisecond) {
		if code, _, _ := s.request(http.MethodGet, client+"/health", ""); code == http.StatusOK {
			return e
		}
	}
	t.Fatalf("etcd is not healthy after %s", limit)
	return nil
}

func (e *store) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := e.cmd.Process.Signal(sig); err != nil {
		t.Fatalf("signal etcd: %v", err)
	}
}

// request asks an HTTP address, with the node's certificate if there is one.
func (s *site) request(method, url, body string) (code int, answer string, err error) {
	// Some answers come when the work is done.
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return s.requestWithin(ctx, method, url, body)
}
