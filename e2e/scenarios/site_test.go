package scenarios

import (
	"context"
	"crypto/tls"
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
	ca := pgtest.NewAuthority(t)
	ca.Root(s.dir)
	s.tls = &tls.Config{RootCAs: ca.Pool, MinVersion: tls.VersionTLS12}
	for _, name := range []string{"node", "postgres", "replicator"} {
		pair := ca.Issue(name, "127.0.0.1", "localhost")
		ca.Write(s.dir, name, pair)
		if name == "node" {
			s.tls.Certificates = []tls.Certificate{pair}
		}
	}
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
