package stack

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/havenha/haven/internal/drill/hosts"
)

// Expect is what a fault is to do to the leadership.
type Expect string

// It must move, must not, or may.
const (
	Moves  Expect = "moves"
	Stays  Expect = "stays"
	Either Expect = "either"
)

// Day is a fault with what is expected of a cluster that meets it.
type Day struct {
	Fault
	Leadership Expect
	// Lasts is how long the fault lasts where the leadership need not move; where it must, the fault is undone after.
	Lasts time.Duration
	// OnStandby: it happens to a standby.
	OnStandby bool
	// Failsafe: failsafe mode must be on (Settings.Failsafe), or must not be.
	Failsafe bool
	// SmallDisk: the members' data must be on small file systems (Settings.SmallDisk).
	SmallDisk bool
}

// Days are what a cluster of Haven's has to survive, with the ttl of ten seconds that they are written for.
func Days() []Day {
	return slices.Concat(networkDays(), processDays(), diskDays())
}

// on is a day with a fault of Faults.
func on(name string, leadership Expect, lasts time.Duration) Day {
	f, _ := NamedFault(name)
	return Day{Fault: f, Leadership: leadership, Lasts: lasts}
}

func networkDays() []Day {
	return []Day{
		on("host cut", Moves, 0),
		on("cut outgoing", Moves, 0),
		on("cut from etcd", Moves, 0),
		on("cut from members", Moves, 0),
		on("host killed", Moves, 0),
		on("host frozen", Moves, 0),
		on("lossy network", Either, 5*time.Second),
		on("slow network", Stays, 5*time.Second),
		{Fault: Fault{"host cut twice", cutTwice}, Leadership: Either, Lasts: 15 * time.Second},
		{Fault: Fault{"etcd quorum lost", loseQuorum}, Leadership: Either, Lasts: 60 * time.Second},
		{Fault: Fault{"etcd quorum lost in failsafe mode", loseQuorum}, Leadership: Stays, Lasts: 60 * time.Second, Failsafe: true},
	}
}

func processDays() []Day {
	return []Day{
		on("switchover", Moves, 0),
		on("postmaster killed", Moves, 0),
		on("backend killed", Either, 0),
		on("agent frozen", Stays, time.Second),
		{Fault: Fault{"agent restarted after 1 s", killAgent}, Leadership: Stays, Lasts: time.Second},
		{Fault: Fault{"agent killed for good", killAgent}, Leadership: Moves},
		{Fault: Fault{"agent frozen for good", freezeAgent}, Leadership: Moves},
		{Fault: Fault{"guard killed", signalGuard(syscall.SIGKILL)}, Leadership: Stays},
		{Fault: Fault{"guard frozen", signalGuard(syscall.SIGSTOP)}, Leadership: Stays, Lasts: 8 * time.Second},
		{Fault: Fault{"agent and guard restarted after 1 s", killBoth}, Leadership: Stays, Lasts: time.Second},
		{Fault: Fault{"agent and guard killed", killBoth}, Leadership: Moves},
		{Fault: Fault{"agent and guard frozen", freezeBoth}, Leadership: Moves},
		on("cores busy", Stays, 15*time.Second),
	}
}

func diskDays() []Day {
	return []Day{
		on("slow disk", Either, 8*time.Second),
		{Fault: Fault{"disk fails", failDisk}, Leadership: Moves},
		{Fault: Fault{"disk full", fillDisk}, Leadership: Moves, SmallDisk: true},
		{Fault: Fault{"WAL garbled", garbleWAL}, Leadership: Stays, Lasts: time.Second, OnStandby: true},
	}
}

// Fit tells whether a day can be had with these settings.
func (s Settings) Fit(d Day) bool {
	return d.SmallDisk == (s.SmallDisk > 0) && d.Failsafe == s.Failsafe
}

// Target is the member that a day happens to; pick chooses among the standbys.
func (d Day) Target(primary string, pick int) string {
	if !d.OnStandby {
		return primary
	}
	standbys := slices.DeleteFunc(Members(), func(m string) bool { return m == primary })
	return standbys[pick%len(standbys)]
}

// Broken says what is wrong with who leads now; empty: nothing.
func (d Day) Broken(before, now string) string {
	switch {
	case d.Leadership == Moves && now == before:
		return before + " led, and still does"
	case d.Leadership == Stays && now != before:
		return before + " led, and now " + now + " does"
	}
	return ""
}

// guardMark is what the arguments of a guard process hold.
const guardMark = "guard-process"

// guard is the process id of a member's guard.
func (s *Stack) guard(member string) (int, error) {
	for _, pid := range s.Net.Host(member).PIDs() {
		if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && strings.Contains(string(line), guardMark) {
			return pid, nil
		}
	}
	return 0, fmt.Errorf("%s has no guard", member)
}

func killAgent(_ context.Context, s *Stack, member string) (hosts.Undo, error) {
	return s.restart(member), s.Agent(member).Kill()
}

func freezeAgent(_ context.Context, s *Stack, member string) (hosts.Undo, error) {
	agent := s.Agent(member)
	return func(context.Context) error { return agent.Signal(syscall.SIGCONT) }, agent.Signal(syscall.SIGSTOP)
}

func signalGuard(sig syscall.Signal) func(context.Context, *Stack, string) (hosts.Undo, error) {
	return func(_ context.Context, s *Stack, member string) (hosts.Undo, error) {
		pid, err := s.guard(member)
		if err != nil {
			return nil, err
		}
		// One that does not answer is replaced meanwhile: then there is nothing to thaw.
		return func(context.Context) error { return signalAll([]int{pid}, syscall.SIGCONT) }, syscall.Kill(pid, sig)
	}
}

func killBoth(_ context.Context, s *Stack, member string) (hosts.Undo, error) {
	pid, err := s.guard(member)
	if err != nil {
		return nil, err
	}
	if err := s.Agent(member).Signal(syscall.SIGSTOP); err != nil { // or it would make another guard
		return nil, err
	}
	return s.restart(member), errors.Join(syscall.Kill(pid, syscall.SIGKILL), s.Agent(member).Kill())
}

func freezeBoth(_ context.Context, s *Stack, member string) (hosts.Undo, error) {
	pid, err := s.guard(member)
	if err != nil {
		return nil, err
	}
	both := []int{s.Agent(member).PID(), pid}
	return func(context.Context) error { return signalAll(both, syscall.SIGCONT) }, signalAll(both, syscall.SIGSTOP)
}

// burners is how many processes compete for the cores, each before everything of the host's.
const burners = 4

// busyCores starts processes that do nothing but compute, with a higher priority than the members' programs.
func busyCores(_ context.Context, s *Stack, member string) (hosts.Undo, error) {
	var all []*hosts.Process
	undo := func(context.Context) error {
		var errs []error
		for _, p := range all {
			errs = append(errs, p.Kill())
		}
		return errors.Join(errs...)
	}
	for range burners {
		p, err := s.Net.Host(member).Start(exec.Command("nice", "-n", "-5", "sh", "-c", "while :; do :; done"))
		if err != nil {
			return nil, errors.Join(err, undo(context.Background()))
		}
		all = append(all, p)
	}
	return undo, nil
}

// failDisk has every sync of the server fail, and of the server that the guard would start in its place.
func failDisk(_ context.Context, s *Stack, member string) (hosts.Undo, error) {
	guard, err := s.guard(member)
	if err != nil {
		return nil, err
	}
	pids, err := s.serverPIDs(member)
	if err != nil {
		return nil, err
	}
	return hosts.FailSync(append(pids, guard), "")
}

func fillDisk(_ context.Context, s *Stack, member string) (hosts.Undo, error) {
	return hosts.Fill(filepath.Dir(s.DataDir(member)))
}

// garbled is how many bytes before the end of what a standby has received are overwritten.
const garbled = 8192

// garbleWAL ends everything on the host of a standby and overwrites the end of what it had received.
func garbleWAL(ctx context.Context, s *Stack, member string) (hosts.Undo, error) {
	c, err := s.Connect(ctx, s.DSN(member))
	if err != nil {
		return nil, err
	}
	defer c.Close(context.WithoutCancel(ctx))
	var file string
	var offset int64
	const where = `SELECT lpad(to_hex(received_tli), 8, '0') || lpad(to_hex(l / 4294967296), 8, '0') || lpad(to_hex(l % 4294967296 / 16777216), 8, '0'), l % 16777216
		FROM pg_stat_wal_receiver, LATERAL (SELECT (flushed_lsn - '0/0'::pg_lsn)::bigint AS l) r`
	if err := c.QueryRow(ctx, where).Scan(&file, &offset); err != nil {
		return nil, fmt.Errorf("where the WAL of %s ends: %w", member, err)
	}
	if err := s.Net.Host(member).KillAll(); err != nil {
		return nil, err
	}
	return s.restart(member), overwrite(filepath.Join(s.DataDir(member), "pg_wal", strings.ToUpper(file)), max(0, offset-garbled), min(offset, garbled))
}

// overwrite puts noise in the place of a part of a file.
func overwrite(path string, at, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	noise := make([]byte, size)
	_, _ = rand.Read(noise) // never fails (its documentation)
	_, err = f.WriteAt(noise, at)
	return errors.Join(err, f.Close())
}

// takeoverLimit is how long a leadership may take to move before the second cut.
const takeoverLimit = 90 * time.Second

// cutTwice cuts the leader off until another leads, and then that one, just as the first is back. Whether anybody may take
// over from the second depends on whether it had a synchronous standby by then.
func cutTwice(ctx context.Context, s *Stack, member string) (hosts.Undo, error) {
	first := s.Net.Host(member)
	plug, err := first.Cut(ctx, s.Net.Others(first))
	if err != nil {
		return nil, err
	}
	next, late := s.successors(ctx, takeoverLimit, member)
	if err := errors.Join(late, plug(ctx)); err != nil || len(next) != 1 {
		return nil, errors.Join(err, fmt.Errorf("after the first cut %v lead", next))
	}
	second := s.Net.Host(next[0])
	return second.Cut(ctx, s.Net.Others(second))
}

// loseQuorum cuts the etcd of two of three hosts off.
func loseQuorum(ctx context.Context, s *Stack, _ string) (hosts.Undo, error) {
	var plugs []hosts.Undo
	undo := func(ctx context.Context) error {
		// Both go back together: one undone while the other lasts could not be verified.
		errs := make(chan error)
		for _, plug := range plugs {
			go func() { errs <- plug(ctx) }()
		}
		var all []error
		for range plugs {
			all = append(all, <-errs)
		}
		return errors.Join(all...)
	}
	for _, m := range Members()[:2] {
		h := s.Net.Host(m)
		plug, err := h.Cut(ctx, s.Net.Others(h), EtcdPort, PeerPort)
		if err != nil {
			return nil, errors.Join(err, undo(context.WithoutCancel(ctx)))
		}
		plugs = append(plugs, plug)
	}
	return undo, nil
}
