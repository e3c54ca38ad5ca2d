package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/havenha/haven/internal/api"
	"github.com/havenha/haven/internal/config"
	"github.com/spf13/cobra"
)

func (c *console) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "config", Short: "Check a node's configuration", Args: atMost(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.checkCommand())
	return cmd
}

func (c *console) checkCommand() *cobra.Command {
	var show bool
	cmd := &cobra.Command{
		Use: "check [FILE]", Short: "Report every fault of a configuration, each with its line and what to do", Args: atMost(1),
		Long: `Report every fault of a configuration. A file that describes several nodes is checked for each of them, or
for the one that --name chooses. Exit code 3: there is an error; warnings alone are 0.`,
		Example: "  haven config check /etc/haven/haven.yml\n  haven config check cluster.yml --name db1 --print",
		RunE: func(cmd *cobra.Command, args []string) error {
			if c.output != "text" {
				return usage("config check writes text only", "leave out -o")
			}
			file := c.config
			if len(args) == 1 {
				file = args[0]
			}
			file, err := config.FindFile(file, c.env)
			switch {
			case err != nil:
				return &Failure{Code: ExitConfig, What: err.Error(), Next: "haven config check FILE"}
			case isURL(file):
				return usage("a URL cannot be checked", "haven config check FILE")
			}
			return c.check(cmd.Context(), file, show)
		},
	}
	cmd.Flags().BoolVar(&show, "print", false, "print the effective configuration, with where each value comes from")
	return cmd
}

func (c *console) check(ctx context.Context, file string, show bool) error {
	src := hostSource(file, c.name)
	src.Env = c.env
	names := []string{c.name}
	if c.name == "" {
		if several, _ := config.NodeNames(src); len(several) > 0 {
			names = several
		}
	}
	var all config.Report
	seen := map[config.Fault]bool{}
	for _, name := range names {
		src.Name = name
		node, report := config.Load(src)
		if node != nil && len(names) == 1 && !running(ctx, node) {
			report.Faults = append(report.Faults, node.BusyPorts()...)
		}
		for _, f := range report.Faults {
			if !seen[f] {
				seen[f] = true
				all.Faults = append(all.Faults, f)
			}
		}
		if show && node != nil {
			fmt.Fprint(c.out, node.Print())
		}
	}
	fmt.Fprint(c.out, all.String())
	if !all.OK() {
		return verdictCode(ExitConfig)
	}
	if len(all.Faults) == 0 && !show {
		fmt.Fprintln(c.out, "no faults: "+or(file, "PATRONI_* variables"))
	}
	return nil
}

// running tells whether this very node runs, under Haven or Patroni: its ports are then in use by itself. Older releases of
// Patroni do not tell their name.
func running(ctx context.Context, n *config.Node) bool {
	client, err := api.NewClient(config.CTL{Insecure: true}, nil)
	if err != nil || n.RESTAPI == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	scheme := "http://"
	if n.RESTAPI.CertFile != "" {
		scheme = "https://"
	}
	a, err := client.Do(ctx, "GET", scheme+n.RESTAPI.ConnectAddress, "/patroni", nil)
	if err != nil {
		return false
	}
	var d api.Document
	return json.Unmarshal(a.Body, &d) == nil && (d.Patroni.Name == n.Name || d.Patroni.Name == "") && d.Patroni.Scope == n.Scope
}
