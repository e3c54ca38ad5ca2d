package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/havenha/haven/internal/freeport"
)

// variant is one way to the server.
type variant struct {
	name   string
	port   int
	middle *process // nil: nothing is in between
	no     string   // a protocol that it lacks
}

func (v *variant) lacks(protocol string) bool { return v.no == protocol }

// startVariants starts what the options name. One that cannot be had is told of on the page, and the others are measured.
func (w *world) startVariants() error {
	begin := map[string]func(*variant) error{
		"direct": func(v *variant) error { v.port = w.port; return nil },
		"haven-tcp": func(v *variant) error {
			return w.startHaven(v, "")
		},
		"haven-transaction": func(v *variant) error { return w.startHaven(v, w.pooled()) },
		"pgbouncer":         w.startPgBouncer,
		"haproxy":           w.startHAProxy,
	}
	for name := range strings.SplitSeq(w.o.variants, ",") {
		if begin[name] == nil {
			return fmt.Errorf("-variants: %q is unknown", name)
		}
		v := &variant{name: name}
		var err error
		if v.port, err = freeport.Pick(); err != nil {
			return err
		}
		if err := begin[name](v); err != nil {
			w.problems = append(w.problems, fmt.Sprintf("%s is not measured: %v", name, err))
			fmt.Println(w.problems[len(w.problems)-1])
			continue
		}
		w.variants = append(w.variants, v)
	}
	return nil
}

// write puts a file for the servers' account into a folder.
func (w *world) write(dir, name, text string) (string, error) {
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return "", err
	}
	if w.as == nil {
		return path, nil
	}
	return path, os.Chown(path, int(w.as.Uid), int(w.as.Gid))
}

// users is the auth_file of both poolers: the secret as the server stores it, so that no pooler knows the password.
func (w *world) users() string { return fmt.Sprintf("%q %q\n", role, w.secret) }

// pooled are the keys of a pooled listener and of the proxy.
func (w *world) pooled() string {
	return fmt.Sprintf("      mode: transaction\n      pool: {default_pool_size: %d, max_client_conn: 5000}\n  auth_type: scram-sha-256\n  auth_file: users.txt\n", w.o.pool)
}

// startHaven starts a node with no other role than the proxy.
func (w *world) startHaven(v *variant, pooled string) error {
	dir, err := w.folder(v.name)
	if err != nil {
		return err
	}
	rest, err := freeport.Pick()
	if err != nil {
		return err
	}
	if _, err := w.write(dir, "users.txt", w.users()); err != nil {
		return err
	}
	file, err := w.write(dir, "haven.yml", fmt.Sprintf(`haven: {format: 1, state_dir: state, address: 127.0.0.1}
scope: bench
name: %s
restapi: {listen: "127.0.0.1:%d"}
proxy:
  discover: rest
  members: ["%s"]
  stats: null
  listeners:
    - listen: "127.0.0.1:%d"
      target: primary
      admit: 10000
%s`, v.name, rest, w.api.Addr(), v.port, pooled))
	if err != nil {
		return err
	}
	if out, err := exec.Command(w.o.haven, "config", "check", file).CombinedOutput(); err != nil {
		text, _, _ := strings.Cut(strings.TrimPrefix(string(out), file), "\n")
		return fmt.Errorf("its configuration is refused: %s", text)
	}
	v.middle, err = w.launch(dir, v.name, v.port, syscall.SIGTERM, w.o.haven, "run", "-c", file)
	return err
}

func (w *world) startPgBouncer(v *variant) error {
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		return err
	}
	dir, err := w.folder(v.name)
	if err != nil {
		return err
	}
	users, err := w.write(dir, "users.txt", w.users())
	if err != nil {
		return err
	}
	more := ""
	if preparesInTransactions(firstLine(program, "--version")) {
		more = "max_prepared_statements = 200\n"
	} else {
		v.no = "prepared"
	}
	file, err := w.write(dir, "pgbouncer.ini", fmt.Sprintf(`[databases]
%s = host=127.0.0.1 port=%d
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = %d
unix_socket_dir =
auth_type = scram-sha-256
auth_file = %s
pool_mode = transaction
max_client_conn = 5000
default_pool_size = %d
ignore_startup_parameters = extra_float_digits
log_connections = 0
log_disconnections = 0
%s`, role, w.port, v.port, users, w.o.pool, more))
	if err != nil {
		return err
	}
	v.middle, err = w.launch(dir, v.name, v.port, syscall.SIGINT, program, file)
	return err
}

// preparesInTransactions tells whether that PgBouncer follows prepared statements in transaction mode: from 1.21 on.
func preparesInTransactions(version string) bool {
	var major, minor int
	_, err := fmt.Sscanf(version, "PgBouncer %d.%d", &major, &minor)
	return err == nil && (major > 1 || minor >= 21)
}

func (w *world) startHAProxy(v *variant) error {
	program, err := exec.LookPath("haproxy")
	if err != nil {
		return err
	}
	dir, err := w.folder(v.name)
	if err != nil {
		return err
	}
	file, err := w.write(dir, "haproxy.cfg", fmt.Sprintf(`global
    maxconn 5000
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
listen postgresql
    bind 127.0.0.1:%d
    server db1 127.0.0.1:%d
`, v.port, w.port))
	if err != nil {
		return err
	}
	v.middle, err = w.launch(dir, v.name, v.port, syscall.SIGTERM, program, "-db", "-f", file)
	return err
}
