// Command haven keeps a PostgreSQL cluster up. See internal/cli for its commands.
package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/havenha/haven/internal/cli"
	"github.com/havenha/haven/internal/guard"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == guard.Command { // before all else: it is to stay small
		os.Exit(guard.Main(os.Args[2:]))
	}
	if os.Getpid() == 1 && len(os.Args) > 1 && os.Args[1] == "run" { // of a container
		os.Exit(guard.First(os.Args[1:]))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	args := os.Args[1:]
	if filepath.Base(os.Args[0]) == cli.Patronictl { // a link of that name
		args = append([]string{cli.Patronictl}, args...)
	}
	code := cli.Main(ctx, args, os.Stdin, os.Stdout, os.Stderr, os.Environ())
	stop()
	os.Exit(code)
}
