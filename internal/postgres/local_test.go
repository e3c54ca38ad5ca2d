package postgres_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// TestRolesLogInByCertificate runs a primary and a standby whose roles have no passwords: sessions, copy and stream.
func TestRolesLogInByCertificate(t *testing.T) {
	ao := pgtest.Options(t, "a")
	ca, dir := pgtest.NewAuthority(t), filepath.Dir(ao.DataDir)
	root := ca.Root(dir)
	role := func(name string) postgres.Credentials {
		cert, key := ca.Write(dir, name, ca.Issue(name))
		return postgres.Credentials{Username: name, SSLMode: "verify-full", SSLRootCert: root, SSLCert: cert, SSLKey: key}
	}
	cert, key := ca.Write(dir, "server", ca.Issue("server", "127.0.0.1"))
	ao.Superuser, ao.Replication = role("postgres"), role("replicator")
	ao.InitDB = []string{"--data-checksums", "--locale=C", "--auth=trust"}
	s := pgtest.Settings()
	s.HBA = []string{"hostssl all all 127.0.0.1/32 cert", "hostssl replication all 127.0.0.1/32 cert"}
	for name, value := range map[string]string{"ssl": "on", "ssl_ca_file": root, "ssl_cert_file": cert, "ssl_key_file": key} {
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
