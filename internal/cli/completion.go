package cli

import (
	"context"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/spf13/cobra"
)

// completionTimeout bounds what a shell waits for; then it completes nothing.
const completionTimeout = 300 * time.Millisecond

// complete offers the members that fit as values of a flag.
func (c *console) complete(cmd *cobra.Command, flag string, fits func(picture, cluster.Member) bool) {
	err := cmd.RegisterFlagCompletionFunc(flag, func(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return c.names(cmd.Context(), fits), cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil {
		panic(err) // the flag is not there: a mistake in this package
	}
}

func (c *console) names(ctx context.Context, fits func(picture, cluster.Member) bool) []string {
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completionTimeout)
	defer cancel()
	quiet := *c
	quiet.quiet, quiet.timeout = true, completionTimeout
	r, err := quiet.reader("")
	if err != nil {
		return nil
	}
	defer r.close()
	p, err := r.read(ctx)
	if err != nil {
		return nil
	}
	var out []string
	for _, m := range p.snap.Members {
		if fits(p, m) {
			out = append(out, m.Name)
		}
	}
	return out
}
