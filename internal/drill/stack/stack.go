// Package stack runs a whole product on hosts of package hosts: three database hosts, a balancer, and a client from which
// it is used and watched. Haven and its peer, Debian's Patroni with etcd and HAProxy, are run the same way, so that the
// same faults and the same clock can be held against both.
//
// It guarantees that what is asked of a stack while it runs (who leads, is it healthy) is asked in SQL, the same for
// both. It leaves faults and load to the caller.
package stack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/havenha/haven/internal/drill/hosts"
	"github.com/havenha/haven/internal/postgres/shmem"
	"github.com/jackc/pgx/v5"
)

// The hosts of a stack.
const (
	Balancer = "lb"
	Client   = "client"
)

// Members are the names of the database hosts, and of the members that run there.
func Members() []string { return []string{"db1", "db2", "db3"} }

// Ports, the same on every host.
const (
	SQLPort   = 5432
	RESTPort  = 8008
	EtcdPort  = 2379
	PeerPort  = 2380
	WritePort = 5000
	ReadPort  = 5001
)

// Settings are what a run is about. Durations are whole seconds, as in the configuration.
type Settings struct {
	TTL          time.Duration `json:"ttl"`
	LoopWait     time.Duration `json:"loop_wait"`
	RetryTimeout time.Duration `json:"retry_timeout"`
	Synchronous  string        `json:"synchronous"` // off, on or quorum (Haven only)
	// StartTimeout is primary_start_timeout: 0 makes Patroni fail over from a crashed server at once.
	StartTimeout time.Duration `json:"primary_start_timeout"`
	// Check is what HAProxy's servers are checked with: inter, fall, rise.
	Check    string `json:"check,omitempty"`
	Failsafe bool   `json:"failsafe,omitempty"` // failsafe_mode
	// SmallDisk is the size in bytes of a file system of its own for each member's data; 0: none.
	SmallDisk int64 `json:"small_disk,omitempty"`
}

// program is one process of a stack, started on one host.
type program struct {
	name string
	argv []string
}

// Product is what differs between stacks.
type Product interface {
	// prepare writes the files below dir.
	prepare(s *Stack) error
	// programs are those of one host, in the order in which they are started. The last one of a database host is its agent.
	programs(s *Stack, host string) []program
}

// Stack is a running product.
type Stack struct {
	Name     string
	Dir      string
	Settings Settings
	Net      *hosts.Network
	Password string // of the superuser postgres

	product Product
	account *syscall.Credential
	running map[string][]*hosts.Process // by host, in the order of programs
	disks   []hosts.Undo
}

// New makes the hosts and the files below dir, which the account must own (nil: us).
func New(name, dir string, p Product, set Settings, account *syscall.Credential) (*Stack, error) {
	net, err := hosts.New(append(Members(), Balancer, Client)...)
	if err != nil {
		return nil, err
	}
	s := &Stack{Name: name, Dir: dir, Settings: set, Net: net, product: p, account: account,
		Password: "drill-secret", running: map[string][]*hosts.Process{}}
	if err := errors.Join(s.mount(), p.prepare(s), s.own()); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// mount gives each member's data a small disk, if the settings ask for that.
func (s *Stack) mount() error {
	for _, m := range Members() {
		dir := filepath.Dir(s.DataDir(m))
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
		if s.Settings.SmallDisk == 0 {
			continue
		}
		undo, err := hosts.SmallDisk(dir, s.Settings.SmallDisk)
		if err != nil {
			return err
		}
		s.disks = append(s.disks, undo)
	}
	return nil
}

// own gives all files to the account.
func (s *Stack) own() error {
	if s.account == nil {
		return nil
	}
	return filepath.WalkDir(s.Dir, func(path string, _ os.DirEntry, err error) error {
		return errors.Join(err, os.Lchown(path, int(s.account.Uid), int(s.account.Gid)))
	})
}

// Start starts everything.
func (s *Stack) Start() error {
	for _, h := range append(Members(), Balancer) {
		if err := s.StartHost(h); err != nil {
			return err
		}
	}
	return nil
}

// StartHost starts the programs of a host that do not run.
func (s *Stack) StartHost(host string) error {
	programs := s.product.programs(s, host)
	if s.running[host] == nil {
		s.running[host] = make([]*hosts.Process, len(programs))
	}
	for i, p := range programs {
		if old := s.running[host][i]; old != nil && !gone(old) {
			continue
		}
		started, err := s.run(host, p)
		if err != nil {
			return err
		}
		s.running[host][i] = started
	}
	return nil
}

func gone(p *hosts.Process) bool {
	select {
	case <-p.Gone:
		return true
	default:
		return false
	}
}

func (s *Stack) run(host string, p program) (*hosts.Process, error) {
	log, err := os.OpenFile(s.LogPath(host, p.name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(p.argv[0], p.argv[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.Dir, log, log
	cmd.Env = append(os.Environ(), "HOME="+s.Dir, "LC_ALL=C.UTF-8")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.account}
	return s.Net.Host(host).Start(cmd)
}

// LogPath is the file with what a program printed.
func (s *Stack) LogPath(host, program string) string {
	return filepath.Join(s.Dir, host+"-"+program+".log")
}

// Agent is the process of a member's agent.
func (s *Stack) Agent(member string) *hosts.Process {
	all := s.running[member]
	return all[len(all)-1]
}

// DataDir is the data directory of a member.
func (s *Stack) DataDir(member string) string { return filepath.Join(s.Dir, member, "data") }

// Postmaster is the process id of a member's postmaster; 0: there is none.
func (s *Stack) Postmaster(member string) int {
	b, err := os.ReadFile(filepath.Join(s.DataDir(member), "postmaster.pid"))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, _ := strconv.Atoi(first)
	return pid
}

// serverPIDs are the processes of a member's server: those that stand in its data directory.
func (s *Stack) serverPIDs(member string) ([]int, error) {
	var out []int
	for _, pid := range s.Net.Host(member).PIDs() {
		if dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err == nil && dir == s.DataDir(member) {
			out = append(out, pid)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s has no server", member)
	}
	return out, nil
}

// Close ends everything that runs.
func (s *Stack) Close() error {
	err := errors.Join(s.Net.Close(), shmem.ReleaseBelow(s.Dir))
	for _, undo := range s.disks {
		err = errors.Join(err, undo(context.Background()))
	}
	return err
}

// Dial connects from the client's host.
func (s *Stack) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return s.Net.Host(Client).Dial(ctx, network, address)
}

// WriteDSN leads through the balancer to the primary.
func (s *Stack) WriteDSN() string { return s.dsn(Balancer, WritePort) }

// DSN leads to one member.
func (s *Stack) DSN(member string) string { return s.dsn(member, SQLPort) }

func (s *Stack) dsn(host string, port int) string {
	return fmt.Sprintf("host=%s port=%d user=postgres password=%s dbname=postgres sslmode=disable", s.Net.Host(host).Addr, port, s.Password)
}

// Connect opens a session from the client's host.
func (s *Stack) Connect(ctx context.Context, dsn string) (*pgx.Conn, error) {
	c, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	c.DialFunc = s.Dial
	return pgx.ConnectConfig(ctx, c)
}
