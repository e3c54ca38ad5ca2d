package guard

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// restartAfter is the pause before an agent that has died is started again, as RestartSec of a unit of systemd.
const restartAfter = time.Second

// settled is how long an agent has to have run for its end to be a crash rather than a refusal to start.
const settled = 10 * time.Second

// First is the first process of a container, whose end is the end of all others. It starts the agent, which is the same
// program with these arguments, passes signals on to it, starts it again when it dies, and collects every process that was
// orphaned to it: guards, and what servers leave. It returns the agent's exit code once that ends by itself.
func First(args []string) int {
	children := make(chan os.Signal, 1)
	signal.Notify(children, syscall.SIGCHLD)
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	stopping := false
	for {
		pid, err := startAgent(args)
		if err != nil {
			fmt.Fprintln(os.Stderr, "haven: the agent cannot be started:", err)
			return exitFailed
		}
		began := time.Now()
		status := await(pid, children, signals, &stopping)
		if stopping || !crashed(status, time.Since(began)) {
			return exitCode(status)
		}
		fmt.Fprintf(os.Stderr, "haven: the agent (process %d) has died: %s; it is started again\n", pid, statusText(status))
		if interrupted(restartAfter, children, signals) {
			return exitCode(status)
		}
	}
}

func startAgent(args []string) (int, error) {
	return syscall.ForkExec("/proc/self/exe", append([]string{"haven"}, args...), &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2},
	})
}

// await returns how the agent has ended.
func await(pid int, children, signals <-chan os.Signal, stopping *bool) syscall.WaitStatus {
	for {
		if status, ended := collect(pid); ended {
			return status
		}
		select {
		case <-children:
		case sig := <-signals:
			number, _ := sig.(syscall.Signal)
			*stopping = *stopping || number == syscall.SIGTERM || number == syscall.SIGINT || number == syscall.SIGQUIT
			_ = syscall.Kill(pid, number) // it is our child, and not collected: the number is its own
		}
	}
}

// collect reaps every child that has ended, and tells how that one did if it is among them.
func collect(pid int) (status syscall.WaitStatus, ended bool) {
	for {
		var ws syscall.WaitStatus
		got, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil || got <= 0:
			return status, ended
		case got == pid:
			status, ended = ws, true
		}
	}
}

// crashed tells that an agent did not end by itself. A panic's exit code is that of a mistaken command, too, which ends at
// once.
func crashed(ws syscall.WaitStatus, after time.Duration) bool {
	const panicked = 2
	return ws.Signaled() || ws.ExitStatus() == panicked && after > settled
}

// exitCode is what a shell would say of that end.
func exitCode(ws syscall.WaitStatus) int {
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// interrupted waits, and tells whether it was told to end meanwhile.
func interrupted(d time.Duration, children, signals <-chan os.Signal) bool {
	for end := time.After(d); ; {
		select {
		case <-end:
			return false
		case <-children:
			collect(0)
		case sig := <-signals:
			if sig != syscall.SIGHUP && sig != syscall.SIGUSR1 && sig != syscall.SIGUSR2 {
				return true
			}
		}
	}
}
