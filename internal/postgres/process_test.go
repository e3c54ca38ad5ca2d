package postgres_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/havenha/haven/internal/freeze"
	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
	"github.com/jackc/pgx/v5/pgconn"
)

func connect(t *testing.T, o postgres.Options) *pgconn.PgConn {
	t.Helper()
	conn, err := pgconn.Connect(pgtest.Context(t), pgtest.ConnString(o, "postgres"))
	pgtest.Must(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(ctx)
	})
	return conn
}

func sql(t *testing.T, o postgres.Options, text string) [][]string {
	t.Helper()
	results, err := connect(t, o).Exec(pgtest.Context(t), text).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	var rows [][]string
	for _, r := range results {
		for _, row := range r.Rows {
			var text []string
			for _, v := range row {
				text = append(text, string(v))
			}
			rows = append(rows, text)
		}
	}
	return rows
}

func TestKillLeavesNoProcessThatCommits(t *testing.T) {
	o := pgtest.Options(t, "a")
	a := pgtest.Primary(t, o)
	sql(t, o, "CREATE TABLE t (n int)")
	conn := connect(t, o)
	ended := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "DO $$ BEGIN LOOP INSERT INTO t VALUES (1); COMMIT; END LOOP; END $$").ReadAll()
		ended <- err
	}()
	pgtest.Eventually(t, "the loop commits", func() error {
		if n := sql(t, o, "SELECT count(*) FROM t")[0][0]; n == "0" {
			return errors.New("no rows yet")
		}
		return nil
	})
	server := a.Server()
	lost := a.Lost()
	// The worst case: the postmaster dies alone, and the busy session goes on without it.
	pgtest.Must(t, syscall.Kill(server.PID(), syscall.SIGKILL))
	<-server.Exited()
	if got := server.ExitStatus(); got != "signal: killed" {
		t.Errorf("the exit status is %q", got)
	}
	pgtest.Must(t, a.Kill(pgtest.Context(t)))
	if pids, err := a.Processes(); err != nil || len(pids) != 0 {
		t.Errorf("after Kill these processes are left: %v, %v", pids, err)
	}
	if err := <-ended; err == nil {
		t.Error("the endless loop ended well")
	}
	_ = lost // nil here: nothing was probed
	if _, err := a.Start(pgtest.Context(t), pgtest.Settings()); err != nil {
		t.Errorf("start again: %v", err)
	}
}

// Sessions that wait for their clients tell them that the postmaster is gone; one that is busy is not waited for.
func TestOrphansHaveTheirLastWords(t *testing.T) {
	o := pgtest.Options(t, "a")
	a := pgtest.Primary(t, o)
	ctx := pgtest.Context(t)
	idle, busy := connect(t, o), connect(t, o)
	began := time.Now()
	a.AwaitOrphans(ctx, time.Hour)
	if took := time.Since(began); took > time.Minute {
		t.Errorf("a server that runs was waited for: %s", took)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := busy.Exec(context.Background(), "DO $$ BEGIN LOOP END LOOP; END $$").ReadAll()
		ended <- err
	}()
	pgtest.Eventually(t, "the session is busy", func() error {
		results, err := idle.Exec(ctx, fmt.Sprintf("SELECT FROM pg_stat_activity WHERE state = 'active' AND pid = %d", busy.PID())).ReadAll()
		if err == nil && len(results[0].Rows) != 1 {
			err = errors.New("it is not active")
		}
		return err
	})
	server := a.Server()
	pgtest.Must(t, syscall.Kill(server.PID(), syscall.SIGKILL))
	<-server.Exited()
	a.AwaitOrphans(ctx, 3*time.Second)
	pgtest.Eventually(t, "only the busy process is left", func() error { // others may just be within fsync(2)
		pids, err := a.Processes()
		if err == nil && !slices.Equal(pids, []int{int(busy.PID())}) {
			err = fmt.Errorf("these are left: %v; the busy one is %d", pids, busy.PID())
		}
		return err
	})
	pgtest.Must(t, a.Kill(ctx))
	if err := <-ended; err == nil {
		t.Error("the endless loop ended well")
	}
	var told *pgconn.PgError
	if _, err := idle.Exec(ctx, "SELECT").ReadAll(); !errors.As(err, &told) || told.Code != "57P01" {
		t.Errorf("the idle session's client got %v", err)
	}
}

func TestExitAndLossAreSeenAtOnce(t *testing.T) {
	o := pgtest.Options(t, "a")
	a := pgtest.Primary(t, o)
	ctx := pgtest.Context(t)
	_, err := a.Probe(ctx)
	pgtest.Must(t, err)
	lost, server := a.Lost(), a.Server()
	select {
	case <-lost:
		t.Fatal("the session counts as lost though the server lives")
	default:
	}
	// A crash of one backend: the postmaster stays, the session is told.
	victim := connect(t, o)
	// A backend that is still within send(2) says nothing when it is told to quit (PqCommBusy in PostgreSQL's pqcomm.c).
	pgtest.Eventually(t, "the session's backend waits for its client", func() error {
		results, err := victim.Exec(ctx, "SELECT FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND wait_event = 'ClientRead'").ReadAll()
		if err == nil && len(results[0].Rows) != 1 {
			err = fmt.Errorf("%d backends wait", len(results[0].Rows))
		}
		return err
	})
	pgtest.Must(t, syscall.Kill(int(victim.PID()), syscall.SIGKILL))
	<-lost
	if err := a.LossReason(); err == nil || !postgres.Refused(err) {
		t.Errorf("the reason of the loss is %v", err)
	}
	pgtest.Eventually(t, "the server recovers", func() error { _, err := a.Probe(ctx); return err })
	if a.Lost() == lost {
		t.Error("the new session has the old channel")
	}
	select {
	case <-server.Exited():
		t.Fatal("a crash of a backend counts as the exit of the server")
	default:
	}
	pgtest.Must(t, syscall.Kill(server.PID(), syscall.SIGKILL))
	<-server.Exited()
	<-a.Lost()
	if _, err := a.Probe(ctx); err == nil {
		t.Error("a dead server answers")
	}
}

func TestProbeNeverBlocksLongerThanItsContext(t *testing.T) {
	o := pgtest.Options(t, "a")
	a := pgtest.Primary(t, o)
	_, err := a.Probe(pgtest.Context(t))
	pgtest.Must(t, err)
	pids, err := a.Processes()
	pgtest.Must(t, err)
	for _, pid := range pids {
		freeze.Process(t, pid)
	}
	for range 2 { // on the open session, and when it cannot open one
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		began := time.Now()
		if _, err := a.Probe(ctx); err == nil {
			t.Error("a frozen server answers")
		}
		cancel()
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("the probe took %s", took)
		}
	}
	for _, pid := range pids {
		pgtest.Must(t, syscall.Kill(pid, syscall.SIGCONT))
	}
	pgtest.Eventually(t, "it answers again", func() error { _, err := a.Probe(pgtest.Context(t)); return err })
}

func TestStopWaitsForNobodyWhoIsFrozen(t *testing.T) {
	ao, bo := pgtest.Options(t, "a"), pgtest.Options(t, "b")
	a := pgtest.Primary(t, ao)
	b := standby(t, bo, pgtest.Upstream(ao, ""))
	awaitStreaming(t, a, b, "b")
	p, err := b.Probe(pgtest.Context(t))
	pgtest.Must(t, err)
	freeze.Process(t, p.ReceiverPID)
	told := make(chan struct{})
	ctx, cancel := context.WithCancel(pgtest.Context(t))
	stopped := make(chan error, 1)
	go func() { stopped <- a.Stop(ctx, postgres.StopFast, func(postgres.Control) { close(told) }) }()
	<-told
	select {
	case err := <-stopped:
		t.Logf("the server stopped in spite of the frozen receiver: %v", err)
	default:
		cancel()
		if err := <-stopped; !errors.Is(err, context.Canceled) {
			t.Errorf("a stop that was given up says %v", err)
		}
	}
	pgtest.Must(t, a.Kill(pgtest.Context(t)))
	cancel()
	if d, err := a.Inspect(); err != nil || d.Control.State != postgres.StateShutDown {
		t.Errorf("after the kill the state is %q, %v", d.Control.State, err)
	}
}

// TestHelperAgent is not a test: it is the agent that starts a server and dies (see TestAdopt).
func TestHelperAgent(t *testing.T) {
	raw := os.Getenv("PGTEST_AGENT_OPTIONS")
	if raw == "" {
		t.Skip("only run by TestAdopt")
	}
	var o postgres.Options
	pgtest.Must(t, json.Unmarshal([]byte(raw), &o))
	i, err := postgres.New(o)
	pgtest.Must(t, err)
	s, err := i.Start(context.Background(), pgtest.Settings())
	pgtest.Must(t, err)
	fmt.Printf("pid=%d\n", s.PID())
	os.Exit(0)
}

func TestAdopt(t *testing.T) {
	o := pgtest.Options(t, "a")
	a := pgtest.New(t, o)
	ctx := pgtest.Context(t)
	pgtest.Init(t, a, o)
	_, err := a.Configure(pgtest.Settings(), nil, false)
	pgtest.Must(t, err)
	if s, err := a.Adopt(); s != nil || err != nil {
		t.Fatalf("nothing runs, and yet %v, %v", s, err)
	}
	o2 := o
	o2.Log = nil
	raw, err := json.Marshal(o2)
	pgtest.Must(t, err)
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperAgent$")
	cmd.Env = append(os.Environ(), "PGTEST_AGENT_OPTIONS="+string(raw))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("helper: %v: %s", err, out)
	}
	s, err := a.Adopt()
	pgtest.Must(t, err)
	if s == nil || !s.Adopted() || !strings.Contains(string(out), fmt.Sprintf("pid=%d\n", s.PID())) {
		t.Fatalf("adopted %+v; the helper said %s", s, out)
	}
	if again, err := a.Adopt(); again != s || err != nil {
		t.Errorf("adopting twice gives %v, %v", again, err)
	}
	if _, err := a.Start(ctx, pgtest.Settings()); err == nil || !strings.Contains(err.Error(), "still run") {
		t.Errorf("a second start says %v", err)
	}
	_, err = a.Probe(ctx)
	pgtest.Must(t, err)
	pgtest.Must(t, syscall.Kill(s.PID(), syscall.SIGKILL))
	<-s.Exited()
	if got := s.ExitStatus(); got != "unknown (adopted)" {
		t.Errorf("the exit status is %q", got)
	}
	pgtest.Must(t, a.Kill(ctx))
	_, err = a.Start(ctx, pgtest.Settings())
	pgtest.Must(t, err)
}

func TestCloseLeavesTheServerRunning(t *testing.T) {
	o := pgtest.Options(t, "a")
	a := pgtest.Primary(t, o)
	_, err := a.Probe(pgtest.Context(t))
	pgtest.Must(t, err)
	pid := a.Server().PID()
	a.Close()
	if got := sql(t, o, "SELECT 1")[0][0]; got != "1" {
		t.Error("the server does not serve any more")
	}
	// Another agent takes it over; it is still the child of this process, which must reap it.
	b := pgtest.New(t, o)
	s, err := b.Adopt()
	pgtest.Must(t, err)
	if s == nil || s.PID() != pid {
		t.Fatalf("adopted %v", s)
	}
	pgtest.Must(t, b.Stop(pgtest.Context(t), postgres.StopFast, nil))
	var ws syscall.WaitStatus
	_, _ = syscall.Wait4(pid, &ws, 0, nil)
}

// TestStartTellsWhyItFailed, and whether that says anything against the data: a wrong parameter, a port that is taken and a wrong rule of
// pg_hba.conf do not, a lost segment of WAL does. The port is tried after a start that went well, too, of which the server's file of
// options is left.
func TestStartTellsWhyItFailed(t *testing.T) {
	o := pgtest.Options(t, "a")
	a := pgtest.New(t, o)
	ctx := pgtest.Context(t)
	pgtest.Init(t, a, o)
	s := pgtest.Settings()
	unread := func(what, named string) {
		t.Helper()
		if _, err := a.Start(ctx, s); err == nil || errors.Is(err, postgres.ErrRead) || !strings.Contains(err.Error(), named) {
			t.Errorf("%s: the error is to name %q, and to be none of the data's: %v", what, named, err)
		}
	}
	taken := func(when string) {
		t.Helper()
		l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", o.Port))
		pgtest.Must(t, err)
		defer l.Close()
		unread("a port that is taken, "+when, strconv.Itoa(o.Port))
	}
	right := s.Parameters["shared_buffers"]
	s.Parameters["shared_buffers"] = "lots"
	_, err := a.Configure(s, nil, false)
	pgtest.Must(t, err)
	unread("a wrong parameter", "shared_buffers")
	s.Parameters["shared_buffers"] = right
	_, err = a.Configure(s, nil, false)
	pgtest.Must(t, err)
	taken("never started")
	_, err = a.Start(ctx, s)
	pgtest.Must(t, err)
	pgtest.Must(t, a.Stop(ctx, postgres.StopFast, nil))
	taken("started before")
	hba := filepath.Join(o.DataDir, "pg_hba.conf")
	rules, err := os.ReadFile(hba)
	pgtest.Must(t, err)
	pgtest.Must(t, os.WriteFile(hba, append([]byte("hots all all all trust\n"), rules...), 0o600))
	unread("a wrong rule", "hots")
	pgtest.Must(t, os.WriteFile(hba, rules, 0o600))
	segments, err := filepath.Glob(filepath.Join(o.DataDir, "pg_wal", "0*"))
	pgtest.Must(t, err)
	for _, segment := range segments {
		pgtest.Must(t, os.Remove(segment))
	}
	if _, err = a.Start(ctx, s); !errors.Is(err, postgres.ErrRead) {
		t.Errorf("without its WAL: %v", err)
	}
}
