package etcd

import (
	"crypto/tls"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/dcs/dcstest"
	"github.com/havenha/haven/internal/postgres/pgtest"
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

// trusting is what a client of that authority has, and the certificates that it shows.
func trusting(ca *pgtest.Authority, shown ...tls.Certificate) *tls.Config {
	return &tls.Config{RootCAs: ca.Pool, Certificates: shown}
}

func TestTLS(t *testing.T) {
	dir, ca, foreign := t.TempDir(), pgtest.NewAuthority(t), pgtest.NewAuthority(t)
	own := ca.Issue("db1", "127.0.0.1")
	root := ca.Root(dir)
	cert, key := ca.Write(dir, "db1", own)
	all := memberOptions(t, "tls", 3)
	for i := range all {
		all[i].CACert, all[i].Cert, all[i].Key = root, cert, key
	}
	servers := startAll(t, all)
	awaitReady(t, servers...)
	endpoint := all[0].Members[0].Client
	for _, tt := range []struct {
		name   string
		config *tls.Config
		want   string
	}{
		{"right", trusting(ca, own), ""},
		{"no client certificate", trusting(ca), "set etcd.cert and etcd.key"},
		{"unknown CA", trusting(foreign, own), "not signed by the CA in etcd.cacert"},
		{"client certificate of another CA", trusting(ca, foreign.Issue("db1")), "etcd refuses our client certificate"},
		{"expired client certificate", trusting(ca, ca.IssueUntil(time.Now().Add(-time.Minute), "db1")), "etcd refuses our client certificate"},
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
	ca := pgtest.NewAuthority(t)
	expired := ca.IssueUntil(time.Now().Add(-time.Minute), "db1", "127.0.0.1")
	g := &greeter{}
	address := dcstest.FreeAddress(t)
	stop, err := g.serve(address, &tls.Config{Certificates: []tls.Certificate{expired}})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	c := openClient(t, Options{Endpoints: []string{address}, TLS: trusting(ca)})
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
