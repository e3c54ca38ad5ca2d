package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/havenha/haven/internal/doctor"
	"github.com/spf13/cobra"
)

// Codes of haven doctor, which are those of monitoring plugins.
const (
	doctorWarning  = 1
	doctorCritical = 2
)

// diagnosis is what haven doctor says. Its JSON names are stable.
type diagnosis struct {
	Cluster  string           `json:"cluster"`
	Examined []string         `json:"examined"` // the members that let themselves be examined
	Critical int              `json:"critical"`
	Warnings int              `json:"warnings"`
	Findings []doctor.Finding `json:"findings"`
}

func (c *console) doctorCommand() *cobra.Command {
	var proxies []string
	cmd := &cobra.Command{
		Use: "doctor [CLUSTER]", Short: "Look for what is wrong, and name the command that mends it", Args: atMost(1),
		Long: `Look for what is wrong with a cluster: members that nobody is routed to, secrets that differ between nodes,
two writable members, lag and its cause, etcd, permissions, ports, the distribution's own servers, settings that
endanger data, idle slots. Each finding names the command that mends it. Nothing is changed.

Run it on a node, with the node's own configuration: members let themselves be examined only with the password of
the REST API, and what concerns the own host is found there alone. Secrets never leave a node: salted hashes of
them are compared.

Exit code: 0 nothing found, 1 warnings, 2 something critical. Every code of a finding is explained in
docs/reference/doctor.md.`,
		Example: "  haven doctor\n  haven doctor -o json\n  haven doctor --proxy 10.0.0.20:7000",
	}
	cmd.Flags().StringSliceVar(&proxies, "proxy", nil, "`HOST:PORT` of the statistics of a proxy to ask besides")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := c.noTSV(); err != nil {
			return err
		}
		r, err := c.reader(scopeIn(args))
		if err != nil {
			return err
		}
		defer r.close()
		return c.doctor(cmd.Context(), r, proxies)
	}
	return cmd
}

func (c *console) doctor(ctx context.Context, r *reader, proxies []string) error {
	p, err := r.read(ctx)
	if err != nil {
		return err
	}
	e := r.gather(ctx, p, proxies)
	d := diagnosis{Cluster: p.scope, Examined: []string{}, Findings: append([]doctor.Finding{}, doctor.Examine(e)...)}
	for _, m := range e.Members {
		if m.Facts != nil {
			d.Examined = append(d.Examined, m.Name)
		}
	}
	for _, f := range d.Findings {
		if f.Severity == doctor.Critical {
			d.Critical++
		} else {
			d.Warnings++
		}
	}
	if c.structured() {
		err = c.emit(c.out, d)
	} else {
		err = c.diagnosisText(c.out, d, e)
	}
	switch {
	case err != nil:
		return err
	case d.Critical > 0:
		return verdictCode(doctorCritical)
	case d.Warnings > 0:
		return verdictCode(doctorWarning)
	}
	return nil
}

// diagnosisText is for people: one block for each finding, the worst first.
func (c *console) diagnosisText(w io.Writer, d diagnosis, e doctor.Evidence) error {
	var b strings.Builder
	head := fmt.Sprintf("cluster %s: %d critical, %d warnings", d.Cluster, d.Critical, d.Warnings)
	if d.Critical+d.Warnings == 0 {
		head = fmt.Sprintf("cluster %s: nothing found", d.Cluster)
	}
	fmt.Fprintf(&b, "%s (%d of %d members and %d members of etcd examined)\n", head, len(d.Examined), len(e.Members), len(e.Etcd))
	for _, f := range d.Findings {
		color := map[doctor.Severity]string{doctor.Critical: "31;1", doctor.Warning: "33;1"}[f.Severity]
		where := ""
		if f.Member != "" {
			where = f.Member + ": "
		}
		fmt.Fprintf(&b, "\n%s  %s%s  [%s]\n", c.color(color, strings.ToUpper(string(f.Severity))), where, f.Text, f.Code)
		fmt.Fprintf(&b, "  mend: %s\n", f.Mend)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
