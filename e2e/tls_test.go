package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/dcs/etcd"
	"github.com/havenha/haven/internal/postgres/pgtest"
	"github.com/jackc/pgx/v5"
)

// TestTLSEverywhereByOneLine gives every node a certificate by haven.tls alone: etcd, REST API, replication and clients
// are encrypted, plain connections are refused, and a failover works as ever.
func TestTLSEverywhereByOneLine(t *testing.T) {
	var pair tls.Certificate
	c := prepareCluster(t, 3, "on", func(dir, text string) string {
		ca := pgtest.NewAuthority(t)
		pair = ca.Issue("node", "127.0.0.1", "localhost")
		cert, key := ca.Write(dir, "node", pair)
		line := fmt.Sprintf(", tls: {cafile: %s, certfile: %s, keyfile: %s}}", ca.Root(dir), cert, key)
		return strings.Replace(text, ", address: 127.0.0.1}", ", address: 127.0.0.1"+line, 1)
	})
	client := &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}}
	var err error
	c.store.Close()
	if c.store, err = etcd.Open(etcd.Options{Endpoints: c.plan.Etcd, Scope: "demo", TLS: client, RetryTimeout: 3 * time.Second}); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.plan.Nodes {
		c.start(n)
	}
	s := c.await("a synchronous standby", c.synchronous)

	plainIsRefused(t, c)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	dsn := c.plan.DSN(c.plan.Write) + " sslmode=verify-ca sslrootcert=" + filepath.Join(c.plan.Dir, "ca.crt")
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		t.Fatalf("through the proxy with TLS: %v", err)
	}
	conn.Close(ctx)
	replicationIsEncrypted(t, c, s)
	if out, err := c.haven("list"); err != nil {
		t.Errorf("haven list: %v: %s", err, out)
	}
	old := s.Leader.Name
	c.killPostmaster(old)
	c.await("another leader, and three members", func(s cluster.Snapshot) bool { return c.synchronous(s) && s.Leader.Name != old })
}

// plainIsRefused asks every port without TLS.
func plainIsRefused(t *testing.T, c *testCluster) {
	t.Helper()
	if code, body := get(t, "http://"+c.plan.API[0]+"/cluster"); code == http.StatusOK {
		t.Errorf("REST API answers without TLS: %s", body)
	}
	cmd := exec.Command(need(t, "etcdctl"), "--endpoints", "http://"+c.plan.Etcd[0], "--command-timeout", "2s", "get", "/service/demo/leader")
	cmd.Env = append(os.Environ(), "ETCDCTL_API=3")
	if out, err := cmd.CombinedOutput(); err == nil {
		t.Errorf("etcd answers without TLS: %s", out)
	}
	peers, err := os.ReadFile(c.plan.File)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(peers), `peer: "`)
	peer, _, _ := strings.Cut(rest, `"`)
	if code, body := get(t, "http://"+peer+"/members"); code == http.StatusOK {
		t.Errorf("etcd's peers answer without TLS: %s", body)
	}
	bare := &tls.Config{InsecureSkipVerify: true}
	if conn, err := tls.Dial("tcp", c.plan.Etcd[0], bare); err == nil {
		// TLS 1.3 tells a missing client certificate only with the first read.
		_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
		_, _ = conn.Write([]byte("GET /version HTTP/1.1\r\nHost: x\r\n\r\n"))
		if n, err := conn.Read(make([]byte, 64)); err == nil {
			t.Errorf("etcd answers without a client certificate: %d bytes", n)
		}
		conn.Close()
	}
}

// replicationIsEncrypted asks the primary how its standbys are connected. From other hosts nothing else is let in
// (hostssl, TestDefaultHBALetsOnlyAWorkablePeerIn); from loopback, where this cluster is, plain connections of clients are.
func replicationIsEncrypted(t *testing.T, c *testCluster, s cluster.Snapshot) {
	t.Helper()
	m, _ := s.Member(s.Leader.Name)
	var all, encrypted int
	err := c.superuser(m, "connect_timeout=5 sslmode=verify-ca sslrootcert="+filepath.Join(c.plan.Dir, "ca.crt"), func(ctx context.Context, conn *pgx.Conn) error {
		return conn.QueryRow(ctx, "SELECT count(*), count(*) FILTER (WHERE s.ssl) FROM pg_stat_replication r JOIN pg_stat_ssl s USING (pid)").Scan(&all, &encrypted)
	})
	if err != nil || all != 2 || encrypted != all {
		t.Errorf("of %d connections of standbys %d are encrypted: %v", all, encrypted, err)
	}
}
