// Package pgtest makes real PostgreSQL instances for tests: on free ports of 127.0.0.1, as an unprivileged user, in a
// temporary directory. Whatever was started is killed and removed at the end of the test, also when it fails.
package pgtest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/freeport"
	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/programs"
	"github.com/havenha/haven/internal/postgres/shmem"
	"golang.org/x/sys/unix"
)

// BinDirs are the servers that tests run on: Debian's newest, and those that HAVEN_TEST_PG names, separated by colons.
func BinDirs() []string {
	var dirs []string
	if dir, err := programs.Find(0); err == nil {
		dirs = append(dirs, dir)
	}
	for _, dir := range filepath.SplitList(os.Getenv("HAVEN_TEST_PG")) {
		if dir != "" {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// Passwords of the roles of a test instance.
const (
	SuperPassword = "super' pass\\word"
	ReplPassword  = "repl:pass"
)

// Account is the user that PostgreSQL runs as in tests: postgres if we are root, else nil (ourselves).
func Account(t testing.TB) *postgres.Account {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Skipf("tests with a real server need a user postgres when they run as root: %v", err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	return &postgres.Account{Name: u.Username, UID: uid, GID: gid, Home: u.HomeDir}
}

// roomy is how much memory a file system in it must have left to hold the data of a test; a container's often has 64 MB.
const roomy = 1 << 30

// base is where temporary directories are made: where TMPDIR says, else in memory where there is room, since making the
// thousand files of a database takes twenty times as long on a disk; else the usual place.
func base() string {
	const memory = "/dev/shm"
	var st unix.Statfs_t
	if os.Getenv("TMPDIR") != "" || unix.Statfs(memory, &st) != nil || st.Type != unix.TMPFS_MAGIC {
		return ""
	}
	if st.Bavail*uint64(st.Bsize) < roomy || unix.Access(memory, unix.W_OK) != nil {
		return ""
	}
	return memory
}

// Dir is a temporary directory that the server's user can use, and its sockets' paths are short enough in.
func Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(base(), "haven-pg-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := shmem.ReleaseBelow(dir); err != nil {
			t.Error(err)
		}
		_ = os.RemoveAll(dir)
	})
	if a := Account(t); a != nil {
		if err := os.Chown(dir, a.UID, a.GID); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// Options are those of a new instance called name, on the newest server found; change them, then call New.
func Options(t testing.TB, name string) postgres.Options {
	t.Helper()
	bins := BinDirs()
	if len(bins) == 0 {
		t.Skip("no PostgreSQL server was found: install one, or set HAVEN_TEST_PG")
	}
	dir := Dir(t)
	return postgres.Options{
		BinDir: bins[0], DataDir: filepath.Join(dir, "data"), Name: name, Scope: "test",
		ListenAddresses: "127.0.0.1", Port: FreePort(t), RunAs: Account(t),
		Logins: postgres.Logins{
			Superuser:   postgres.Credentials{Username: "postgres", Password: SuperPassword},
			Replication: postgres.Credentials{Username: "replicator", Password: ReplPassword},
		},
		PgPass: filepath.Join(dir, "pgpass"), LogFile: filepath.Join(dir, "postgres.log"),
		SocketDir: dir, InitDB: []string{"--data-checksums", "--encoding=UTF8", "--locale=C", "--auth=scram-sha-256"},
		CtlTimeout: 30 * time.Second, Log: slog.New(slog.NewTextHandler(testWriter{t}, nil)),
	}
}

// New makes the instance; nothing is started yet.
func New(t testing.TB, o postgres.Options) *postgres.Instance {
	t.Helper()
	i, err := postgres.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := i.Kill(ctx); err != nil {
			t.Errorf("clean up: %v", err)
		}
		i.Close()
		if t.Failed() {
			showLog(t, o)
		}
	})
	return i
}

func showLog(t testing.TB, o postgres.Options) {
	raw, err := os.ReadFile(o.LogFile)
	if err != nil {
		return
	}
	lines := strings.Split(string(raw), "\n")
	t.Logf("end of the log of %s:\n%s", o.Name, strings.Join(lines[max(0, len(lines)-40):], "\n"))
}

// Settings are those of a test instance; HBA lets the roles in from 127.0.0.1 by password.
func Settings() postgres.Settings {
	return postgres.Settings{
		Controlled: map[string]string{"wal_level": "replica", "hot_standby": "on", "max_connections": "30", "max_wal_senders": "10",
			"max_replication_slots": "10", "wal_log_hints": "on", "max_worker_processes": "8"},
		Parameters: map[string]string{"shared_buffers": "8MB", "dynamic_shared_memory_type": "mmap", "max_wal_size": "256MB", "wal_keep_size": "64MB", "log_min_messages": "info"},
		HBA: []string{"local all all scram-sha-256", "host all all 127.0.0.1/32 scram-sha-256",
			"host replication all 127.0.0.1/32 scram-sha-256"},
	}
}

// BackInRecovery kills a server and starts it as a standby that follows nobody: it is in recovery until it is promoted.
func BackInRecovery(t testing.TB, i *postgres.Instance) {
	t.Helper()
	ctx := Context(t)
	Must(t, i.Kill(ctx))
	_, err := i.Configure(Settings(), nil, true)
	Must(t, err)
	_, err = i.Start(ctx, Settings())
	Must(t, err)
}

// Primary makes a new database and starts it, with its roles.
func Primary(t testing.TB, o postgres.Options) *postgres.Instance {
	t.Helper()
	return PrimaryWith(t, o, Settings())
}

// PrimaryWith is Primary with settings of the test's own.
func PrimaryWith(t testing.TB, o postgres.Options, s postgres.Settings) *postgres.Instance {
	t.Helper()
	i := New(t, o)
	ctx := Context(t)
	Init(t, i, o)
	_, err := i.Configure(s, nil, false)
	Must(t, err)
	_, err = i.Start(ctx, s)
	Must(t, err)
	Must(t, i.PostBootstrap(ctx, postgres.Bootstrap{}))
	return i
}

// Upstream names the instance of those options as somebody to follow.
func Upstream(o postgres.Options, slot string) postgres.Upstream {
	return postgres.Upstream{Name: o.Name, Host: "127.0.0.1", Port: strconv.Itoa(o.Port), Slot: slot}
}

// FreePort is a port of 127.0.0.1 that was free a moment ago.
func FreePort(t testing.TB) int {
	t.Helper()
	port, err := freeport.Pick()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// Context ends after a minute, or with the test.
func Context(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// Must fails the test on an error.
func Must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Eventually waits until is returns nil, for at most half a minute.
func Eventually(t testing.TB, what string, is func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := is()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// ConnString reaches the instance as superuser.
func ConnString(o postgres.Options, database string) string {
	pw := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(o.Superuser.Password)
	return fmt.Sprintf("host=127.0.0.1 port=%d user=%s password='%s' dbname=%s sslmode=disable", o.Port, o.Superuser.Username, pw, database)
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}
