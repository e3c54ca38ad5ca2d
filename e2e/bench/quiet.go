package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/havenha/haven/internal/check"
	"github.com/havenha/haven/internal/drill"
	"github.com/havenha/haven/internal/drill/hosts"
	"github.com/havenha/haven/internal/drill/stack"
)

// A disturbance is what must not move the leadership.
type disturbance struct {
	name  string
	begin func(ctx context.Context, s *stack.Stack, primary string) (hosts.Undo, error)
}

func disturbances() []disturbance {
	network := func(q hosts.Quality) func(context.Context, *stack.Stack, string) (hosts.Undo, error) {
		return func(_ context.Context, s *stack.Stack, primary string) (hosts.Undo, error) {
			h := s.Net.Host(primary)
			return h.Degrade(s.Net.Others(h), q), nil
		}
	}
	return []disturbance{
		{"agent stopped for 1 to 15 s", stopAgent},
		{"fsync of etcd takes 2 s longer", func(_ context.Context, s *stack.Stack, primary string) (hosts.Undo, error) {
			return hosts.SlowSync([]int{s.Agent(primary).PID()}, 2*time.Second)
		}},
		{"1 % of the packets lost", network(hosts.Quality{Loss: 0.01})},
		{"every packet 200 ms late", network(hosts.Quality{Delay: 200 * time.Millisecond})},
		{"both cores busy", func(ctx context.Context, s *stack.Stack, primary string) (hosts.Undo, error) {
			f, _ := stack.NamedFault("cores busy")
			return f.Do(ctx, s, primary)
		}},
	}
}

// stopAgent stops the leader's agent for 1, 3, 7 and 15 seconds, again and again, with time to breathe between.
func stopAgent(ctx context.Context, s *stack.Stack, primary string) (hosts.Undo, error) {
	f, _ := stack.NamedFault("agent frozen")
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		var err error
		for i := 0; err == nil && ctx.Err() == nil; i++ {
			var undo hosts.Undo
			if undo, err = f.Do(ctx, s, primary); err == nil {
				_ = sleep(ctx, []time.Duration{1, 3, 7, 15}[i%4]*time.Second) // ends early with ctx
				err = undo(context.WithoutCancel(ctx))
			}
			_ = sleep(ctx, 8*time.Second)
		}
		ended <- err
	}()
	return func(context.Context) error { stop(); return <-ended }, nil
}

// patience is how long a client waits for one operation. To connect takes five round trips, and to commit two more: with
// every packet 200 ms late about three seconds, which is no fault of the cluster's.
const patience = 10 * time.Second

// quietFor is how long each run is.
const quietFor = time.Minute

// quietResult is how one run went.
type quietResult struct {
	Disturbance string  `json:"disturbance"`
	Real        bool    `json:"real"`    // the postmaster was killed meanwhile, and writes had to go on, here or elsewhere
	Changes     int     `json:"changes"` // of timeline
	Outage      float64 `json:"outage"`  // seconds between two acknowledgements, at most
	Errors      int     `json:"errors"`
	Acked       int     `json:"acknowledged"`
	Verdict     string  `json:"verdict"`
}

func (r quietResult) bad() bool {
	return r.Verdict == string(check.Fail) || !r.Real && r.Changes > 0
}

// quiet disturbs Haven with the guides' settings, which are the defaults, and counts the changes of leadership; then once
// more with a real fault, which has to be acted on.
func (b *bench) quiet(ctx context.Context) error {
	v := variants()[0]
	v.Name = "quiet"
	var scratch variantResult
	s, err := b.boot(ctx, v, &scratch)
	if err != nil {
		return err
	}
	defer func() { end(s) }()
	var all []quietResult
	if err := b.anew(quietFile); err != nil {
		return err
	}
	for _, d := range disturbances() {
		if b.o.only != "" && !slices.Contains(split(b.o.only), d.name) {
			continue
		}
		for n := range b.o.quiet + 1 {
			r, err := disturbed(ctx, s, d, n == b.o.quiet)
			if err != nil {
				return fmt.Errorf("%s: %w", d.name, err)
			}
			all = append(all, r)
			log.Printf("%d/%d %s (real fault: %v): %d changes of leadership, outage %.2f s, %d errors, %d acknowledged: %s",
				n+1, b.o.quiet, d.name, r.Real, r.Changes, r.Outage, r.Errors, r.Acked, r.Verdict)
			if err := record(b.o.out, quietFile, r, writeQuiet); err != nil {
				return err
			}
		}
	}
	if slices.ContainsFunc(all, quietResult.bad) {
		return errors.New("the leadership moved without need, or something was lost: see above")
	}
	return nil
}

func disturbed(ctx context.Context, s *stack.Stack, d disturbance, fault bool) (quietResult, error) {
	r := quietResult{Disturbance: d.name, Real: fault}
	primary, err := s.AwaitHealthy(ctx, healthLimit)
	if err != nil {
		return r, err
	}
	before, err := timeline(ctx, s, primary)
	if err != nil {
		return r, err
	}
	load, err := drill.Begin(ctx, drill.Load{
		Routes: map[string]string{route: s.WriteDSN()}, Dial: s.Dial, Members: addresses(s), Clients: drill.Mix{Ledger: 3, Transfers: 1, Readers: 1}, Note: d.name,
		Timeout: patience,
	})
	if err != nil {
		return r, err
	}
	defer load.Stop()
	if err := sleep(ctx, warmUp); err != nil {
		return r, err
	}
	undo, err := d.begin(ctx, s, primary)
	if err != nil {
		return r, err
	}
	err = errors.Join(meanwhile(ctx, s, load, primary, fault), undo(context.WithoutCancel(ctx)))
	if err != nil {
		return r, err
	}
	now, err := s.AwaitHealthy(ctx, healthLimit)
	if err != nil {
		return r, err
	}
	after, err := timeline(ctx, s, now)
	if err != nil {
		return r, err
	}
	report, _ := verdict(ctx, s, load)
	r.Changes, r.Verdict = after-before, string(report.Verdict)
	if w, ok := report.Find(check.AnyWrite, route); ok {
		r.Outage, r.Acked, r.Errors = w.Gap.Seconds(), w.OK, w.Failed+w.Unknown
	}
	return r, nil
}

// meanwhile waits for a minute, or makes a real fault and waits until it was acted on: by another leader, or, where there was a
// handover for a crash a short time ago, by a start in place.
func meanwhile(ctx context.Context, s *stack.Stack, load *drill.Run, primary string, fault bool) error {
	if !fault {
		return sleep(ctx, quietFor)
	}
	if err := sleep(ctx, warmUp); err != nil {
		return err
	}
	f, _ := stack.NamedFault("postmaster killed")
	_, err := f.Do(ctx, s, primary)
	return errors.Join(err, acknowledged(ctx, load))
}

// timeline is that of the primary: each change of leadership begins another.
func timeline(ctx context.Context, s *stack.Stack, primary string) (n int, err error) {
	c, err := s.Connect(ctx, s.DSN(primary))
	if err != nil {
		return 0, err
	}
	defer c.Close(context.WithoutCancel(ctx))
	err = c.QueryRow(ctx, "SELECT ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int").Scan(&n)
	return n, err
}

const quietFile = "quiet.json"

func writeQuiet(dir string, all []quietResult) error {
	return os.WriteFile(filepath.Join(dir, "quiet.md"), []byte(renderQuiet(all)), 0o644)
}

// renderQuiet is the page with what the disturbances cost.
func renderQuiet(all []quietResult) string {
	var b strings.Builder
	b.WriteString("# Quiet\n\nWhat `make quiet` measured; it writes this page and `quiet.json` again. Three members with the default settings (ttl 30 s),\nsynchronous, under load. Each run disturbs the leader's host for a minute: the leadership must not move. In the last run of each\nthe postmaster is killed meanwhile: that must be acted on. Outage in seconds between two acknowledged writes: median, least to most.\n\n| disturbance | runs | changes without need | outage | errors | acknowledged | outage with a real fault |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for _, d := range disturbances() {
		var outages, mistakes, real []float64
		changes, acked := 0, 0
		for _, r := range all {
			switch {
			case r.Disturbance != d.name:
			case r.Real:
				real = append(real, r.Outage)
			default:
				outages, mistakes = append(outages, r.Outage), append(mistakes, float64(r.Errors))
				changes += r.Changes
				acked += r.Acked
			}
		}
		if len(outages) == 0 {
			continue
		}
		slices.Sort(outages)
		slices.Sort(mistakes)
		slices.Sort(real)
		fmt.Fprintf(&b, "| %s | %d | %d | %s | %s | %d | %s |\n", d.name, len(outages), changes, spread(outages, "%.1f"), spread(mistakes, "%.0f"), acked, spread(real, "%.1f"))
	}
	return b.String()
}
