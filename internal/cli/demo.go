package cli

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/demo"
	"github.com/spf13/cobra"
)

func (c *console) demoCommand() *cobra.Command {
	var o demo.Options
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run a whole cluster on this machine, to try things out",
		Long: `Run a whole cluster on this machine: members with their own etcd, each a process of its own, and
a proxy, all on loopback. It needs nothing but PostgreSQL's server programs. When it ends, in
whatever way, no process and no temporary directory is left; with --dir the data stays, and the
next demo in that directory goes on with it.`,
		Example: "  haven demo\n  haven demo --kill-primary\n  haven demo --members 5 --sync quorum --dir ./try",
		Args:    atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.demo(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Members, "members", 3, "how many members: 1, 3 or 5")
	f.StringVar(&o.Dir, "dir", "", "`DIRECTORY` for data that shall stay (default: a temporary one)")
	f.StringVar(&o.Sync, "sync", "on", "synchronous replication: on, quorum, off")
	f.BoolVar(&o.KillPrimary, "kill-primary", false, "kill the primary under eight writers, show what they saw, and end")
	f.DurationVar(&o.For, "for", 0, "end by itself after this time (default: at Ctrl-C)")
	return cmd
}

func (c *console) demo(ctx context.Context, o demo.Options) error {
	switch {
	case o.Members != 1 && o.Members != 3 && o.Members != 5:
		return usage(fmt.Sprintf("--members %d: an etcd of so many members makes no sense", o.Members), "use 1, 3 or 5")
	case o.Sync != "on" && o.Sync != "quorum" && o.Sync != "off":
		return usage(fmt.Sprintf("--sync %q is not a mode", o.Sync), "use on, quorum or off")
	case o.KillPrimary && o.Members < 3:
		return usage("--kill-primary needs members that can take over", "use --members 3")
	}
	o.Out, o.TTY, o.Log = c.out, c.outTTY, slog.New(slog.DiscardHandler)
	o.Table = func(s cluster.Snapshot) string {
		var b bytes.Buffer
		p := demoPicture(s)
		if err := c.members(&b, p, rowsOf(p), false); err != nil {
			return err.Error()
		}
		return b.String()
	}
	o.Explain = func(s cluster.Snapshot) string {
		var b bytes.Buffer
		if err := c.explain(&b, demoPicture(s), 0); err != nil {
			return err.Error()
		}
		return b.String()
	}
	now, stop := secondInterrupt()
	defer stop()
	err := demo.Run(ctx, o, now)
	if err != nil && ctx.Err() != nil {
		return nil
	}
	return err
}

func demoPicture(s cluster.Snapshot) picture {
	return picture{scope: "demo", snap: s, asOf: time.Now(), from: "etcd"}
}

// secondInterrupt closes the channel at the second Ctrl-C (or SIGTERM), when somebody is in a hurry.
func secondInterrupt() (<-chan struct{}, func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	now := make(chan struct{})
	go func() {
		if _, ok := <-signals; !ok {
			return
		}
		if _, ok := <-signals; ok {
			close(now)
		}
	}()
	return now, func() { signal.Stop(signals); close(signals) }
}

// keeperCommand is the process that is the parent of a demo's nodes.
func (c *console) keeperCommand() *cobra.Command {
	return &cobra.Command{
		Use: demo.KeeperCommand, Hidden: true, Args: atMost(0),
		RunE: func(*cobra.Command, []string) error {
			// Ctrl-C at the terminal is for the demo, which tells the keeper by closing its input.
			signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
			return demo.Keep(c.in, c.out)
		},
	}
}
