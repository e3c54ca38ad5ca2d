package stack

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Haven is one program on every host: members with embedded etcd, and a proxy on the balancer.
type Haven struct{ Binary string }

func (h Haven) file(s *Stack) string { return filepath.Join(s.Dir, "haven.yml") }

func (h Haven) prepare(s *Stack) error {
	secret := filepath.Join(s.Dir, "secret")
	if err := os.WriteFile(secret, []byte(s.Password+"\n"), 0o600); err != nil {
		return err
	}
	var etcd, nodes strings.Builder
	for _, m := range Members() {
		fmt.Fprintf(&etcd, "    %s: %s\n", m, s.Net.Host(m).Addr)
		fmt.Fprintf(&nodes, "  %s: {haven: {address: %s}, postgresql: {data_dir: %q}}\n", m, s.Net.Host(m).Addr, s.DataDir(m))
	}
	set := s.Settings
	text := fmt.Sprintf(havenFile, s.Dir, etcd.String(), secret, secret, restUser, secret,
		int(set.TTL.Seconds()), int(set.LoopWait.Seconds()), int(set.RetryTimeout.Seconds()), set.Synchronous, set.Failsafe, nodes.String(),
		s.Net.Host(Balancer).Addr, WritePort, ReadPort)
	return os.WriteFile(h.file(s), []byte(text), 0o600)
}

const havenFile = `haven: {format: 1, state_dir: %q}
watchdog: {mode: "off"}
scope: drill
etcd:
  embedded: true
  members:
%s
postgresql:
  authentication:
    superuser:   {username: postgres, password_file: %q}
    replication: {password_file: %q}
  parameters: {unix_socket_directories: ""}
restapi:
  authentication: {username: %s, password_file: %q}
bootstrap:
  dcs:
    ttl: %d
    loop_wait: %d
    retry_timeout: %d
    synchronous_mode: %s
    failsafe_mode: %v
    postgresql: {parameters: {max_connections: 100}}
nodes:
%s  lb:
    haven: {address: %s}
    etcd: {embedded: false}
    postgresql: null
    bootstrap: null
    proxy:
      listeners:
        - {listen: "0.0.0.0:%d", target: primary}
        - {listen: "0.0.0.0:%d", target: replica}
`

func (h Haven) programs(s *Stack, host string) []program {
	return []program{{name: "haven", argv: []string{h.Binary, "run", h.file(s), "--name", host}}}
}
