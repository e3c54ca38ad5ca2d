package stack

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Patroni is Debian's patroni with etcd-server on every database host, and haproxy on the balancer, set up as guides set
// them up.
type Patroni struct {
	BinDir string // of PostgreSQL
}

func (p Patroni) file(s *Stack, member string) string {
	return filepath.Join(s.Dir, member+".yml")
}

func (p Patroni) prepare(s *Stack) error {
	var endpoints []string
	for _, m := range Members() {
		endpoints = append(endpoints, s.Net.Host(m).At(EtcdPort))
	}
	for _, m := range Members() {
		set, addr := s.Settings, s.Net.Host(m).Addr
		synchronous := set.Synchronous != "off"
		text := fmt.Sprintf(patroniFile, m, addr, addr, restUser, s.Password, strings.Join(endpoints, ","),
			int(set.TTL.Seconds()), int(set.LoopWait.Seconds()), int(set.RetryTimeout.Seconds()), int(set.StartTimeout.Seconds()), synchronous,
			addr, addr, s.DataDir(m), p.BinDir, filepath.Join(s.Dir, m+".pgpass"), s.Password, s.Password)
		if err := os.WriteFile(p.file(s, m), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(s.Dir, "haproxy.cfg"), []byte(haproxyFile(s)), 0o644)
}

const patroniFile = `scope: drill
name: %s
restapi:
  listen: %s:8008
  connect_address: %s:8008
  authentication: {username: %s, password: %s}
etcd3:
  hosts: %s
bootstrap:
  dcs:
    ttl: %d
    loop_wait: %d
    retry_timeout: %d
    primary_start_timeout: %d
    maximum_lag_on_failover: 1048576
    synchronous_mode: %v
    postgresql:
      use_pg_rewind: true
      use_slots: true
      parameters: {max_connections: 100, wal_level: replica, hot_standby: "on", max_wal_senders: 10, max_replication_slots: 10}
  initdb: [{encoding: UTF8}, data-checksums]
  pg_hba:
    - host replication replicator 0.0.0.0/0 md5
    - host all all 0.0.0.0/0 md5
postgresql:
  listen: %s:5432
  connect_address: %s:5432
  data_dir: %s
  bin_dir: %s
  pgpass: %s
  authentication:
    superuser: {username: postgres, password: %s}
    replication: {username: replicator, password: %s}
  parameters: {unix_socket_directories: ""}
`

// haproxyFile follows Patroni's documentation: health by its REST API, sessions of a server that is down are cut.
func haproxyFile(s *Stack) string {
	var b strings.Builder
	b.WriteString(`global
    maxconn 1000
defaults
    mode tcp
    retries 2
    timeout client 30m
    timeout connect 4s
    timeout server 30m
    timeout check 5s
`)
	for _, l := range []struct {
		name, path string
		port       int
	}{{"primary", "/primary", WritePort}, {"replicas", "/replica", ReadPort}} {
		fmt.Fprintf(&b, "listen %s\n    bind %s:%d\n    option httpchk OPTIONS %s\n    http-check expect status 200\n", l.name, s.Net.Host(Balancer).Addr, l.port, l.path)
		fmt.Fprintf(&b, "    default-server %s on-marked-down shutdown-sessions\n", s.Settings.Check)
		for _, m := range Members() {
			fmt.Fprintf(&b, "    server %s %s maxconn 100 check port %d\n", m, s.Net.Host(m).At(SQLPort), RESTPort)
		}
	}
	return b.String()
}

func (p Patroni) programs(s *Stack, host string) []program {
	if host == Balancer {
		return []program{{"haproxy", []string{"/usr/sbin/haproxy", "-db", "-f", filepath.Join(s.Dir, "haproxy.cfg")}}}
	}
	var cluster []string
	for _, m := range Members() {
		cluster = append(cluster, fmt.Sprintf("%s=http://%s", m, s.Net.Host(m).At(PeerPort)))
	}
	h := s.Net.Host(host)
	client, peer := "http://"+h.At(EtcdPort), "http://"+h.At(PeerPort)
	return []program{
		{"etcd", []string{"etcd", "--name", host, "--data-dir", filepath.Join(s.Dir, host, "etcd"),
			"--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
			"--initial-cluster", strings.Join(cluster, ","), "--initial-cluster-state", "new", "--log-level", "warn"}},
		{"patroni", []string{"patroni", p.file(s, host)}},
	}
}
