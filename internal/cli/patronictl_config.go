package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

func (c *console) ctlPause(on bool) *cobra.Command {
	m := &maintenance{c: c, on: on}
	verb, _ := m.words()
	cmd := m.command(&cobra.Command{Use: verb + " [CLUSTER_NAME]", Short: "Switch maintenance mode on or off"})
	cmd.Args = ctlArgs(0, 1)
	return cmd
}

func (c *console) ctlEditConfig() *cobra.Command {
	e := &edit{c: c}
	cmd := &cobra.Command{Use: "edit-config [CLUSTER_NAME]", Short: "Change the dynamic configuration", Args: ctlArgs(0, 1)}
	f := cmd.Flags()
	f.BoolVarP(&c.quiet, "quiet", "q", false, "do not show changes")
	f.StringArrayVarP(&e.set, "set", "s", nil, "set `KEY=VALUE`")
	f.StringArrayVarP(&e.pg, "pg", "p", nil, "set a parameter of PostgreSQL, `NAME=VALUE`")
	f.StringVar(&e.apply, "apply", "", "merge a YAML `FILE` (- is standard input)")
	f.StringVar(&e.replace, "replace", "", "put a YAML `FILE` in its place")
	f.BoolVar(&e.yes, "force", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return e.run(cmd.Context(), args) }
	return cmd
}

func (c *console) ctlRemove() *cobra.Command {
	cmd := &cobra.Command{Use: "remove CLUSTER_NAME", Short: "Remove what the store knows of a cluster", Args: ctlArgs(1, 1)}
	c.formatFlag(cmd, "format", "f", "pretty")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return c.remove(cmd.Context(), args[0], "") }
	return cmd
}

// ctlYAML writes YAML as patronictl does with PyYAML: lists not indented, single quotes, an empty line at the end.
func ctlYAML(w io.Writer, v any) error {
	var n yaml.Node
	if err := n.Encode(v); err != nil {
		return err
	}
	singleQuotes(&n)
	e := yaml.NewEncoder(w)
	e.SetIndent(2)
	e.CompactSeqIndent()
	if err := e.Encode(&n); err != nil {
		return err
	}
	if err := e.Close(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w)
	return err
}

func singleQuotes(n *yaml.Node) {
	if n.Style == yaml.DoubleQuotedStyle && !strings.ContainsAny(n.Value, "\x00\t\n\r\x1b") {
		n.Style = yaml.SingleQuotedStyle
	}
	for _, c := range n.Content {
		singleQuotes(c)
	}
}
