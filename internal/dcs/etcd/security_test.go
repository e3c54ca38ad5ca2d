package etcd

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
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/dcs/dcstest"
)

// A server that speaks no TLS may close or reset the connection before its answer is read: it is asked without TLS then.
func TestPlainServerThatHangsUp(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer string // to a request without TLS
		reset  bool
		want   string
	}{
		{"reset", "HTTP/1.1 200 OK\r\n\r\n", true, "etcd speaks plain HTTP here"},
		{"closed", "HTTP/1.1 200 OK\r\n\r\n", false, "etcd speaks plain HTTP here"},
		{"no HTTP either", "SSH-2.0-\r\n", false, "TLS handshake: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go hangUp(l, tt.answer, tt.reset)
			c := openClient(t, Options{Endpoints: []string{"https://" + l.Addr().String()}, Scope: "plain", RetryTimeout: 5 * time.Second})
			if err := c.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// hangUp answers what does not begin like TLS (RFC 8446, 5.1: a handshake record), and hangs up on all else.
func hangUp(l net.Listener, answer string, reset bool) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		b := make([]byte, 1024)
		if n, err := conn.Read(b); err == nil && n > 0 && b[0] != 0x16 {
			_, _ = conn.Write([]byte(answer))
		} else if reset {
			_ = conn.(*net.TCPConn).SetLinger(0)
		}
		_ = conn.Close()
	}
}

// authority is a CA for one test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T, dir string) *authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA " + filepath.Base(dir)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert: cert, key: key, file: pemFile(t, dir, "ca.crt", "CERTIFICATE", der)}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func pemFile(t *testing.T, dir, name, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// issue makes a certificate for 127.0.0.1, for both sides of a connection.
func (a *authority) issue(t *testing.T, dir string, until time.Time) (cert, key string) {
	t.Helper()
	k := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "db1"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &k.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pemFile(t, dir, "db1.crt", "CERTIFICATE", der), pemFile(t, dir, "db1.key", "EC PRIVATE KEY", raw)
}

func (a *authority) client(t *testing.T, cert, key string) *tls.Config {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	config := &tls.Config{RootCAs: roots}
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config
}

func TestTLS(t *testing.T) {
	dir, foreignDir, oldDir := t.TempDir(), t.TempDir(), t.TempDir()
	ca, foreign := newAuthority(t, dir), newAuthority(t, foreignDir)
	cert, key := ca.issue(t, dir, time.Now().Add(time.Hour))
	foreignCert, foreignKey := foreign.issue(t, foreignDir, time.Now().Add(time.Hour))
	oldCert, oldKey := ca.issue(t, oldDir, time.Now().Add(-time.Minute))
	all := memberOptions(t, "tls", 3)
	for i := range all {
		all[i].CACert, all[i].Cert, all[i].Key = ca.file, cert, key
	}
	servers := startAll(t, all)
	awaitReady(t, servers...)
	endpoint := all[0].Members[0].Client
	for _, tt := range []struct {
		name   string
		config *tls.Config
		want   string
	}{
		{"right", ca.client(t, cert, key), ""},
		{"no client certificate", ca.client(t, "", ""), "set etcd.cert and etcd.key"},
		{"unknown CA", foreign.client(t, cert, key), "not signed by the CA in etcd.cacert"},
		{"client certificate of another CA", ca.client(t, foreignCert, foreignKey), "etcd refuses our client certificate"},
		{"expired client certificate", ca.client(t, oldCert, oldKey), "etcd refuses our client certificate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := openClient(t, Options{Endpoints: []string{endpoint}, TLS: tt.config, Scope: "tls", RetryTimeout: 5 * time.Second})
			err := c.Ping(t.Context())
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				lead(t, c, "db1")
			} else if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), endpoint) {
				t.Errorf("got %v, want %q and the endpoint", err, tt.want)
			}
		})
	}
}

func TestExpiredServerCertificate(t *testing.T) {
	dir := t.TempDir()
	ca := newAuthority(t, dir)
	cert, key := ca.issue(t, dir, time.Now().Add(-time.Minute))
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	g := &greeter{}
	address := dcstest.FreeAddress(t)
	stop, err := g.serve(address, &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	c := openClient(t, Options{Endpoints: []string{address}, TLS: ca.client(t, "", "")})
	if err := c.Ping(t.Context()); err == nil || !strings.Contains(err.Error(), "has expired") {
		t.Errorf("got %v", err)
	}
}

func TestPingTellsWhatIsWrong(t *testing.T) {
	endpoint := dcstest.StartEtcd(t)
	enableAuth(t, endpoint)
	closed := dcstest.FreeAddress(t)
	for _, tt := range []struct {
		name string
		o    Options
		want string
	}{
		{"right password", Options{Endpoints: []string{endpoint}, Username: "root", Password: "secret"}, ""},
		{"one of two endpoints is enough", Options{Endpoints: []string{closed, endpoint}, Username: "root", Password: "secret"}, ""},
		{"wrong password", Options{Endpoints: []string{endpoint}, Username: "root", Password: "other"}, "check etcd.username and etcd.password"},
		{"no password", Options{Endpoints: []string{endpoint}}, "set etcd.username and etcd.password"},
		{"no right", Options{Endpoints: []string{endpoint}, Username: "guest", Password: "guest"}, "grant its role read and write"},
		{"nothing there", Options{Endpoints: []string{closed, "127.0.0.1:1"}}, "127.0.0.1:1: cannot connect: dial tcp 127.0.0.1:1: connect: connection refused"},
		{"plain HTTP", Options{Endpoints: []string{strings.Replace(endpoint, "http:", "https:", 1)}}, "etcd speaks plain HTTP here"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.o.Scope, tt.o.RetryTimeout = "auth", 5*time.Second
			c := openClient(t, tt.o)
			err := c.Ping(t.Context())
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, want %q", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			h := lead(t, c, "db1")
			if _, err := c.Renew(t.Context(), h); err != nil {
				t.Errorf("renew with a password: %v", err)
			}
			if err := c.Release(t.Context(), h, nil); err != nil {
				t.Error(err)
			}
			// The next case begins without a term.
			l, err := c.calls.order()[0].open()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := l.kv.Delete(t.Context(), c.key(keyTerm)); err != nil {
				t.Fatal(err)
			}
		})
	}
}
