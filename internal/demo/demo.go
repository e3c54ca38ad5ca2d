package demo

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/dcs/etcd"
	"github.com/havenha/haven/internal/postgres/shmem"
	"golang.org/x/sys/unix"
)

// Options are what the operator asked for.
type Options struct {
	Shape
	Dir string // empty: a temporary one, removed at the end
	// KillPrimary shows one failover, with writers, and ends.
	KillPrimary bool
	// For ends the demo after that time; 0: it runs until it is interrupted.
	For time.Duration

	Out io.Writer
	TTY bool // Out is a terminal: the table is redrawn in place
	// Table draws the cluster, Explain the last change of leadership.
	Table   func(cluster.Snapshot) string
	Explain func(cluster.Snapshot) string
	Log     *slog.Logger
}

// Run runs the demo until ctx ends. now, when it is closed, makes the end hasty.
func Run(ctx context.Context, o Options, now <-chan struct{}) error {
	// Should the keeper itself be killed, its orphans come to us.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the parent of orphans: %w", err)
	}
	p, err := prepare(o)
	if err != nil {
		return err
	}
	begun := time.Now()
	k, err := startKeeper(p, o.Out)
	if err != nil {
		return err
	}
	d := &show{o: o, plan: p, begun: begun, out: o.Out}
	shown := d.run(ctx, k.gone)
	return errors.Join(shown, k.stop(now))
}

// prepare makes the directory and the plan.
func prepare(o Options) (Plan, error) {
	dir, remove := o.Dir, false
	if dir == "" {
		made, err := os.MkdirTemp("", "haven-demo-")
		if err != nil {
			return Plan{}, fmt.Errorf("demo directory: %w", err)
		}
		dir, remove = made, true
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Plan{}, fmt.Errorf("demo directory: %w", err)
	}
	p, err := Make(dir, o.Shape)
	if err != nil {
		return p, err
	}
	p.Remove = remove
	if os.Geteuid() != 0 {
		return p, nil
	}
	if p.Account, err = unprivileged(); err != nil {
		return p, err
	}
	return p, give(dir, *p.Account)
}

// unprivileged is the user as whom nodes run when root starts the demo: postgres, which the server's package makes.
func unprivileged() (*Account, error) {
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, fmt.Errorf("run as root, the demo needs the user postgres: %w: install PostgreSQL (apt-get install postgresql), or run it as another user", err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	return &Account{UID: uid, GID: gid}, nil
}

func give(dir string, a Account) error {
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, a.UID, a.GID)
	})
}

// keeping is our end of the keeper process.
type keeping struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	gone chan struct{} // closed when the keeper has ended
	err  error
	plan Plan
}

func startKeeper(p Plan, out io.Writer) (*keeping, error) {
	c := exec.Command("/proc/self/exe", KeeperCommand)
	c.Args[0] = "haven"
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	c.Stderr = os.Stderr
	in, err := c.StdinPipe()
	if err != nil {
		return nil, err
	}
	words, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, fmt.Errorf("start the keeper: %w", err)
	}
	k := &keeping{cmd: c, in: in, gone: make(chan struct{}), plan: p}
	if err := json.NewEncoder(in).Encode(p); err != nil {
		return nil, fmt.Errorf("tell the keeper the plan: %w", err)
	}
	go func() {
		defer close(k.gone)
		for s := bufio.NewScanner(words); s.Scan(); {
			fmt.Fprintln(out, s.Text())
		}
		k.err = c.Wait()
	}()
	return k, nil
}

// stop ends everything and returns when nothing is left.
func (k *keeping) stop(now <-chan struct{}) error {
	select {
	case <-now:
		_, _ = io.WriteString(k.in, "now\n") // if it is gone, the wait below tells
	default:
		k.in.Close()
	}
	select {
	case <-k.gone:
	case <-now:
		_ = k.cmd.Process.Kill()
		<-k.gone
	}
	endDescendants()
	if k.plan.Remove {
		if err := shmem.RemoveAll(k.plan.Dir); err != nil {
			return fmt.Errorf("remove the demo's directory: %w", err)
		}
	}
	return nil
}

// store opens the demo's etcd.
func (p Plan) store(log *slog.Logger) (*etcd.Client, error) {
	return etcd.Open(etcd.Options{Endpoints: p.Etcd, Scope: "demo", RetryTimeout: 2 * time.Second, Log: log})
}

// healthy tells whether all members stream from a promoted leader.
func healthy(s cluster.Snapshot, members int) bool {
	if s.Leader == nil || s.Term == nil || s.Term.State != cluster.TermPromoted || !s.Term.Binds(s.Leader) {
		return false
	}
	running := 0
	for _, m := range s.Members {
		if m.State == cluster.StateRunning && (m.Name == s.Leader.Name && m.Is(cluster.RolePrimary) || m.ReplicationState == "streaming") {
			running++
		}
	}
	return running == members
}

// primaryPID is the process id of the leader's postmaster, the first line of its postmaster.pid (PostgreSQL manual,
// database file layout).
func (p Plan) primaryPID(leader string) (int, error) {
	b, err := os.ReadFile(filepath.Join(p.Dir, leader, "postmaster.pid"))
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(b), "\n")
	return strconv.Atoi(strings.TrimSpace(first))
}
