package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/havenha/haven/internal/postgres/processes"
	"github.com/havenha/haven/internal/postgres/programs"
	"github.com/havenha/haven/internal/postgres/session"
)

// Account is the operating system's user as whom server programs run.
type Account struct {
	Name     string
	UID, GID int
	Home     string
}

// Credentials are how a role connects; the names are libpq's.
type Credentials struct {
	Username, Password                                 string
	SSLMode, SSLCert, SSLKey, SSLPassword, SSLRootCert string
	SSLCRL, SSLCRLDir                                  string
	GSSEncMode, ChannelBinding, SSLNegotiation         string
}

// Options say where an instance is and how its programs are run. They do not change while an Instance lives.
type Options struct {
	BinDir, DataDir string
	// ConfigDir holds postgresql.conf, pg_hba.conf and pg_ident.conf; empty: DataDir. ConfigName is the first of them without
	// .conf; empty: postgresql.
	ConfigDir, ConfigName string
	// BinNames are other names of programs in BinDir, or their paths, by the usual names.
	BinNames map[string]string
	// Name is the member's name, and the application_name with which it streams. Scope becomes cluster_name.
	Name, Scope     string
	ListenAddresses string
	Port            int
	// RunAs is whom server programs run as; nil: the user we are. PostgreSQL refuses to run as root.
	RunAs *Account

	Logins
	Database string // maintenance database; empty: postgres

	// PgPass is the password file that we write for PostgreSQL's own programs (mode 0600). Empty: <name>.pgpass beside
	// the data directory.
	PgPass string
	// LogFile takes what the server writes to stdout and stderr. Empty: <name>.log beside the data directory.
	LogFile string
	// SocketDir is written as unix_socket_directories when it is not empty; with UseUnixSocket we connect through it.
	UseUnixSocket bool
	SocketDir     string
	// KrbSrvName is libpq's krbsrvname for connections to other members; empty: its default.
	KrbSrvName string

	InitDB                           []string // options of initdb, ready for the command line
	BaseBackupOptions, RewindOptions []string // with BaseBackupOptions, pg_basebackup makes the copies

	// CtlTimeout is how long Start waits for the server; zero: 60 s.
	CtlTimeout time.Duration
	// Env is the environment of children, before PATRONI_*, HAVEN_*, KUBERNETES_*, NOTIFY_SOCKET and libpq's variables
	// are removed from it. Nil: PATH and LANG=C.UTF-8 only.
	Env []string
	Log *slog.Logger // nil: nothing is logged
}

// Upstream is whom a standby follows, or a clone copies from. Slot is the physical replication slot to stream from;
// empty: none.
type Upstream struct{ Name, Host, Port, Slot string }

// Address is host:port, for messages.
func (u Upstream) Address() string { return net.JoinHostPort(u.Host, u.Port) }

// Errors that callers tell apart.
var (
	// ErrNotEmpty: the data directory holds something that is not ours to replace.
	ErrNotEmpty = errors.New("the data directory is not empty")
	// ErrNoRewind: pg_rewind cannot be used here.
	ErrNoRewind = errors.New("pg_rewind cannot be used")
	// ErrSameTimeline: both servers are on the same timeline, so that pg_rewind would do nothing; make a new copy.
	ErrSameTimeline = errors.New("pg_rewind cannot tell two histories of the same timeline apart")
	// ErrNoAnswer: the upstream could not be asked what it is.
	ErrNoAnswer = errors.New("the upstream does not answer")
	// ErrNoCheckpoint: the upstream was promoted, but has not finished a checkpoint since; run one there and try again.
	ErrNoCheckpoint = errors.New("the upstream has not finished a checkpoint since its promotion")
	// ErrNotReady: the server runs, but did not accept connections in time.
	ErrNotReady = errors.New("the server does not accept connections yet")
	// ErrRead: a server that was started ended when it had come to its data, which may so be to blame. No other start that has
	// ended says anything against them: a port may be taken, a parameter wrong, a library missing.
	ErrRead = errors.New("the server ended at once, when it had come to its data")
	// ErrNotRunning: no server runs in the data directory.
	ErrNotRunning = errors.New("the server is not running")
	// ErrTorn: a rewind of this data directory, or the moving aside of its tablespaces, began and did not end; it must not be started,
	// only replaced.
	ErrTorn = errors.New("a rewind of the data directory, or the moving aside of its tablespaces, was interrupted")
)

// Instance is the PostgreSQL instance of one data directory.
type Instance struct {
	opt     Options
	login   atomic.Pointer[Logins]
	version int
	log     *slog.Logger
	// launcher is who starts the server; nil: we do.
	launcher processes.Launcher

	files sync.Mutex        // held while configuration files are rewritten
	addrs map[string]string // last address of each upstream's host name; guarded by files

	mu     sync.Mutex
	server *Server
	exe    string // executable of the server last seen, as /proc names it

	heart *session.Heartbeat

	filled atomic.Bool // what stands in an unfinished data directory was put there by a command of ours
}

// New checks that the server's programs are there and reads their version.
func New(o Options) (*Instance, error) {
	if o.DataDir == "" {
		return nil, errors.New("postgresql.data_dir is empty: name the directory that holds the database")
	}
	dir, err := filepath.Abs(o.DataDir)
	if err != nil {
		return nil, fmt.Errorf("data directory %s: %w", o.DataDir, err)
	}
	o.DataDir = dir
	if o.ConfigDir, err = filepath.Abs(firstOf(o.ConfigDir, dir)); err != nil {
		return nil, fmt.Errorf("configuration directory %s: %w", o.ConfigDir, err)
	}
	if o.BinDir == "" {
		if o.BinDir, err = programs.Find(0); err != nil {
			return nil, err
		}
	}
	version, err := programs.VersionOf(o.program("postgres"), o.program("initdb"))
	if err != nil {
		return nil, err
	}
	fillDefaults(&o)
	i := &Instance{opt: o, version: version, log: o.Log, addrs: map[string]string{}}
	i.SetLogins(o.Logins)
	i.heart = session.NewHeartbeat(i.heartConfig)
	return i, nil
}

// Logins are the roles by which servers are logged in to, with their passwords. An empty Rewind means Superuser.
type Logins struct{ Superuser, Replication, Rewind Credentials }

// SetLogins changes the logins for sessions that are opened from now on, and for the password file when it is written next.
func (i *Instance) SetLogins(l Logins) {
	l.Superuser.Username = firstOf(l.Superuser.Username, "postgres")
	l.Replication.Username = firstOf(l.Replication.Username, l.Superuser.Username)
	if l.Rewind.Username == "" {
		l.Rewind = l.Superuser
	}
	i.login.Store(&l)
}

func (i *Instance) logins() *Logins { return i.login.Load() }

func fillDefaults(o *Options) {
	beside := filepath.Join(filepath.Dir(o.DataDir), firstOf(o.Name, filepath.Base(o.DataDir)))
	o.ConfigName = firstOf(o.ConfigName, "postgresql")
	o.Database = firstOf(o.Database, "postgres")
	o.PgPass = firstOf(o.PgPass, beside+".pgpass")
	o.LogFile = firstOf(o.LogFile, beside+".log")
	if o.Port == 0 {
		o.Port = 5432
	}
	if o.CtlTimeout <= 0 {
		o.CtlTimeout = 60 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// LaunchBy has the server started by somebody else, who becomes its parent and outlives us. Call it before anything is
// started.
func (i *Instance) LaunchBy(l processes.Launcher) { i.launcher = l }

// Version is the version of the server's programs as a number, for instance 150018 for 15.18.
func (i *Instance) Version() int { return i.version }

// DataDir is the absolute path of the data directory.
func (i *Instance) DataDir() string { return i.opt.DataDir }

// Close ends what watches the server and the heartbeat connection, and waits for it. The server goes on.
func (i *Instance) Close() {
	i.heart.Close()
	i.mu.Lock()
	s := i.server
	i.server = nil
	i.mu.Unlock()
	if s != nil {
		s.detach()
	}
}

// bin is the path of one of PostgreSQL's programs.
func (i *Instance) bin(name string) string { return i.opt.program(name) }

func (o Options) program(name string) string {
	if called := o.BinNames[name]; filepath.IsAbs(called) {
		return called
	} else if called != "" {
		name = called
	}
	return filepath.Join(o.BinDir, name)
}

func (i *Instance) path(elem ...string) string {
	return filepath.Join(append([]string{i.opt.DataDir}, elem...)...)
}

// command prepares a program of PostgreSQL, to be run as RunAs. When ctx ends it gets SIGTERM, and after ten seconds
// SIGKILL.
func (i *Instance) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = i.environment()
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: i.credential()}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

func (i *Instance) credential() *syscall.Credential {
	a := i.opt.RunAs
	if a == nil || a.UID == os.Geteuid() {
		return nil
	}
	return &syscall.Credential{Uid: uint32(a.UID), Gid: uint32(a.GID), Groups: a.groups()}
}

// run runs a program to its end; its output is part of the error.
func (i *Instance) run(cmd *exec.Cmd) error {
	_, err := i.output(cmd)
	return err
}

func (i *Instance) output(cmd *exec.Cmd) (string, error) {
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if err == nil {
		return out.String(), nil
	}
	if text := lastLines(out.String(), 12); text != "" {
		return "", fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, text)
	}
	return "", fmt.Errorf("%s: %w", filepath.Base(cmd.Path), err)
}

func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
