package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// interval is the value of --watch: a duration, or a number of seconds.
type interval time.Duration

func (i *interval) String() string { return time.Duration(*i).String() }

// Type names the value in the help.
func (i *interval) Type() string { return "interval" }

// Set reads the value.
func (i *interval) Set(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil {
		seconds, nerr := strconv.ParseFloat(s, 64)
		if nerr != nil {
			return fmt.Errorf("write a duration, for instance 2s")
		}
		d = time.Duration(seconds * float64(time.Second))
	}
	if d < 100*time.Millisecond {
		return fmt.Errorf("the shortest interval is 100ms")
	}
	*i = interval(d)
	return nil
}

func watchFlag(cmd *cobra.Command) *interval {
	i := new(interval)
	f := cmd.Flags().VarPF(i, "watch", "w", "show it again at this interval (-w alone: 2s)")
	f.NoOptDefVal = "2s"
	f.DefValue = ""
	return i
}

// view is what a command shows of a picture, and one line that tells it from others.
type view struct {
	show    func(w io.Writer, p picture) error
	summary func(p picture) string
}

// show reads and shows once, or again and again.
func (c *console) show(ctx context.Context, args []string, every time.Duration, v view) error {
	r, err := c.reader(scopeIn(args))
	if err != nil {
		return err
	}
	defer r.close()
	if every == 0 {
		p, err := r.read(ctx)
		if err != nil {
			return err
		}
		return v.show(c.out, p)
	}
	return c.follow(ctx, r, every, v)
}

// follow redraws in place on a terminal; elsewhere it writes one line, or one document, for each change.
func (c *console) follow(ctx context.Context, r *reader, every time.Duration, v view) error {
	last := ""
	for {
		p, err := r.read(ctx)
		if ctx.Err() != nil {
			return nil // Ctrl-C is how one leaves
		}
		if err := c.frame(p, err, v, &last); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(every):
		}
	}
}

func (c *console) frame(p picture, failed error, v view, last *string) error {
	var b strings.Builder
	switch {
	case failed != nil:
		fmt.Fprintln(&b, failed)
	case c.outTTY || c.structured():
		if err := v.show(&b, p); err != nil {
			return err
		}
	default:
		fmt.Fprintln(&b, v.summary(p))
	}
	if c.outTTY {
		// Home, the text with each line's rest cleared, then everything below it: no flicker.
		_, err := fmt.Fprint(c.out, "\x1b[H"+strings.ReplaceAll(b.String(), "\n", "\x1b[K\n")+"\x1b[J")
		return err
	}
	if b.String() == *last {
		return nil
	}
	*last = b.String()
	stamp := time.Now().UTC().Format(time.RFC3339) + " "
	if c.structured() {
		stamp = ""
	}
	_, err := fmt.Fprint(c.out, stamp+*last)
	return err
}
