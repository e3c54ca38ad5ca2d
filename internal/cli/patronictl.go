package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/havenha/haven/internal/config"
	"github.com/spf13/cobra"
)

// Patronictl is the name by which the program takes patronictl's syntax, as its own name or as its first argument.
const Patronictl = "patronictl"

// ctl is how patronictl is called: what its options say, beside those of the console.
type ctl struct {
	dcs      string // --dcs-url: where the store is, instead of what the file says
	insecure bool   // certificates of REST APIs are not verified
}

func (c *console) patronictlCommand() *cobra.Command {
	return &cobra.Command{
		Use: Patronictl + " COMMAND [ARGUMENT...]", Short: "Take patronictl's commands, options and prompts, and print its tables",
		Long: `Take the commands, options and prompts of patronictl 4.1, and print its texts and tables, for scripts and habits that
know nothing else. A link to haven that is called patronictl does the same. What fails sets exit status 1, wrong usage
2. haven patronictl --help lists the commands.`,
		Example:            "  haven patronictl -c /etc/patroni/patroni.yml list\n  ln -s /usr/bin/haven /usr/local/bin/patronictl",
		DisableFlagParsing: true,
		RunE:               func(cmd *cobra.Command, args []string) error { return c.patronictl(cmd.Context(), args) },
	}
}

// misuse is wrong syntax: exit status 2. Wrong values fail as anything else does, with 1.
type misuse string

func (m misuse) Error() string { return string(m) }

// patronictl runs one command of patronictl. What it has to say of failures is said: the error is a verdictCode.
func (c *console) patronictl(ctx context.Context, args []string) error {
	p := *c
	p.ctl, p.output, p.timeout, p.quiet = &ctl{}, "text", 0, false
	root := p.patronictlRoot()
	root.SetArgs(args)
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.err)
	err := root.ExecuteContext(ctx)
	var v verdictCode
	var f *Failure
	var m misuse
	switch {
	case err == nil, errors.As(err, &v):
		return err
	case errors.As(err, &m):
		fmt.Fprintf(c.err, "Error: %v\n", m)
		return verdictCode(ExitUsage)
	case errors.As(err, &f):
		fmt.Fprintf(c.err, "Error: %s\n", strings.TrimSpace(f.What))
	default:
		fmt.Fprintf(c.err, "Error: %v\n", err)
	}
	return verdictCode(ExitFailed)
}

func (c *console) patronictlRoot() *cobra.Command {
	root := &cobra.Command{
		Use: Patronictl, Short: "Look after a cluster of Patroni's or Haven's members", SilenceErrors: true, SilenceUsage: true, TraverseChildren: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return misuse(fmt.Sprintf("No such command '%s'.", args[0]))
			}
			return cmd.Help()
		},
		Args: cobra.ArbitraryArgs,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("group") {
				return refused("--group is for Citus clusters, and Haven has none", "")
			}
			return nil
		},
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return misuse(err.Error()) })
	f := root.Flags()
	f.StringVarP(&c.config, "config-file", "c", c.config, "configuration `FILE` (PATRONICTL_CONFIG_FILE)")
	f.StringVarP(&c.ctl.dcs, "dcs-url", "d", c.getenv("DCS_URL"), "the store: etcd3://HOST:PORT/NAMESPACE (DCS_URL)")
	f.StringVar(&c.ctl.dcs, "dcs", c.getenv("DCS_URL"), "the same as --dcs-url")
	f.BoolVarP(&c.ctl.insecure, "insecure", "k", false, "do not verify certificates")
	root.AddCommand(
		c.ctlList(), c.ctlTopology(), c.ctlHistory(), c.ctlShowConfig(), c.ctlVersion(), c.ctlDSN(), c.ctlQuery(),
		c.ctlChange("switchover"), c.ctlChange("failover"), c.ctlRestart(), c.ctlReload(), c.ctlReinit(), c.ctlFlush(),
		c.ctlPause(true), c.ctlPause(false), c.ctlEditConfig(), c.ctlRemove(), c.ctlSite(true), c.ctlSite(false),
	)
	for _, cmd := range root.Commands() {
		cmd.DisableFlagsInUseLine = true
		cmd.Flags().Int("group", 0, "of a Citus cluster: refused, Haven has none")
	}
	return root
}

// ctlFile is the file that patronictl reads; empty: there is only the environment.
func (c *console) ctlFile() (string, error) {
	explicit := or(c.config, c.getenv("PATRONICTL_CONFIG_FILE"))
	if explicit != "" {
		if f, err := os.Open(explicit); err == nil {
			return explicit, f.Close()
		}
		return "", &Failure{Code: ExitFailed, What: fmt.Sprintf("Provided config file %s not existing or no read rights. Check the -c/--config-file parameter", explicit)}
	}
	dir := c.getenv("XDG_CONFIG_HOME")
	if home := c.getenv("HOME"); dir == "" && home != "" {
		dir = filepath.Join(home, ".config")
	}
	if usual := filepath.Join(dir, "patroni", "patronictl.yaml"); dir != "" {
		if _, err := os.Stat(usual); err == nil {
			return usual, nil
		}
	}
	if c.ctl.dcs != "" {
		return "", nil
	}
	return config.FindFile("", c.env)
}

// ctlEnv is the environment that the configuration is read with: what the options say goes before it.
func (c *console) ctlEnv(scope string) ([]string, error) {
	env := slices.Clone(c.env)
	if scope != "" {
		env = append(env, "PATRONI_SCOPE="+scope)
	}
	_, namespace, err := c.ctl.store()
	if namespace != "" {
		env = append(env, "PATRONI_NAMESPACE="+namespace)
	}
	return env, err
}

// store reads --dcs-url. Without a scheme the port tells the kind, as patronictl has it.
func (o *ctl) store() (host, namespace string, err error) {
	if o.dcs == "" {
		return "", "", nil
	}
	text := o.dcs
	if !strings.Contains(text, "://") {
		text = "//" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return "", "", misuse(fmt.Sprintf("Invalid value for '--dcs-url': %v", err))
	}
	scheme := u.Scheme
	if scheme == "" {
		scheme = or(map[string]string{"2181": "zookeeper", "8181": "exhibitor", "8500": "consul"}[u.Port()], "etcd")
	}
	if scheme != "etcd" && scheme != "etcd3" {
		return "", "", &Failure{Code: ExitFailed, What: fmt.Sprintf("Unknown dcs scheme: %s; Haven's store is etcd 3", scheme)}
	}
	return or(u.Hostname(), "127.0.0.1") + ":" + or(u.Port(), "2379"), strings.Trim(u.Path, "/"), nil
}

// ctlReader is reader as patronictl's options, file and environment want it.
func (c *console) ctlReader(scope string) (*reader, error) {
	file, err := c.ctlFile()
	if err != nil {
		return nil, err
	}
	env, err := c.ctlEnv(scope)
	if err != nil {
		return nil, err
	}
	if isURL(file) {
		return c.remote(file, scope)
	}
	node, err := c.load(file, env)
	if host, _, _ := c.ctl.store(); err != nil && host != "" { // the file may be without a store, and etcd's two names do not go together
		node, err = c.load(file, append(env, "PATRONI_ETCD3_HOSTS="+host))
	}
	if err != nil {
		return nil, err
	}
	c.ctl.adapt(node)
	return c.readerOf(node)
}

// adapt puts what the options say in the place of what the file says.
func (o *ctl) adapt(n *config.Node) {
	if host, _, _ := o.store(); host != "" {
		n.Etcd = config.Etcd{Hosts: []string{host}, Scheme: "http"}
	}
	n.CTL.Insecure = n.CTL.Insecure || o.insecure
}

// ask is click's prompt: the default in brackets, an empty answer takes it.
func (c *console) ask(ctx context.Context, question, otherwise string) (string, error) {
	answer, err := c.prompt(ctx, fmt.Sprintf("%s [%s]: ", question, otherwise))
	return or(answer, otherwise), err
}

// confirm is click's question: the answer no ends the command with that text.
func (c *console) confirm(ctx context.Context, question, aborted string) error {
	for {
		answer, err := c.prompt(ctx, question+" [y/N]: ")
		if err != nil {
			return err
		}
		switch strings.ToLower(answer) {
		case "y", "yes":
			return nil
		case "", "n", "no":
			return refused(aborted, "")
		}
		fmt.Fprintln(c.out, "Error: invalid input")
	}
}

// scopes are the clusters that the arguments name; an empty one is the configured cluster.
func scopes(args []string) []string {
	if len(args) == 0 {
		return []string{""}
	}
	return args
}
