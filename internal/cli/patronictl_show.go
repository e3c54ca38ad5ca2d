package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// refresh are patronictl's -W and -w.
type refresh struct {
	on    bool
	every interval
}

func (w *refresh) flags(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&w.on, "auto", "W", false, "show it again every 2 seconds")
	cmd.Flags().VarP(&w.every, "watch", "w", "show it again every `SECONDS`")
}

func (w *refresh) interval() time.Duration {
	if w.every == 0 && w.on {
		return 2 * time.Second
	}
	return time.Duration(w.every)
}

// again runs f once, or at each interval until ctx ends.
func (c *console) again(ctx context.Context, every time.Duration, f func() error) error {
	for {
		if every > 0 && c.outTTY {
			fmt.Fprint(c.out, "\x1b[H\x1b[2J")
		}
		if err := f(); err != nil || every == 0 {
			return err
		}
		pauseFor(ctx, every)
		if ctx.Err() != nil {
			return nil
		}
	}
}

// formatFlag is -f of patronictl's tables.
func (c *console) formatFlag(cmd *cobra.Command, name, short, otherwise string) {
	c.output = "text"
	cmd.Flags().StringP(name, short, otherwise, "pretty, tsv, json, yaml")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		value, err := cmd.Flags().GetString(name)
		if err != nil {
			return err
		}
		if !slices.Contains([]string{"pretty", "tsv", "json", "yaml", "yml"}, value) {
			return misuse(fmt.Sprintf("Invalid value for '--%s': '%s' is not one of 'pretty', 'tsv', 'json', 'yaml', 'yml'", name, value))
		}
		c.output = value
		return c.checkOptions()
	}
}

func (c *console) ctlList() *cobra.Command {
	var extended, stamp bool
	var w refresh
	cmd := &cobra.Command{Use: "list [CLUSTER_NAMES...]", Short: "List the members", Args: cobra.ArbitraryArgs}
	cmd.Flags().BoolVarP(&extended, "extended", "e", false, "show all columns")
	cmd.Flags().BoolVarP(&stamp, "timestamp", "t", false, "print the time first")
	w.flags(cmd)
	c.formatFlag(cmd, "format", "f", "pretty")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.again(cmd.Context(), w.interval(), func() error {
			if stamp {
				fmt.Fprintln(c.out, time.Now().Format(time.DateTime))
			}
			return c.eachCluster(cmd.Context(), args, func(p picture) error { return c.members(c.out, p, rowsOf(p), extended) })
		})
	}
	return cmd
}

func (c *console) ctlTopology() *cobra.Command {
	var w refresh
	cmd := &cobra.Command{Use: "topology [CLUSTER_NAMES...]", Short: "List the members as a tree", Args: cobra.ArbitraryArgs}
	w.flags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.again(cmd.Context(), w.interval(), func() error {
			return c.eachCluster(cmd.Context(), args, func(p picture) error { return c.members(c.out, p, tree(p, rowsOf(p)), false) })
		})
	}
	return cmd
}

func (c *console) eachCluster(ctx context.Context, args []string, f func(picture) error) error {
	for _, scope := range scopes(args) {
		t, err := c.open(ctx, scope)
		if err != nil {
			return err
		}
		err = f(t.p)
		t.close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *console) ctlHistory() *cobra.Command {
	cmd := &cobra.Command{Use: "history [CLUSTER_NAME]", Short: "List the changes of timeline", Args: ctlArgs(0, 1)}
	c.formatFlag(cmd, "format", "f", "pretty")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.eachCluster(cmd.Context(), args, func(p picture) error { return c.history(c.out, p) })
	}
	return cmd
}

// ctlArgs checks the number of arguments in click's words; most below 0: any.
func ctlArgs(least, most int) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return misuse("Missing argument 'CLUSTER_NAME'.")
		case most >= 0 && len(args) > most:
			return misuse(fmt.Sprintf("Got unexpected extra argument (%s)", strings.Join(args[most:], " ")))
		}
		return nil
	}
}

// ctlShowConfig shows what is stored, secrets too: edit-config --replace takes it back.
func (c *console) ctlShowConfig() *cobra.Command {
	return &cobra.Command{
		Use: "show-config [CLUSTER_NAME]", Short: "Show the dynamic configuration", Args: ctlArgs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.eachCluster(cmd.Context(), args, func(p picture) error { return c.dynamic(c.out, p) })
		},
	}
}

func (c *console) ctlVersion() *cobra.Command {
	return &cobra.Command{
		Use: "version [CLUSTER_NAME] [MEMBER_NAMES...]", Short: "Show the versions of this program and of members", Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			fmt.Fprintf(c.out, "patronictl version %s (haven)\n", Version)
			if len(args) == 0 {
				return nil
			}
			fmt.Fprintln(c.out)
			t, err := c.open(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer t.close()
			return t.versions(cmd.Context(), c.out, args[1:])
		},
	}
}

// versions asks each member for what it runs; one that does not answer fails the command, after all were asked.
func (t target) versions(ctx context.Context, w io.Writer, named []string) error {
	var failed error
	for _, m := range t.p.snap.Members {
		if len(named) > 0 && !slices.Contains(named, m.Name) || m.APIBase() == "" {
			continue
		}
		limited, cancel := context.WithTimeout(ctx, readTimeout)
		a, err := t.client.Do(limited, http.MethodGet, m.APIBase(), "/patroni", nil)
		cancel()
		var doc struct {
			Server  int                      `json:"server_version"`
			Patroni struct{ Version string } `json:"patroni"`
		}
		if err == nil {
			err = json.Unmarshal(a.Body, &doc)
		}
		if err != nil {
			fmt.Fprintf(w, "%s: failed to get version: %v\n", m.Name, err)
			failed = verdictCode(ExitFailed)
			continue
		}
		fmt.Fprintf(w, "%s: Patroni %s", m.Name, doc.Patroni.Version)
		if doc.Server > 0 {
			fmt.Fprintf(w, " PostgreSQL %d.%d", doc.Server/10000, doc.Server%10000)
		}
		fmt.Fprintln(w)
	}
	return failed
}
