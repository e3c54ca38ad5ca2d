package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// Version is Haven's.
const Version = "0.1.0"

// console is what a command has of the world, and its global options.
type console struct {
	in       io.Reader
	out, err io.Writer
	env      []string
	inTTY    bool
	outTTY   bool

	config, name, output    string
	ctl                     *ctl // called as patronictl; nil: as haven
	timeout                 time.Duration
	noColor, quiet, verbose bool
}

// Main runs one command and returns its exit code. args are those after the program's name, env has the form of
// os.Environ.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, env []string) int {
	c := &console{in: stdin, out: stdout, err: stderr, env: env, inTTY: isTerminal(stdin), outTTY: isTerminal(stdout)}
	root := c.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var v verdictCode
	if errors.As(err, &v) {
		return int(v)
	}
	if err != nil {
		fmt.Fprintln(stderr, "haven: "+strings.TrimSpace(err.Error()))
	}
	return exitOf(ctx, err)
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (c *console) getenv(name string) string {
	value := ""
	for _, e := range c.env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			value = v
		}
	}
	return value
}

func (c *console) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "haven",
		Short: "Haven keeps a PostgreSQL cluster up",
		Long: `Haven keeps a PostgreSQL cluster up: it runs the servers, replaces a primary that fails, and
sends connections to the right one.`,
		Example: `  haven demo                     a whole cluster on this machine, to try things out
  haven status                   what is the matter, and what to do
  haven switchover               another member takes over, in an orderly way
  haven explain                  why the last change of leadership happened`,
		SilenceErrors: true, SilenceUsage: true,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			return c.checkOptions()
		},
	}
	root.SuggestionsMinimumDistance = 2
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage(err.Error(), cmd.CommandPath()+" --help")
	})
	f := root.PersistentFlags()
	f.StringVarP(&c.config, "config", "c", "", "configuration `FILE`, or the URL of a member's REST API")
	f.StringVar(&c.name, "name", "", "which of the nodes that the file describes")
	f.DurationVar(&c.timeout, "timeout", 0, "how long to wait (default 5s for reading, 60s for changes)")
	f.StringVarP(&c.output, "output", "o", "text", "text, json, yaml; for tables tsv")
	f.BoolVar(&c.noColor, "no-color", false, "no colours (also: NO_COLOR)")
	f.BoolVarP(&c.quiet, "quiet", "q", false, "no talk on standard error")
	f.BoolVarP(&c.verbose, "verbose", "v", false, "more talk on standard error")
	root.AddCommand(
		c.statusCommand(), c.listCommand(), c.topologyCommand(), c.explainCommand(), c.historyCommand(),
		c.switchoverCommand(), c.failoverCommand(), c.pauseCommand(), c.resumeCommand(), c.reloadCommand(), c.editConfigCommand(), c.showConfigCommand(),
		c.restartCommand(), c.upgradeCommand(), c.reinitCommand(), c.flushCommand(), c.removeCommand(), c.configCommand(), c.versionCommand(),
		c.runCommand(), c.patronictlCommand(), c.demoCommand(), c.keeperCommand(), c.doctorCommand(), c.monitorCommand(),
	)
	return root
}

func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	next := "haven --help lists all commands"
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		next = "did you mean haven " + strings.Join(near, ", haven ") + "?"
	}
	return usage(fmt.Sprintf("there is no command %q", args[0]), next)
}

func (c *console) checkOptions() error {
	switch c.output {
	case "pretty":
		c.output = "text"
	case "yml":
		c.output = "yaml"
	}
	if !slices.Contains([]string{"text", "json", "yaml", "tsv"}, c.output) {
		return usage(fmt.Sprintf("-o %s is not a form of output", c.output), "use text, json, yaml, or for tables tsv")
	}
	return nil
}

// wait is the time limit of a command.
func (c *console) wait(otherwise time.Duration) time.Duration {
	if c.timeout > 0 {
		return c.timeout
	}
	return otherwise
}

// say is talk: it goes to standard error and is left out with -q.
func (c *console) say(format string, args ...any) {
	if !c.quiet {
		fmt.Fprintf(c.err, format+"\n", args...)
	}
}

// atMost is cobra's check of the number of arguments, as a usage error of ours.
func atMost(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return usage(fmt.Sprintf("%s takes at most %d argument(s), and was given %d", cmd.CommandPath(), n, len(args)), cmd.CommandPath()+" --help")
		}
		return nil
	}
}
