package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"github.com/havenha/haven/internal/freeze"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/drill/hosts"
	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// TestKnock: a server whose connections are all taken answers, by a refusal; one whose postmaster is stopped does not,
// though its sessions go on.
func TestKnock(t *testing.T) {
	o := pgtest.Options(t, "knock")
	i := pgtest.Primary(t, o)
	ctx := pgtest.Context(t)
	_, err := i.Knock(ctx, 0)
	pgtest.Must(t, err)
	_, err = i.Probe(ctx)
	pgtest.Must(t, err)

	var taken []*pgx.Conn
	for {
		c, err := pgx.Connect(ctx, pgtest.ConnString(o, "postgres"))
		if told := new(pgconn.PgError); errors.As(err, &told) && told.Code == "53300" {
			break
		}
		pgtest.Must(t, err)
		taken = append(taken, c)
	}
	if _, err := i.Knock(ctx, 0); err != nil {
		t.Errorf("a server without a free connection counts as silent: %v", err)
	}
	for _, c := range taken {
		pgtest.Must(t, c.Close(ctx))
	}

	freeze.Process(t, i.Server().PID())
	short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	if _, err := i.Knock(short, 0); err == nil {
		t.Error("a server whose postmaster is stopped counts as answering")
	}
	if _, err := i.Probe(ctx); err != nil {
		t.Errorf("the session that is kept has ended: %v", err)
	}
}

// TestKnockWrites: WAL that is in memory only, because its transaction is open, is no sign of a disk that does not answer,
// nor are slow writes; writes that never come to the disk are.
func TestKnockWrites(t *testing.T) {
	o := pgtest.Options(t, "knockwrites")
	i := pgtest.Primary(t, o)
	ctx := pgtest.Context(t)
	c, err := pgx.Connect(ctx, pgtest.ConnString(o, "postgres"))
	pgtest.Must(t, err)
	defer c.Close(context.Background())
	waiting, giveUp := context.WithCancel(ctx)
	committed := make(chan struct{})
	_, err = c.Exec(ctx, "CREATE TABLE t(); BEGIN; INSERT INTO t DEFAULT VALUES")
	pgtest.Must(t, err)
	var flushed cluster.LSN
	for range 3 {
		flushed, err = i.Knock(ctx, flushed)
		pgtest.Must(t, err)
	}
	pids, err := i.Processes()
	pgtest.Must(t, err)
	undo, err := hosts.SlowSync(pids, time.Minute)
	if err != nil {
		t.Skip(err)
	}
	defer undo(context.Background())
	if _, err := c.Exec(ctx, "INSERT INTO t DEFAULT VALUES"); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(committed); _, _ = c.Exec(waiting, "COMMIT") }()
	defer func() { giveUp(); <-committed }()
	pgtest.Eventually(t, "a write that does not come to the disk", func() error {
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		at, err := i.Knock(short, flushed)
		flushed = at
		if !errors.Is(err, postgres.ErrWriteStalls) {
			return fmt.Errorf("the write is not told to stall: %v", err)
		}
		t.Log(err)
		return nil
	})
	if _, err := i.Probe(ctx); err != nil {
		t.Errorf("reading does not work either, so that the test shows little: %v", err)
	}
}

// TestKnockWaitsForAPlace: the queue of the server's socket is full, as when many connect at once, and is emptied in time.
func TestKnockWaitsForAPlace(t *testing.T) {
	o := pgtest.Options(t, "knockqueue")
	i := pgtest.Primary(t, o)
	ctx := pgtest.Context(t)
	freeze.Process(t, i.Server().PID())
	resume := func() { _ = unix.Kill(i.Server().PID(), unix.SIGCONT) }
	defer resume()
	fillQueue(t, filepath.Join(o.SocketDir, fmt.Sprintf(".s.PGSQL.%d", o.Port)))
	knocked := make(chan error, 1)
	began := make(chan struct{})
	go func() {
		close(began)
		_, err := i.Knock(ctx, 0)
		knocked <- err
	}()
	<-began
	select {
	case err := <-knocked:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(200 * time.Millisecond): // it is tried again and again
	}
	resume()
	if err := <-knocked; err != nil {
		t.Errorf("a server with a full queue counts as silent: %v", err)
	}
}

// fillQueue connects to a socket that nobody accepts on, until it takes no more.
func fillQueue(t *testing.T, path string) {
	t.Helper()
	for {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		pgtest.Must(t, err)
		t.Cleanup(func() { _ = unix.Close(fd) })
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		pgtest.Must(t, err)
	}
}
