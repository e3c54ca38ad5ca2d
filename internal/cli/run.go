package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/havenha/haven/internal/app"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/obs"
	"github.com/spf13/cobra"
)

func (c *console) runCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "run [FILE]",
		Short: "Run this node: the roles whose sections the configuration has",
		Long: `Run this node: an etcd member, a database member, a proxy, as the configuration says.

FILE is a haven.yml, a patroni.yml, or a directory of them; without it, the usual places and
PATRONI_* variables are looked at. SIGTERM ends the node in an orderly way (a leader hands over
first), SIGHUP reads the configuration again.`,
		Example: `  haven run /etc/haven/haven.yml
  haven run cluster.yml --name db1`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			file := c.config
			if len(args) == 1 {
				file = args[0]
			}
			err := c.run(cmd.Context(), file)
			if errors.Is(err, app.ErrUpgrade) {
				return goOn()
			}
			return err
		},
	}
}

// startedAs is the path by which this program was started, as it stands there now; empty: it cannot be told. A link is not
// resolved, since an upgrade may change where it leads.
func startedAs() string {
	path, err := exec.LookPath(os.Args[0])
	if err != nil {
		return ""
	}
	if path, err = filepath.Abs(path); err != nil {
		return ""
	}
	return path
}

// goOn replaces this program by the one that stands at its path now. It returns only if that fails.
func goOn() error {
	path := startedAs()
	return fmt.Errorf("go on as %s: %w", path, syscall.Exec(path, os.Args, os.Environ()))
}

// hostSource is where the configuration of a node on this host comes from.
func hostSource(file, name string) config.Source {
	host, _ := os.Hostname() // an empty one makes the check ask for a name
	dir, _ := os.Getwd()
	return config.Source{Path: file, Name: name, Env: os.Environ(), WorkDir: dir, Hostname: host, Addresses: globalAddresses(), Root: os.Geteuid() == 0}
}

// globalAddresses are the host's own global unicast addresses.
func globalAddresses() []netip.Addr {
	var out []netip.Addr
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok {
			if ip, ok := netip.AddrFromSlice(n.IP); ok && ip.Unmap().IsGlobalUnicast() {
				out = append(out, ip.Unmap())
			}
		}
	}
	return out
}

// processors is on how many processors a node is to run at once; 0: as it is. available is how many it may use, chosen
// says that the environment has decided. A proxy waits for the network most of the time: with a processor to spare the scheduler
// wakes up one more thread at nearly every message, which costs more than it gains, and PostgreSQL beside it has less. Where
// an agent or etcd run too, two are left at least: they are not to wait for the proxy alone.
func processors(n *config.Node, available int, chosen bool) int {
	switch {
	case n.Proxy == nil:
		return 0
	case n.Proxy.Threads > 0:
		return n.Proxy.Threads
	case chosen:
		return 0
	}
	least := 1
	if n.Postgres != nil || len(n.Etcd.Members) > 0 {
		least = min(2, available)
	}
	return max(least, available/2)
}

// decidesProcessors tells whether a variable of the environment sets GOMAXPROCS.
func decidesProcessors(variable string) bool {
	value, is := strings.CutPrefix(variable, "GOMAXPROCS=")
	n, err := strconv.Atoi(value)
	return is && err == nil && n > 0
}

func (c *console) run(ctx context.Context, file string) error {
	found, err := config.FindFile(file, c.env)
	switch {
	case err == nil:
		file = found
	case file == "" && !slices.ContainsFunc(c.env, func(e string) bool { return strings.HasPrefix(e, "PATRONI_") }):
		return &Failure{Code: ExitConfig, What: err.Error(), Next: "haven run FILE"}
	}
	src := hostSource(file, c.name)
	src.Env = c.env
	node, report := config.Load(src)
	if !report.OK() {
		return &app.ConfigError{Report: report}
	}
	log, out, err := obs.Logger(node.Log, c.err)
	if err != nil {
		return err
	}
	defer out.Close()
	for _, f := range report.Faults {
		log.Warn(f.String())
	}
	if n := processors(node, runtime.GOMAXPROCS(0), slices.ContainsFunc(c.env, decidesProcessors)); n > 0 {
		runtime.GOMAXPROCS(n)
	}
	n, err := app.New(ctx, app.Options{Node: node, Next: c.nextCheck(file), Version: Version, Log: log, Relog: out.Use, Env: c.env})
	if err != nil {
		return err
	}
	log.Info("haven "+Version, "scope", node.Scope, "name", node.Name, "roles", fmt.Sprint(node.Roles()))
	stop := reloadOnHUP(n)
	defer stop()
	err = n.Run(ctx)
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// nextCheck is the command by which the program that is installed at the time checks this node's configuration.
func (c *console) nextCheck(file string) []string {
	path := startedAs()
	if path == "" {
		return nil
	}
	next := []string{path, "config", "check"}
	if c.name != "" {
		next = append(next, "--name", c.name)
	}
	if file != "" {
		next = append(next, file)
	}
	return next
}

// reloadOnHUP reads the configuration again at every SIGHUP until it is stopped.
func reloadOnHUP(n *app.Node) (stop func()) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range hup {
			_ = n.Reload() // it has logged what is wrong
		}
	}()
	return func() {
		signal.Stop(hup)
		close(hup)
		<-ended
	}
}
