// Package demo runs a whole cluster on one machine: members with their own embedded etcd and a proxy, each a process
// of its own, on loopback.
//
// It guarantees that nothing of it is left when it ends, however it ends: a keeper process, in a session of its own,
// is the parent of all nodes and learns of the demo's end by a broken pipe. It leaves to the caller how the cluster's
// state is drawn.
package demo

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/havenha/haven/internal/freeport"
)

// Plan says what is run where.
type Plan struct {
	Dir     string   `json:"dir"`
	File    string   `json:"file"`  // the configuration of all nodes
	Nodes   []string `json:"nodes"` // in the order they are started
	Members []string `json:"members"`
	Write   string   `json:"write"` // host:port of the read/write, read-only, pooled and statistics listeners
	Read    string   `json:"read"`
	Pool    string   `json:"pool"`
	Stats   string   `json:"stats"`
	API     []string `json:"api"`  // REST addresses of the members
	Etcd    []string `json:"etcd"` // client addresses
	PgPass  string   `json:"pgpass"`
	Account *Account `json:"account,omitempty"` // whom the nodes run as; nil: us
	Remove  bool     `json:"remove"`            // the directory goes when the demo ends
}

// Account is an operating system user.
type Account struct{ UID, GID int }

// DSN is the connection string of the demo's application through the given listener.
func (p Plan) DSN(address string) string {
	host, port, _ := net.SplitHostPort(address)
	return fmt.Sprintf("host=%s port=%s user=demo dbname=demo passfile=%s connect_timeout=5", host, port, p.PgPass)
}

// Shape is what a demo's cluster is like.
type Shape struct {
	Members int
	Sync    string // on, quorum, off
	// AnyPorts takes whatever ports are free; otherwise the usual ones come first.
	AnyPorts bool
}

// ports hands out free ports, the usual ones first.
type ports struct {
	taken map[int]bool
	any   bool
}

func (p *ports) pick(usual int) int {
	if !p.any && !p.taken[usual] && free(usual) {
		p.taken[usual] = true
		return usual
	}
	for {
		port, err := freeport.Pick()
		if err != nil {
			return usual // the node that wants it will say what is wrong
		}
		if !p.taken[port] {
			p.taken[port] = true
			return port
		}
	}
}

func free(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// Make writes the configuration and the secrets of a demo into dir. An earlier demo in the same directory is taken up
// again: its file and its data stay.
func Make(dir string, shape Shape) (Plan, error) {
	p := Plan{Dir: dir, File: filepath.Join(dir, "cluster.yml"), PgPass: filepath.Join(dir, "secrets", "pgpass")}
	if err := os.MkdirAll(filepath.Join(dir, "secrets"), 0o700); err != nil {
		return p, fmt.Errorf("demo directory: %w", err)
	}
	secrets, err := makeSecrets(filepath.Join(dir, "secrets"))
	if err != nil {
		return p, err
	}
	text := p.layOut(shape)
	line := func(address string) string {
		return address + ":demo:demo:" + secrets["demo"] + "\n"
	}
	for file, content := range map[string]string{
		p.PgPass: line(p.Write) + line(p.Read) + line(p.Pool), p.users(): fmt.Sprintf("\"demo\" %q\n", secrets["demo"]), p.File: text,
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			return p, fmt.Errorf("demo directory: %w", err)
		}
	}
	return p, nil
}

// users is the file of those who may log in at the pooled listener.
func (p *Plan) users() string { return filepath.Join(p.Dir, "secrets", "users.txt") }

// makeSecrets makes random passwords, and keeps those of an earlier demo.
func makeSecrets(dir string) (map[string]string, error) {
	out := map[string]string{}
	for _, name := range []string{"superuser", "replication", "restapi", "demo"} {
		path := filepath.Join(dir, name)
		if b, err := os.ReadFile(path); err == nil {
			out[name] = strings.TrimSpace(string(b))
			continue
		}
		b := make([]byte, 18)
		rand.Read(b) // never fails (crypto/rand)
		out[name] = base64.RawURLEncoding.EncodeToString(b)
		if err := os.WriteFile(path, []byte(out[name]+"\n"), 0o600); err != nil {
			return nil, fmt.Errorf("demo secrets: %w", err)
		}
	}
	return out, nil
}

// layOut chooses ports and composes the configuration file.
func (p *Plan) layOut(shape Shape) string {
	free := &ports{taken: map[int]bool{}, any: shape.AnyPorts}
	at := func(usual int) string { return fmt.Sprintf("127.0.0.1:%d", free.pick(usual)) }
	var etcd, nodes strings.Builder
	for n := 1; n <= shape.Members; n++ {
		name := fmt.Sprintf("db%d", n)
		usual := 9_000 + n*1000 // below freeport's, and those are below the range of connections' own ports
		client, peer, sql, rest := at(usual+379), at(usual+380), at(usual+432), at(usual+8)
		fmt.Fprintf(&etcd, "    %s: {client: %q, peer: %q}\n", name, client, peer)
		fmt.Fprintf(&nodes, "  %s: {postgresql: {listen: %q, data_dir: %q}, restapi: {listen: %q}}\n", name, sql, filepath.Join(p.Dir, name), rest)
		p.Members, p.API, p.Etcd = append(p.Members, name), append(p.API, rest), append(p.Etcd, client)
	}
	p.Write, p.Read, p.Pool, p.Stats = at(5000), at(5001), at(6432), at(7000)
	p.Nodes = append(append([]string(nil), p.Members...), "proxy")
	secret := func(name string) string { return fmt.Sprintf("%q", filepath.Join(p.Dir, "secrets", name)) }
	return fmt.Sprintf(template, p.Dir, etcd.String(), secret("superuser"), secret("replication"), secret("restapi"), secret("demo"),
		shape.Sync, nodes.String(), at(8080), p.users(), p.Write, p.Read, p.Pool, p.Stats)
}

const template = `# A cluster on one machine, made by haven demo. Run one node of it with: haven run cluster.yml --name db1
haven: {format: 1, state_dir: %q, address: 127.0.0.1}
watchdog: {mode: "off"}
scope: demo

etcd:
  embedded: true
  members:
%s
postgresql:
  authentication:
    superuser:   {password_file: %s}
    replication: {password_file: %s}
  parameters: {unix_socket_directories: "", log_line_prefix: "%%m [%%p] "}

restapi:
  authentication: {username: haven, password_file: %s}

bootstrap:
  databases:
    - {name: demo, owner: demo, password_file: %s}
  dcs:
    ttl: 10
    loop_wait: 2
    retry_timeout: 4
    synchronous_mode: %s
    postgresql: {parameters: {max_connections: 100}}

nodes:
%s  proxy:
    etcd: {embedded: false}
    postgresql: null
    bootstrap: null
    restapi: {listen: %q}
    proxy:
      address: 127.0.0.1
      auth_file: %q
      listeners:
        - {listen: %q, target: primary}
        - {listen: %q, target: replica}
        - {listen: %q, target: primary, mode: transaction}
      stats: {listen: %q}
`
