package guard_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"github.com/havenha/haven/internal/freeze"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/havenha/haven/internal/bootclock"
	"github.com/havenha/haven/internal/guard"
	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
	"github.com/havenha/haven/internal/postgres/processes"
	"github.com/jackc/pgx/v5/pgconn"
)

// The test's program is also the guard, and an agent that does nothing but renew.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == guard.Command {
		if _, err := os.Stat(filepath.Join(os.Args[2], diesOnBecoming)); err == nil && os.Getenv("HAVEN_GUARD_LEGACY") != "" {
			os.Exit(9)
		}
		os.Exit(guard.Main(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == "test-first" {
		os.Exit(guard.First([]string{"test-first-agent"}))
	}
	if len(os.Args) > 1 && os.Args[1] == "test-first-agent" {
		os.Exit(firstAgent())
	}
	if len(os.Args) > 1 && os.Args[1] == "test-hello" {
		os.Exit(testHello(os.Args[2]))
	}
	if len(os.Args) > 1 && os.Args[1] == "test-agent" {
		os.Exit(testAgent(os.Args[2], os.Args[3]))
	}
	os.Exit(m.Run())
}

// diesOnBecoming is a file in the state directory that makes a guard end at once when it was to go on for another program.
const diesOnBecoming = "dies-on-becoming"

// term is how long each renewal of the test's agents lasts.
const term = 3 * time.Second

// testAgent moves the deadline every tenth of a term, until it is ended from outside.
func testAgent(dir, target string) int {
	var s processes.Server
	if err := json.Unmarshal([]byte(target), &s); err != nil {
		return 2
	}
	link, _, err := guard.Open(guard.Options{Dir: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	for first := true; ; first = false {
		if err := link.Arm(1, bootclock.Now().Add(term), s, nil); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 2
		}
		if first {
			fmt.Println("armed")
		}
		time.Sleep(term / 10)
	}
}

// site is a state directory with a guard, and a server that the guard has started.
type site struct {
	t      *testing.T
	dir    string
	link   *guard.Link
	pg     postgres.Options
	server *postgres.Instance
}

func newSite(t *testing.T) *site {
	t.Helper()
	// A path that does not fit into the address of a socket.
	s := &site{t: t, dir: filepath.Join(t.TempDir(), strings.Repeat("long/", 25))}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // whoever has had the guard last, it ends
		if link, _, err := guard.Open(s.options()); err == nil {
			link.Close()
		}
	})
	s.link = s.open()
	return s
}

func (s *site) open() *guard.Link {
	s.t.Helper()
	link, _, err := guard.Open(s.options())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		link.Close()
		text, _ := os.ReadFile(filepath.Join(s.dir, "guard.log"))
		if s.t.Failed() {
			s.t.Logf("log of the guard:\n%s", text)
		}
	})
	return link
}

func (s *site) options() guard.Options {
	return guard.Options{Dir: s.dir, Log: slog.New(slog.DiscardHandler)}
}

// startServer makes a database and has the guard start it.
func (s *site) startServer() {
	s.t.Helper()
	s.pg = pgtest.Options(s.t, "a")
	s.server = pgtest.New(s.t, s.pg)
	s.server.LaunchBy(s.link)
	pgtest.Init(s.t, s.server, s.pg)
	ctx := pgtest.Context(s.t)
	_, err := s.server.Configure(pgtest.Settings(), nil, false)
	pgtest.Must(s.t, err)
	_, err = s.server.Start(ctx, pgtest.Settings())
	pgtest.Must(s.t, err)
	pgtest.Must(s.t, s.server.PostBootstrap(ctx, postgres.Bootstrap{}))
}

func (s *site) state() guard.State {
	s.t.Helper()
	st, err := s.link.State()
	pgtest.Must(s.t, err)
	return st
}

func (s *site) arm(in time.Duration) {
	s.t.Helper()
	pgtest.Must(s.t, s.link.Arm(1, bootclock.Now().Add(in), s.server.Target(), nil))
}

// awaitGone waits until no process of the server is left.
func (s *site) awaitGone() {
	s.t.Helper()
	pgtest.Eventually(s.t, "every process of the server is gone", func() error {
		left, err := s.server.Processes()
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("left: %v", left)
		}
		return err
	})
}

// startAgent runs an agent of its own process, and returns when it has armed the guard.
func (s *site) startAgent() *os.Process {
	s.t.Helper()
	target, _ := json.Marshal(s.server.Target())
	cmd := exec.Command("/proc/self/exe", "test-agent", s.dir, string(target))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	pgtest.Must(s.t, err)
	pgtest.Must(s.t, cmd.Start())
	s.t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	line := make([]byte, 16)
	if n, err := out.Read(line); err != nil || !strings.HasPrefix(string(line[:n]), "armed") {
		s.t.Fatalf("the agent does not run: %q, %v", line[:n], err)
	}
	return cmd.Process
}

// writer commits as fast as the server acknowledges, many statements on their way at a time.
type writer struct {
	acknowledged atomic.Int64
	last         atomic.Int64 // when, in Unix nanoseconds
	ended        chan struct{}
}

func (s *site) startWriter() *writer {
	s.t.Helper()
	conn, err := pgconn.Connect(pgtest.Context(s.t), pgtest.ConnString(s.pg, "postgres"))
	pgtest.Must(s.t, err)
	_, err = conn.Exec(context.Background(), "CREATE TABLE IF NOT EXISTS t (n int); SET synchronous_commit = off").ReadAll()
	pgtest.Must(s.t, err)
	w := &writer{ended: make(chan struct{})}
	go func() {
		defer close(w.ended)
		for p := conn.StartPipeline(context.Background()); ; {
			for range 50 {
				p.SendQueryParams("INSERT INTO t VALUES (1)", nil, nil, nil, nil)
				p.SendPipelineSync()
			}
			if p.Flush() != nil {
				return
			}
			for range 100 {
				r, err := p.GetResults()
				if err != nil {
					return
				}
				if rr, ok := r.(*pgconn.ResultReader); ok {
					if _, err := rr.Close(); err != nil {
						return
					}
					w.acknowledged.Add(1)
					w.last.Store(time.Now().UnixNano())
				}
			}
		}
	}()
	return w
}

// TestServerDiesWithItsDeadline: as long as an agent renews, the server lives; after it was killed or stopped, nothing of
// the server is left soon after the deadline, and no client gets an acknowledgement once the guard has verified that.
func TestServerDiesWithItsDeadline(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{"agent killed": syscall.SIGKILL, "agent stopped, its connection open": syscall.SIGSTOP} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.startServer()
			bystander := exec.Command("sleep", "600")
			bystander.Dir = s.pg.DataDir
			pgtest.Must(t, bystander.Start())
			defer func() { bystander.Process.Kill(); bystander.Wait() }()
			agent := s.startAgent()
			w := s.startWriter()
			time.Sleep(2 * term) // the one thing to see is that nothing happens
			if got := s.observe(); got.Server == nil || got.Killed != nil {
				t.Fatalf("the server was ended while its agent renewed: %+v", got)
			}
			before := w.acknowledged.Load()
			pgtest.Must(t, agent.Signal(sig))
			signalled := time.Now()
			<-w.ended
			s.awaitGone()
			gone := time.Since(signalled)
			pgtest.Eventually(t, "the guard says so", func() error {
				if k := s.observe().Killed; k == nil || k.Verified.IsZero() {
					return errors.New("not yet")
				}
				return nil
			})
			killed := s.observe().Killed
			last := time.Unix(0, w.last.Load())
			t.Logf("%d acknowledged; ended %s after the signal, verified %s after the kill began, last acknowledgement %s before that",
				w.acknowledged.Load(), gone, killed.Verified.Sub(killed.At), killed.Verified.Sub(last))
			if last.Sub(killed.Verified) > time.Second { // what lay in the client's socket by then may be read later
				t.Errorf("a client got an acknowledgement %s after the end was verified", last.Sub(killed.Verified))
			}
			if before == 0 || gone > term+15*time.Second {
				t.Errorf("%d acknowledged before; the server ended %s after its agent, deadlines are %s", before, gone, term)
			}
			if !strings.Contains(killed.Reason, "deadline passed") {
				t.Errorf("the reason is %q", killed.Reason)
			}
			if err := bystander.Process.Signal(syscall.Signal(0)); err != nil {
				t.Error("a process that merely stood in the data directory was ended")
			}
		})
	}
}

// observe asks for the state without becoming the guard's agent.
func (s *site) observe() guard.State {
	s.t.Helper()
	r := s.ask(`{"protocol":1,"op":"state"}` + "\n")
	return r.State
}

func (s *site) dial() net.Conn {
	s.t.Helper()
	conn, err := s.tryDial()
	pgtest.Must(s.t, err)
	return conn
}

func (s *site) tryDial() (net.Conn, error) {
	dir, err := os.Open(s.dir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return net.Dial("unix", fmt.Sprintf("/proc/self/fd/%d/guard.sock", dir.Fd()))
}

func (s *site) ask(line string) guard.Reply {
	s.t.Helper()
	conn := s.dial()
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, err := conn.Write([]byte(line))
	pgtest.Must(s.t, err)
	var r guard.Reply
	pgtest.Must(s.t, json.NewDecoder(conn).Decode(&r))
	return r
}

// TestAnotherGuardTakesOver: the server outlives a guard that is killed, and one that hangs; the next one adopts it, and
// keeps its deadline.
func TestAnotherGuardTakesOver(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{"killed": syscall.SIGKILL, "stopped": syscall.SIGSTOP} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.startServer()
			s.arm(time.Minute)
			first, lost := s.state(), s.link.Lost()
			if first.Server == nil || first.Server.Adopted || first.Server.PID != s.server.Server().PID() {
				t.Errorf("the guard says of the server it has started: %+v", first.Server)
			}
			if sig == syscall.SIGSTOP {
				freeze.Process(t, first.PID)
			} else {
				pgtest.Must(t, syscall.Kill(first.PID, sig))
				<-lost
			}
			s.arm(time.Minute)
			next := s.state()
			if next.PID == first.PID || next.Server == nil || !next.Server.Adopted || next.Server.PID != first.Server.PID {
				t.Fatalf("after %s: %+v", name, next)
			}
			if s.server.Server() == nil {
				t.Fatal("the server did not outlive its guard")
			}
			pgtest.Must(t, s.link.Disarm(func() bool { return true }))
			s.arm(3 * time.Second)
			s.awaitGone()
		})
	}
}

// TestReplacementLearnsTheDeadline: a guard that takes the place of an armed one has its deadline before anything else is
// asked of it; where that has passed meanwhile, it ends the server.
func TestReplacementLearnsTheDeadline(t *testing.T) {
	s := newSite(t)
	s.startServer()
	replace := func() {
		lost := s.link.Lost()
		pgtest.Must(t, syscall.Kill(s.observe().PID, syscall.SIGKILL))
		<-lost
	}
	s.arm(time.Minute)
	before := s.state()
	replace()
	if next := s.state(); next.PID == before.PID || next.Deadline != before.Deadline || next.Server == nil || !s.link.Armed() {
		t.Fatalf("the guard knew %+v, the next one knows %+v", before, next)
	}
	pgtest.Must(t, s.link.Disarm(func() bool { return true }))
	replace()
	if next := s.state(); next.Deadline != 0 || next.Killed != nil || s.link.Armed() {
		t.Fatalf("what was taken back is in force again: %+v", next)
	}
	passes := time.Now().Add(5 * time.Second)
	s.arm(5 * time.Second)
	replace()
	time.Sleep(time.Until(passes))
	if s.server.Server() == nil {
		t.Fatal("something else has ended the server")
	}
	s.state()
	s.awaitGone()
	if k := s.observe().Killed; k == nil || !strings.Contains(k.Reason, "no guard") {
		t.Errorf("the guard says: %+v", k)
	}
	pgtest.Eventually(t, "it is done", func() error {
		if s.state().Killing {
			return errors.New("still killing")
		}
		return nil
	})
	_, err := s.server.Start(pgtest.Context(t), pgtest.Settings())
	pgtest.Must(t, err)
	replace()
	if next := s.state(); next.Killed != nil || s.server.Server() == nil {
		t.Errorf("a deadline that was dealt with has ended the next server: %+v", next)
	}
	pgtest.Must(t, s.server.Kill(pgtest.Context(t)))
}

// TestPrimaryNeedsADeadline: a server that must be armed starts only while a deadline is in force.
func TestPrimaryNeedsADeadline(t *testing.T) {
	s := newSite(t)
	s.startServer()
	ctx := pgtest.Context(t)
	pgtest.Must(t, s.server.Stop(ctx, postgres.StopFast, nil))
	refused := func(when string) {
		t.Helper()
		if _, err := s.server.StartArmed(ctx, pgtest.Settings()); err == nil || !strings.Contains(err.Error(), "deadline") {
			t.Fatalf("%s: %v", when, err)
		}
		if left, err := s.server.Processes(); err != nil || len(left) > 0 {
			t.Fatalf("%s: %v runs, %v", when, left, err)
		}
	}
	refused("without a deadline")
	s.arm(2 * time.Second)
	time.Sleep(2100 * time.Millisecond)
	refused("after the deadline")
	s.arm(time.Minute)
	_, err := s.server.StartArmed(ctx, pgtest.Settings())
	pgtest.Must(t, err)
	pgtest.Must(t, s.server.Kill(ctx))
	pgtest.Must(t, s.link.Disarm(func() bool { return true }))
	_, err = s.server.Start(ctx, pgtest.Settings()) // a standby's start, and that of a new cluster
	pgtest.Must(t, err)
	pgtest.Must(t, s.server.Kill(ctx))
}

func TestGarbageChangesNothing(t *testing.T) {
	s := newSite(t)
	s.startServer()
	s.arm(time.Minute)
	before := s.state()
	for _, line := range []string{"GET / HTTP/1.1\n", "{}{\n", "\x00\xff\n", `{"protocol":1,"op":"hello","deadline":"soon"}` + "\n"} {
		if r := s.ask(line); r.Error == "" {
			t.Errorf("%q was accepted", line)
		}
	}
	if r := s.ask(`{"protocol":7,"op":"disarm"}` + "\n"); !strings.Contains(r.Error, "version 1") {
		t.Errorf("another version of the protocol is answered by %q", r.Error)
	}
	if r := s.ask(`{"protocol":1,"op":"disarm"}` + "\n"); !r.TakenOver {
		t.Errorf("who has not said hello may disarm: %+v", r)
	}
	half := s.dial()
	_, _ = half.Write([]byte(`{"protocol":1,"op":"dis`))
	half.Close()
	endless := s.dial()
	for range 40 {
		if _, err := endless.Write(make([]byte, 64<<10)); err != nil {
			break
		}
	}
	endless.Close()
	after := s.state()
	if after.PID != before.PID || after.Deadline != before.Deadline || after.Server == nil {
		t.Errorf("before %+v, after %+v", before, after)
	}
}

// TestNewerAgentTakesOver: of two agents the one that came later counts, and learns what the former left.
func TestNewerAgentTakesOver(t *testing.T) {
	s := newSite(t)
	s.startServer()
	s.arm(time.Minute)
	old, deadline := s.link, s.state().Deadline
	var st guard.State
	var err error
	s.link, st, err = guard.Open(s.options())
	pgtest.Must(t, err)
	t.Cleanup(s.link.Close)
	if st.Deadline != deadline || st.Server == nil || !s.link.Armed() {
		t.Errorf("the newer agent learns %+v", st)
	}
	for range 2 {
		if err := old.Arm(2, bootclock.Now().Add(time.Hour), s.server.Target(), nil); !errors.Is(err, guard.ErrTakenOver) {
			t.Errorf("the older agent is told %v", err)
		}
	}
	pgtest.Must(t, s.link.Disarm(func() bool { return true }))
	if got := s.state().Deadline; got != 0 {
		t.Errorf("the deadline is %d after disarming", got)
	}
}

func TestDeadlineMovesForwardOnly(t *testing.T) {
	s := newSite(t)
	s.startServer()
	target, now := s.server.Target(), bootclock.Now()
	at := func(generation int64, in time.Duration) error {
		return s.link.Arm(generation, now.Add(in), target, nil)
	}
	pgtest.Must(t, at(5, 10*time.Minute))
	pgtest.Must(t, at(5, 5*time.Minute))
	if got := s.state().Deadline; got != now.Add(10*time.Minute) {
		t.Errorf("a deadline of the same generation moved back by %s", now.Add(10*time.Minute).Sub(got))
	}
	if err := at(4, 20*time.Minute); err == nil {
		t.Error("an older generation is accepted")
	}
	if err := at(6, -time.Second); err == nil {
		t.Error("a deadline that has passed is accepted")
	}
	pgtest.Must(t, at(6, 5*time.Minute))
	if got := s.state().Deadline; got != now.Add(5*time.Minute) {
		t.Errorf("the deadline of a newer generation is not in force: %d", got)
	}
	pgtest.Must(t, s.link.Disarm(func() bool { return false }))
	if s.state().Deadline == 0 || !s.link.Armed() {
		t.Error("disarmed though it was not wanted any more")
	}
	pgtest.Must(t, s.link.Kill("the test wants it", target))
	s.awaitGone()
	pgtest.Eventually(t, "the reason is told", func() error {
		if k := s.state().Killed; k == nil || k.Reason != "the test wants it" {
			return fmt.Errorf("killed: %+v", k)
		}
		return nil
	})
}

// TestExitIsTold: the status with which a server ends is known, and the dead leave no zombie that would keep the next from
// starting.
func TestExitIsTold(t *testing.T) {
	s := newSite(t)
	s.startServer()
	ctx := pgtest.Context(t)
	server := s.server.Server()
	began := time.Now()
	pgtest.Must(t, syscall.Kill(server.PID(), syscall.SIGKILL))
	<-server.Exited()
	t.Logf("the exit was told after %s", time.Since(began))
	if got := server.ExitStatus(); got != "signal: killed" {
		t.Errorf("the exit status is %q", got)
	}
	pgtest.Must(t, s.server.Kill(ctx))
	server, err := s.server.Start(ctx, pgtest.Settings())
	pgtest.Must(t, err)
	if err := errors.Join(s.server.Stop(ctx, postgres.StopFast, nil)); err != nil {
		t.Fatal(err)
	}
	if got := server.ExitStatus(); got != "exit status 0" {
		t.Errorf("after a fast stop the exit status is %q", got)
	}
	if st := s.state(); st.Server != nil || st.Killed != nil {
		t.Errorf("the guard says %+v", st)
	}
}

// TestGuardEndsWithItsWork: a socket that a dead guard left is in nobody's way, and a guard that is not needed ends.
func TestGuardEndsWithItsWork(t *testing.T) {
	s := newSite(t)
	first := s.state().PID
	pgtest.Must(t, syscall.Kill(first, syscall.SIGTERM)) // it is deaf to that
	pgtest.Must(t, syscall.Kill(first, syscall.SIGKILL))
	<-s.link.Lost()
	if _, err := os.Stat(filepath.Join(s.dir, "guard.sock")); err != nil {
		t.Fatal("there is no stale socket to try with")
	}
	next := s.state()
	if next.PID == first {
		t.Fatal("a dead guard answers")
	}
	if info, err := os.Stat(filepath.Join(s.dir, "guard.sock")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket's mode is %v: %v", info.Mode(), err)
	}
	s.link.Close()
	pgtest.Eventually(t, "the guard ends", func() error {
		if syscall.Kill(next.PID, 0) == nil {
			return errors.New("it lives")
		}
		_, err := os.Stat(filepath.Join(s.dir, "guard.sock"))
		if err == nil {
			return errors.New("its socket is there")
		}
		return nil
	})
}
