package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/havenha/haven/internal/postgres/pidfile"
	"github.com/havenha/haven/internal/postgres/processes"
	"golang.org/x/sys/unix"
)

// StopMode is how a server is stopped (PostgreSQL manual, "Shutting Down the Server").
type StopMode int

// The modes.
const (
	// StopFast ends sessions, writes a shutdown checkpoint and streams it to the standbys.
	StopFast StopMode = iota
	// StopImmediate ends all processes at once, without a checkpoint.
	StopImmediate
)

// Stop stops the server and returns when every process is gone. On a fast stop, onShutdown (which may be nil) is called
// once, as soon as the control file says that the server is shut down: a standby that does not answer can keep the
// postmaster alive long after that (wal_sender_timeout). When ctx ends first, the error says so and the server may
// still be there. A server that does not run is no error.
func (i *Instance) Stop(ctx context.Context, mode StopMode, onShutdown func(Control)) error {
	server, err := i.Adopt()
	if err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	if server == nil {
		return i.stopOrphans(ctx)
	}
	sig := unix.SIGINT
	if mode == StopImmediate {
		sig, onShutdown = unix.SIGQUIT, nil
	}
	if err := server.signal(sig); err != nil {
		return fmt.Errorf("stop: signal process %d: %w", server.pid, err)
	}
	if err := i.awaitStop(ctx, server, onShutdown); err != nil {
		return err
	}
	return i.stopOrphans(ctx)
}

func (i *Instance) awaitStop(ctx context.Context, s *Server, onShutdown func(Control)) error {
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for {
		gone := !s.alive() // before the control file is read, so that its last state is not missed
		if onShutdown != nil {
			if c, err := readControl(i.opt.DataDir); err == nil && c.Clean() {
				onShutdown(c)
				onShutdown = nil
			}
		}
		if gone {
			return nil
		}
		select {
		case <-s.Exited():
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("stop: process %d still runs: %w", s.pid, ctx.Err())
		}
	}
}

// stopOrphans waits until no process is left of a server whose postmaster is gone, and ends those that are: they have
// lost their postmaster and have nothing to finish.
func (i *Instance) stopOrphans(ctx context.Context) error {
	pids, err := i.Processes()
	if err != nil || len(pids) == 0 {
		return err
	}
	return i.Kill(ctx)
}

// Kill ends the server with SIGKILL: the postmaster first, so that nothing new is started, then every process of the
// server, until none is found. It returns nil only when that is verified; a process that cannot be ended (state D, in
// the middle of a disk access) is named in the error when ctx ends. It is right also when the postmaster is dead already
// and its children live on: those were seen to acknowledge commits for seconds.
func (i *Instance) Kill(ctx context.Context) error {
	server := i.Server()
	if server != nil {
		if err := server.signal(unix.SIGKILL); err != nil {
			return fmt.Errorf("kill: process %d: %w", server.pid, err)
		}
	} else if err := i.killPostmaster(); err != nil {
		return fmt.Errorf("kill: %w", err)
	}
	for {
		pids, err := i.Processes()
		if err != nil {
			return fmt.Errorf("kill: %w", err)
		}
		if len(pids) == 0 {
			return i.awaitReaped(ctx, server)
		}
		for _, pid := range pids {
			if err := i.killProcess(pid); err != nil {
				return fmt.Errorf("kill: process %d: %w", pid, err)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("kill: %s: %w", processes.Describe(pids), ctx.Err())
		case <-time.After(time.Millisecond):
		}
	}
}

// AwaitOrphans gives the processes of a server whose postmaster is gone up to limit to end by themselves, and returns when none is left.
// A session that waits for its client ends within milliseconds, and tells it that (57P01): so its client, or the pooler before it,
// knows that what it has just sent was not run. After a SIGKILL it cannot know. A server that runs is not waited for.
func (i *Instance) AwaitOrphans(ctx context.Context, limit time.Duration) {
	if i.Server() != nil || i.postmaster() != 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		if pids, err := i.Processes(); err != nil || len(pids) == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Millisecond):
		}
	}
}

// postmaster is the process of a postmaster that runs, whether we watch it or not; 0: none is known. A lock file that cannot be read does
// not matter here: its process is found by its executable and directory.
func (i *Instance) postmaster() int {
	f, err := pidfile.Read(i.opt.DataDir)
	if err != nil || !i.isPostmaster(f) {
		return 0
	}
	return f.PID
}

func (i *Instance) killPostmaster() error {
	pid := i.postmaster()
	if pid == 0 {
		return nil
	}
	if err := i.killProcess(pid); err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	return nil
}

// killProcess ends pid if it still is a process of the server.
func (i *Instance) killProcess(pid int) error { return i.signalProcess(pid, unix.SIGKILL) }

func (i *Instance) signalProcess(pid int, sig unix.Signal) error { return i.Target().Signal(pid, sig) }

func (i *Instance) awaitReaped(ctx context.Context, s *Server) error {
	if s == nil {
		return nil
	}
	select {
	case <-s.Exited():
		return nil
	case <-ctx.Done():
		return fmt.Errorf("kill: process %d has not been reaped: %w", s.pid, ctx.Err())
	}
}
