package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"github.com/havenha/haven/internal/freeport"
	"github.com/havenha/haven/internal/postgres/programs"
	"github.com/havenha/haven/internal/postgres/shmem"
)

// Role, password and database of the benchmark.
const (
	role     = "bench"
	password = "bench-password"
)

// world is one PostgreSQL with everything that is in front of it.
type world struct {
	o        options
	dir      string
	bin      string // PostgreSQL's programs
	as       *syscall.Credential
	port     int // PostgreSQL's
	api      net.Listener
	running  []func() error // what is to be ended, in the order of its start
	variants []*variant
	problems []string
	secret   string // SCRAM secret of the role
}

func newWorld(ctx context.Context, o options, clients int) (*world, error) {
	w := &world{o: o, dir: o.dir}
	var err error
	if w.o.haven, err = filepath.Abs(o.haven); err != nil {
		return nil, err
	}
	if w.bin, err = programs.Find(0); err != nil {
		return nil, err
	}
	if w.as, err = account(); err != nil {
		return nil, err
	}
	if w.dir == "" {
		if w.dir, err = os.MkdirTemp("", "haven-benchpool-"); err != nil {
			return nil, err
		}
		w.running = append(w.running, func() error { return shmem.RemoveAll(w.dir) })
	}
	if err := os.Chmod(w.dir, 0o755); err != nil {
		return nil, err
	}
	steps := []func() error{
		func() error { return w.startPostgres(clients) },
		func() error { return w.fill(ctx) },
		w.startAPI, w.startVariants,
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, errors.Join(err, w.close())
		}
	}
	return w, nil
}

// close ends everything, the last first.
func (w *world) close() error {
	var errs []error
	for i := len(w.running) - 1; i >= 0; i-- {
		errs = append(errs, w.running[i]())
	}
	w.running = nil
	return errors.Join(errs...)
}

// folder makes a folder that the servers' account owns.
func (w *world) folder(name string) (string, error) {
	dir := filepath.Join(w.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	if w.as == nil {
		return dir, nil
	}
	return dir, os.Chown(dir, int(w.as.Uid), int(w.as.Gid))
}

// launch starts a program in that folder, which ends with the world.
func (w *world) launch(dir, name string, port int, end syscall.Signal, command ...string) (*process, error) {
	p, err := start(dir, name, w.as, port, command...)
	if err != nil {
		return nil, err
	}
	w.running = append(w.running, func() error { return p.stop(end) })
	return p, nil
}

// startPostgres makes a database and starts it; both commits and connections are as a production server has them.
func (w *world) startPostgres(clients int) error {
	dir, err := w.folder("postgres")
	if err != nil {
		return err
	}
	if w.port, err = freeport.Pick(); err != nil {
		return err
	}
	data := filepath.Join(dir, "data")
	initdb := exec.Command(filepath.Join(w.bin, "initdb"), "-D", data, "-U", "postgres", "--auth-local=trust", "--auth-host=scram-sha-256",
		"--locale=C", "--encoding=UTF8", "--no-sync")
	initdb.Dir, initdb.SysProcAttr = dir, &syscall.SysProcAttr{Credential: w.as}
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, out)
	}
	command := []string{filepath.Join(w.bin, "postgres"), "-D", data}
	for _, setting := range []string{
		fmt.Sprintf("port=%d", w.port), "listen_addresses=127.0.0.1", "unix_socket_directories=" + dir,
		fmt.Sprintf("max_connections=%d", clients+200), "shared_buffers=256MB", "max_wal_size=4GB", "password_encryption=scram-sha-256",
	} {
		command = append(command, "-c", setting)
	}
	_, err = w.launch(dir, "postgresql", w.port, syscall.SIGINT, command...)
	return err
}

// fill makes role and tables, and learns the role's secret.
func (w *world) fill(ctx context.Context) error {
	super := fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres", filepath.Join(w.dir, "postgres"), w.port)
	conn, err := pgx.Connect(ctx, super)
	for deadline := time.Now().Add(time.Minute); err != nil && time.Now().Before(deadline) && ctx.Err() == nil; {
		time.Sleep(50 * time.Millisecond) // it listens before it is ready
		conn, err = pgx.Connect(ctx, super)
	}
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, sql := range []string{
		"create role " + role + " login password '" + password + "'", "create database " + role + " owner " + role,
	} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return err
		}
	}
	if err := conn.QueryRow(ctx, "select rolpassword from pg_authid where rolname = $1", role).Scan(&w.secret); err != nil {
		return err
	}
	fmt.Printf("filling the tables, scale %d\n", w.o.scale)
	cmd := w.command(ctx, w.port, "-i", "-q", "-I", "dtGvp", "-s", strconv.Itoa(w.o.scale))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("pgbench -i: %w: %s", err, out)
	}
	return nil
}

// startAPI answers as the REST API of the only member would, for Haven's proxy.
func (w *world) startAPI() error {
	var err error
	if w.api, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	cluster := fmt.Sprintf(`{"scope":"bench","members":[{"name":"db1","role":"leader","state":"running",`+
		`"api_url":"http://%s/patroni","host":"127.0.0.1","port":%d,"timeline":1}]}`, w.api.Addr(), w.port)
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/cluster" {
			fmt.Fprint(rw, cluster)
			return
		}
		fmt.Fprint(rw, `{"role":"primary","patroni":{"scope":"bench","name":"db1"}}`)
	})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(w.api) // ends with Close
	}()
	w.running = append(w.running, func() error {
		err := server.Close()
		<-ended
		return err
	})
	return nil
}

// describe says what is measured on what.
func (w *world) describe(clients []int) (results, error) {
	sources, err := fingerprint()
	if err != nil {
		return results{}, err
	}
	r := results{Begun: time.Now().UTC(), Cores: runtime.NumCPU(), CPU: cpuName(), Versions: map[string]string{
		"PostgreSQL": firstLine(filepath.Join(w.bin, "postgres"), "--version"), "Haven": firstLine(w.o.haven, "version") + ", sources " + sources,
		"PgBouncer": firstLine("pgbouncer", "--version"), "HAProxy": firstLine("haproxy", "-v"),
	}, Seconds: w.o.seconds, Warmup: w.o.warmup, Scale: w.o.scale, Pool: w.o.pool, Seed: w.o.seed}
	for _, v := range w.variants {
		r.Variants = append(r.Variants, v.name)
		r.Cells = append(r.Cells, w.cells(v, clients)...)
	}
	r.asked = len(r.Cells)
	r.Problems = append(r.Problems, w.problems...)
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		r.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		r.Load = float64(info.Loads[0]) / (1 << unix.SI_LOAD_SHIFT)
	}
	return r, nil
}

// cells are those of a variant that the options ask for.
func (w *world) cells(v *variant, clients []int) (out []cell) {
	for workload := range strings.SplitSeq(w.o.workloads, ",") {
		for protocol := range strings.SplitSeq(w.o.protocols, ",") {
			if v.lacks(protocol) {
				continue
			}
			for _, n := range clients {
				out = append(out, cell{Variant: v.name, Workload: workload, Protocol: protocol, Clients: n})
			}
		}
	}
	return out
}

// fingerprint tells apart what Haven was measured: it is that of the code on a statement's way, and of the compiler.
func fingerprint() (string, error) {
	sum := sha256.New()
	fmt.Fprintln(sum, runtime.Version())
	for _, root := range []string{"internal/proxy", "internal/pgwire", "internal/pool"} {
		err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
				return err
			}
			text, err := os.ReadFile(name)
			fmt.Fprintf(sum, "%s %d\n%s", name, len(text), text)
			return err
		})
		if err != nil {
			return "", fmt.Errorf("the sources of Haven are read in the current directory, which must be the project's: %w", err)
		}
	}
	return hex.EncodeToString(sum.Sum(nil)[:6]), nil
}

func cpuName() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// firstLine is the first line of what a program says; empty: it is not there.
func firstLine(command ...string) string {
	out, err := exec.Command(command[0], command[1:]...).Output()
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}
