package postgres

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/havenha/haven/internal/postgres/script"
)

// Hook is a command of the operator's that has to do with the server.
type Hook struct {
	What string // the key by which it is configured, for the log
	Line string // the command; see package script
	Args []string
	Env  []string // beside the environment that all hooks get
	// Grace is how long it has from SIGTERM to SIGKILL when ctx ends.
	Grace time.Duration
	// Hold is a file that stays open in the command and what it starts; nil: none.
	Hold *os.File
}

// RunHook runs a command of the operator's as RunAs, in the working directory of this process, until it ends or ctx does:
// then it is ended with all that it has started. What it writes goes to the log. Its environment is ours, without what
// configures Haven or Patroni (which may hold passwords) and what systemd means for us.
func (i *Instance) RunHook(ctx context.Context, h Hook) error {
	var name string
	if words, err := script.Split(h.Line); err == nil && len(words) > 0 {
		name = filepath.Base(words[0])
	}
	say := func(line string) { i.log.Info("output of a command", "key", h.What, "command", name, "line", line) }
	c := script.Command{Line: h.Line, Args: h.Args, Env: append(i.hookEnvironment(), h.Env...), User: i.credential(), Grace: h.Grace, Say: say, Hold: h.Hold}
	return c.Run(ctx)
}

// hookEnvironment is that of the server's programs with libpq's variables and those of Kubernetes left in it: an
// operator's script may have been written for them (Patroni hands them on).
func (i *Instance) hookEnvironment() []string {
	var env []string
	for _, kv := range i.environment() {
		if !strings.HasPrefix(kv, "MALLOC_ARENA_MAX=") { // is for the server
			env = append(env, kv)
		}
	}
	for _, kv := range i.opt.Env {
		name, _, _ := strings.Cut(kv, "=")
		libpq := strings.HasPrefix(name, "PG") && !strings.Contains(name, "_")
		if libpq && name != "PGPASSWORD" || strings.HasPrefix(name, "KUBERNETES_") {
			env = append(env, kv)
		}
	}
	return env
}
