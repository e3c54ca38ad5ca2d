package app

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/havenha/haven/internal/agent"
	"github.com/havenha/haven/internal/api"
	"github.com/havenha/haven/internal/bootclock"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/dcs/etcd"
	"github.com/havenha/haven/internal/disk"
	"github.com/havenha/haven/internal/postgres"
)

// StoreOptions are those of the etcd client of a node.
func StoreOptions(c *config.Node, log *slog.Logger) (etcd.Options, error) {
	o := etcd.Options{
		Username: c.Etcd.Username, Password: c.Etcd.Password, Namespace: c.Namespace, Scope: c.Scope,
		SRV: c.Etcd.SRV, SRVSuffix: c.Etcd.SRVSuffix, Discover: !c.Etcd.UseProxies && len(c.Etcd.Members) == 0, Log: log.With("component", "etcd"),
	}
	for _, h := range c.Etcd.Hosts {
		o.Endpoints = append(o.Endpoints, withScheme(h, c.Etcd.Scheme))
	}
	var err error
	if c.Etcd.CACert != "" || c.Etcd.Cert != "" || c.Etcd.Scheme == "https" {
		o.TLS, err = clientTLS(c.Etcd.CACert, c.Etcd.Cert, c.Etcd.Key, c.Etcd.KeyPassword)
	}
	return o, err
}

func withScheme(host, scheme string) string {
	if scheme == "" || strings.Contains(host, "://") {
		return host
	}
	return scheme + "://" + host
}

func clientTLS(ca, cert, key, password string) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		pem, err := os.ReadFile(ca)
		if err != nil {
			return nil, fmt.Errorf("read the certificate authority: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate in PEM form", ca)
		}
	}
	if cert != "" {
		pair, err := api.Certificate(cert, key, password)
		if err != nil {
			return nil, fmt.Errorf("the client certificate: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// peerRoads is how the REST APIs of other members are reached; a reload changes it under the requests.
type peerRoads struct{ atomic.Pointer[http.Transport] }

// RoundTrip is http.RoundTripper's.
func (r *peerRoads) RoundTrip(q *http.Request) (*http.Response, error) { return r.Load().RoundTrip(q) }

// peerTransport asks other members' REST APIs. As between Patroni's members, certificates are verified where there is one of our own to
// show, and then host names in them are not: members are known by the addresses in the store.
func peerTransport(c *config.Node) (*http.Transport, error) {
	t, err := restTransport(c)
	if err != nil {
		return nil, err
	}
	if roots := t.TLSClientConfig.RootCAs; roots != nil && c.CTL.CertFile != "" && !c.CTL.Insecure {
		t.TLSClientConfig.VerifyConnection = func(s tls.ConnectionState) error { return ofAuthority(s.PeerCertificates, roots) }
	}
	return t, nil
}

// restTransport asks REST APIs and verifies nothing, as a load balancer's checks do not.
func restTransport(c *config.Node) (*http.Transport, error) {
	t, err := clientTLS(cmp.Or(c.CTL.CACert, c.RESTAPI.CAFile), c.CTL.CertFile, c.CTL.KeyFile, c.CTL.KeyPassword)
	if err != nil {
		return nil, err
	}
	t.InsecureSkipVerify = true // of crypto/tls, which cannot leave out the host name alone
	return &http.Transport{
		TLSClientConfig: t, DisableKeepAlives: true,
		DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
	}, nil
}

// ofAuthority tells whether a server's certificate, the first of these, was signed by one of the authorities, and holds.
func ofAuthority(certs []*x509.Certificate, roots *x509.CertPool) error {
	o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	for _, c := range certs[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := certs[0].Verify(o)
	return err
}

func postgresOptions(c *config.Node, env []string, log *slog.Logger) (postgres.Options, error) {
	p := c.Postgres
	bin, _, err := c.FindBinDir()
	if err != nil {
		return postgres.Options{}, err
	}
	account, err := accountOf(p.RunAs)
	if err != nil {
		return postgres.Options{}, err
	}
	o := postgres.Options{
		BinDir: bin, BinNames: p.BinNames, DataDir: p.DataDir, ConfigDir: p.ConfigDir, ConfigName: p.ConfigBaseName, Name: c.Name, Scope: c.Scope, ListenAddresses: p.ListenAddresses, Port: p.Port,
		RunAs: account, Logins: logins(p),
		Database: p.Database, PgPass: p.PgPass, LogFile: filepath.Join(c.Dir(), "postgresql.log"),
		UseUnixSocket: p.UseUnixSocket, SocketDir: p.Parameters["unix_socket_directories"], KrbSrvName: p.KrbSrvName,
		BaseBackupOptions: p.BaseBackup, RewindOptions: p.RewindOptions, CtlTimeout: p.PgCtlTimeout, Env: env,
		Log: log.With("component", "postgresql"),
	}
	if c.Bootstrap != nil {
		o.InitDB = initdbOptions(c.Bootstrap.InitDB)
	}
	return o, nil
}

// initdbOptions makes initdb store passwords as SCRAM-SHA-256 where the operator has not chosen otherwise: before
// PostgreSQL 14 it would store them as md5 (initdb(1), --auth-host).
func initdbOptions(given []string) []string {
	if slices.ContainsFunc(given, func(o string) bool { return strings.HasPrefix(o, "--auth") || strings.HasPrefix(o, "-A") }) {
		return given
	}
	return append(slices.Clone(given), "--auth-host=scram-sha-256")
}

func logins(p *config.Postgres) postgres.Logins {
	return postgres.Logins{Superuser: credentials(p.Superuser), Replication: credentials(p.Replication), Rewind: credentials(p.Rewind)}
}

func credentials(a config.Auth) postgres.Credentials {
	return postgres.Credentials{
		Username: a.Username, Password: a.Password, SSLMode: a.SSLMode, SSLCert: a.SSLCert, SSLKey: a.SSLKey,
		SSLPassword: a.SSLPassword, SSLRootCert: a.SSLRootCert, SSLCRL: a.SSLCRL, SSLCRLDir: a.SSLCRLDir,
		GSSEncMode: a.GSSEncMode, ChannelBinding: a.ChannelBinding, SSLNegotiation: a.SSLNegotiation,
	}
}

// accountOf is the operating system's user as whom the server runs; nil: as ourselves.
func accountOf(name string) (*postgres.Account, error) {
	if name == "" || os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("postgresql.run_as: %w: make the user, or name another", err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if uid == 0 {
		return nil, fmt.Errorf("postgresql.run_as: PostgreSQL refuses to run as root: name another user")
	}
	return &postgres.Account{Name: name, UID: uid, GID: gid, Home: u.HomeDir}, nil
}

// source gives the REST API what this node knows of itself.
func (n *Node) source() api.Source {
	if n.agent != nil {
		return memberSource{n.agent, n.opt, n.server.Version(), n.disk}
	}
	if n.store == nil {
		return onlooker{opt: n.opt, disk: n.disk, proxy: n.proxy}
	}
	return n.coordinator()
}

type memberSource struct {
	agent   *agent.Agent
	opt     Options
	version int // of PostgreSQL
	disk    *disk.Watch
}

func (s memberSource) Status() api.Local { return s.local(s.agent.Status()) }

func (s memberSource) Fresh(ctx context.Context) api.Local { return s.local(s.agent.Fresh(ctx)) }

func (s memberSource) local(st agent.Status) api.Local {
	return api.Local{
		Name: st.Node.Name, Scope: st.Node.Scope, Version: s.opt.Version, HasServer: true,
		Member: st.Member, Snapshot: st.Snapshot, Known: st.Known, SeenAt: st.SeenAt,
		Dynamic: st.Dynamic, Probe: st.Probe, ServerVersion: s.version, Leads: st.Leads(), SystemID: st.SystemID, Tags: st.Member.Tags,
		Reason: st.Reason, Task: st.Task, LastTurn: wallOf(st.LastTurn), Problems: st.Problems,
		UnprotectedSince: st.UnprotectedSince, WatchdogFailed: st.WatchdogFailed, Failsafe: st.Failsafe, Samples: append(agentSamples(st), diskSamples(s.disk.Report())...),
	}
}

// wallOf is the wall time of an instant on the boot clock, for display.
func wallOf(i cluster.Instant) time.Time {
	if i == 0 {
		return time.Time{}
	}
	return time.Now().Add(-bootclock.Now().Sub(i))
}
