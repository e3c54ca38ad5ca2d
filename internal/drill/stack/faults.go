package stack

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/havenha/haven/internal/drill/hosts"
)

// Fault is something that happens to one member or its host.
type Fault struct {
	Name string
	// Do makes it happen. What it returns undoes it; nil: it needs no undoing.
	Do func(ctx context.Context, s *Stack, member string) (hosts.Undo, error)
}

// NamedFault returns the fault of that name.
func NamedFault(name string) (Fault, bool) {
	for _, f := range Faults() {
		if f.Name == name {
			return f, true
		}
	}
	return Fault{}, false
}

// Faults are all that a stack knows.
func Faults() []Fault {
	return append(processFaults(), networkFaults()...)
}

func processFaults() []Fault {
	return []Fault{
		{"switchover", func(ctx context.Context, s *Stack, member string) (hosts.Undo, error) {
			return nil, s.switchoverSoon(ctx, member)
		}},
		{"postmaster killed", func(_ context.Context, s *Stack, member string) (hosts.Undo, error) {
			return nil, s.signalPostmaster(member, syscall.SIGKILL)
		}},
		{"backend killed", killBackend},
		{"cores busy", busyCores},
		{"agent killed", killAgent},
		{"agent frozen", freezeAgent},
		{"server frozen", freezeServer},
		{"host killed", killHost},
		{"host frozen", func(_ context.Context, s *Stack, member string) (hosts.Undo, error) {
			h := s.Net.Host(member)
			return func(context.Context) error { return h.Thaw() }, h.Freeze()
		}},
		{"slow disk", func(_ context.Context, s *Stack, member string) (hosts.Undo, error) {
			return hosts.SlowSync(s.Net.Host(member).PIDs(), 2*time.Second)
		}},
	}
}

func networkFaults() []Fault {
	cut := func(f func(ctx context.Context, s *Stack, h *hosts.Host) (hosts.Undo, error)) func(context.Context, *Stack, string) (hosts.Undo, error) {
		return func(ctx context.Context, s *Stack, member string) (hosts.Undo, error) {
			return f(ctx, s, s.Net.Host(member))
		}
	}
	return []Fault{
		{"host cut", cut(func(ctx context.Context, s *Stack, h *hosts.Host) (hosts.Undo, error) {
			return h.Cut(ctx, s.Net.Others(h))
		})},
		{"cut from members", cut(func(ctx context.Context, s *Stack, h *hosts.Host) (hosts.Undo, error) {
			return h.Cut(ctx, s.otherMembers(h))
		})},
		{"cut from etcd", cut(func(ctx context.Context, s *Stack, h *hosts.Host) (hosts.Undo, error) {
			return h.Cut(ctx, s.Net.Others(h), EtcdPort, PeerPort)
		})},
		{"cut outgoing", cut(func(ctx context.Context, s *Stack, h *hosts.Host) (hosts.Undo, error) {
			return h.CutOneWay(ctx, s.Net.Others(h))
		})},
		{"lossy network", cut(func(_ context.Context, s *Stack, h *hosts.Host) (hosts.Undo, error) {
			return h.Degrade(s.Net.Others(h), hosts.Quality{Loss: 0.1}), nil
		})},
		{"slow network", cut(func(_ context.Context, s *Stack, h *hosts.Host) (hosts.Undo, error) {
			return h.Degrade(s.Net.Others(h), hosts.Quality{Delay: 100 * time.Millisecond, Jitter: 50 * time.Millisecond}), nil
		})},
	}
}

func (s *Stack) otherMembers(h *hosts.Host) []*hosts.Host {
	return s.Net.Others(h, s.Net.Host(Balancer), s.Net.Host(Client))
}

// restart undoes the end of programs.
func (s *Stack) restart(member string) hosts.Undo {
	return func(context.Context) error { return s.StartHost(member) }
}

func (s *Stack) signalPostmaster(member string, sig syscall.Signal) error {
	pid := s.Postmaster(member)
	if pid == 0 {
		return fmt.Errorf("%s has no postmaster", member)
	}
	return syscall.Kill(pid, sig)
}

// killBackend kills a session of the server, which then restarts all the others (crash recovery).
func killBackend(ctx context.Context, s *Stack, member string) (hosts.Undo, error) {
	c, err := s.Connect(ctx, s.DSN(member))
	if err != nil {
		return nil, fmt.Errorf("kill a backend of %s: %w", member, err)
	}
	defer c.Close(context.WithoutCancel(ctx))
	return nil, syscall.Kill(int(c.PgConn().PID()), syscall.SIGKILL)
}

// freezeServer stops every process of the server, the agent not.
func freezeServer(_ context.Context, s *Stack, member string) (hosts.Undo, error) {
	pids, err := s.serverPIDs(member)
	if err != nil {
		return nil, err
	}
	undo := func(context.Context) error { return signalAll(pids, syscall.SIGCONT) }
	if err := signalAll(pids, syscall.SIGSTOP); err != nil {
		return nil, errors.Join(err, undo(context.Background()))
	}
	return undo, nil
}

func signalAll(pids []int, sig syscall.Signal) error {
	var errs []error
	for _, pid := range pids {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// killHost takes the host off the network first, as a loss of power does: nobody is told.
func killHost(ctx context.Context, s *Stack, member string) (hosts.Undo, error) {
	h := s.Net.Host(member)
	plug, err := h.Cut(ctx, s.Net.Others(h))
	if err != nil {
		return nil, err
	}
	undo := func(ctx context.Context) error {
		if err := plug(ctx); err != nil {
			return err
		}
		return s.StartHost(member)
	}
	if err := h.KillAll(); err != nil {
		return nil, errors.Join(err, undo(ctx))
	}
	return undo, nil
}
