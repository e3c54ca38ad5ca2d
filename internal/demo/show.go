package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/havenha/haven/internal/check"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/dcs"
	"github.com/havenha/haven/internal/drill"
)

// startTimeout bounds the wait for a healthy cluster before the demo says what to look at.
const startTimeout = 2 * time.Minute

// show is what is on the screen.
type show struct {
	o     Options
	plan  Plan
	begun time.Time
	out   io.Writer

	drawn int // lines of the table that stand on the screen
	last  string
}

func (d *show) run(ctx context.Context, gone <-chan struct{}) error {
	fmt.Fprintf(d.out, "starting %d members and a proxy in %s\n", len(d.plan.Members), d.plan.Dir)
	store, err := d.plan.store(slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer store.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	updates := store.Watch(ctx)
	snap, err := d.awaitHealth(ctx, gone, updates)
	if err != nil || ctx.Err() != nil {
		return err
	}
	d.endpoints()
	if d.o.KillPrimary {
		return d.killPrimary(ctx, gone, updates, snap)
	}
	if d.o.TTY {
		fmt.Fprintln(d.out, "Ctrl-C ends it. Try: kill -9 the primary's postmaster, and watch.")
		d.draw(snap)
	}
	return d.live(ctx, gone, updates)
}

func (d *show) awaitHealth(ctx context.Context, gone <-chan struct{}, updates <-chan dcs.Update) (cluster.Snapshot, error) {
	late := time.After(startTimeout)
	for {
		select {
		case <-ctx.Done():
			return cluster.Snapshot{}, nil
		case <-gone:
			return cluster.Snapshot{}, errors.New("the keeper of the nodes has ended")
		case <-late:
			return cluster.Snapshot{}, fmt.Errorf("the cluster is not healthy after %s: look into %s/*.log", startTimeout, d.plan.Dir)
		case u := <-updates:
			if u.Err != nil {
				continue
			}
			d.draw(u.Snapshot)
			if healthy(u.Snapshot, len(d.plan.Members)) {
				fmt.Fprintf(d.out, "healthy: %d members after %.1f s\n\n", len(d.plan.Members), time.Since(d.begun).Seconds())
				d.drawn = 0
				return u.Snapshot, nil
			}
		}
	}
}

func (d *show) endpoints() {
	fmt.Fprintf(d.out, `  read and write   psql "%s"
  read only        psql "%s"
  pooled           psql "%s"
  statistics       http://%s/
  REST API         %s
  etcd             etcdctl --endpoints=%s member list
  this cluster     haven -c %s status      (list, topology, switchover, explain …)

`, d.plan.DSN(d.plan.Write), d.plan.DSN(d.plan.Read), d.plan.DSN(d.plan.Pool), d.plan.Stats, "http://"+strings.Join(d.plan.API, "/cluster http://")+"/cluster",
		strings.Join(d.plan.Etcd, ","), d.plan.File)
}

// live redraws the table until the demo ends.
func (d *show) live(ctx context.Context, gone <-chan struct{}, updates <-chan dcs.Update) error {
	var end <-chan time.Time
	if d.o.For > 0 {
		end = time.After(d.o.For)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-end:
			return nil
		case <-gone:
			return errors.New("the keeper of the nodes has ended")
		case u := <-updates:
			if u.Err == nil {
				d.draw(u.Snapshot)
			}
		}
	}
}

// draw shows the table: in place on a terminal, otherwise only when something other than a position has changed.
func (d *show) draw(s cluster.Snapshot) {
	if len(s.Members) == 0 {
		return
	}
	if !d.o.TTY {
		if line := summary(s); line != d.last {
			d.last = line
			fmt.Fprintf(d.out, "%6.1f s  %s\n", time.Since(d.begun).Seconds(), line)
		}
		return
	}
	text := d.o.Table(s)
	if d.drawn > 0 {
		fmt.Fprintf(d.out, "\x1b[%dA\x1b[J", d.drawn)
	}
	fmt.Fprint(d.out, text)
	d.drawn = strings.Count(text, "\n")
}

// summary is the cluster in one line.
func summary(s cluster.Snapshot) string {
	var parts []string
	for _, m := range s.Members {
		state := string(m.State)
		if m.ReplicationState != "" && m.State == cluster.StateRunning {
			state = m.ReplicationState
		}
		mark := ""
		if s.Leader != nil && s.Leader.Name == m.Name {
			mark = " leader"
		}
		if s.Sync.Has(m.Name) {
			mark = " sync"
		}
		parts = append(parts, fmt.Sprintf("%s %s%s", m.Name, state, mark))
	}
	return strings.Join(parts, " · ")
}

// route is the name of the writers' way to the cluster.
const route = "proxy"

const (
	beforeKill = 3 * time.Second
	afterKill  = 10 * time.Second
)

// killPrimary runs writers through the proxy, kills the primary's postmaster, and shows what the writers saw, and what a session of
// the pooled port that was idle meanwhile.
func (d *show) killPrimary(ctx context.Context, gone <-chan struct{}, updates <-chan dcs.Update, s cluster.Snapshot) error {
	load, err := drill.Begin(ctx, drill.Load{
		Routes: map[string]string{route: d.plan.DSN(d.plan.Write)}, Schema: "haven_demo", Clients: drill.Mix{Ledger: 8},
		Pause: 5 * time.Millisecond, Timeout: 15 * time.Second,
	})
	if err != nil {
		return err
	}
	idle, err := d.idleSession(ctx)
	if err != nil {
		return err
	}
	defer idle.Close(context.WithoutCancel(ctx))
	fmt.Fprintf(d.out, "8 writers insert through %s …\n", d.plan.Write)
	if s, err = d.follow(ctx, gone, updates, s, beforeKill, nil); err != nil {
		return err
	}
	old := s.Leader.Name
	pid, err := d.plan.primaryPID(old)
	if err != nil {
		return fmt.Errorf("find the primary's postmaster: %w", err)
	}
	fmt.Fprintf(d.out, "kill -9 %d, the postmaster of %s\n", pid, old)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill the primary: %w", err)
	}
	if s, err = d.follow(ctx, gone, updates, s, afterKill, nil); err != nil {
		return err
	}
	history := load.Stop()
	if err := load.Final(ctx, d.plan.DSN(d.plan.Write)); err != nil {
		return err
	}
	if s, err = d.follow(ctx, gone, updates, s, time.Minute, func(s cluster.Snapshot) bool { return healthy(s, len(d.plan.Members)) }); err != nil {
		return err
	}
	if err := idle.QueryRow(ctx, "SELECT 'a row'").Scan(new(string)); err != nil {
		return fmt.Errorf("the session on the pooled port, which was idle while the primary was killed: %w", err)
	}
	report := check.Judge(history)
	d.verdict(report, s)
	if report.Verdict == check.Fail {
		return fmt.Errorf("the rows are not what the writers were told:\n%s", report.Text())
	}
	return nil
}

// follow draws what happens until the time is over or done says so, and returns the newest state.
func (d *show) follow(ctx context.Context, gone <-chan struct{}, updates <-chan dcs.Update, s cluster.Snapshot, bound time.Duration, done func(cluster.Snapshot) bool) (cluster.Snapshot, error) {
	end := time.After(bound)
	for done == nil || !done(s) {
		select {
		case <-ctx.Done():
			return s, ctx.Err()
		case <-gone:
			return s, errors.New("the keeper of the nodes has ended")
		case <-end:
			if done != nil {
				return s, fmt.Errorf("not healthy again within %s", bound)
			}
			return s, nil
		case u := <-updates:
			if u.Err == nil {
				s = u.Snapshot
				d.draw(s)
			}
		}
	}
	return s, nil
}

// idleSession opens a session on the pooled port, which needs a connection to a server only when it says something.
func (d *show) idleSession(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, d.plan.DSN(d.plan.Pool))
	if err == nil {
		err = conn.Ping(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("a session on the pooled port: %w", err)
	}
	return conn, nil
}

func (d *show) verdict(r check.Report, s cluster.Snapshot) {
	d.drawn = 0
	rows, _ := r.Find(check.Ledger, route)
	missing, _ := r.Check(check.CheckAcknowledged)
	twice, _ := r.Check(check.CheckTwice)
	fmt.Fprintf(d.out, "\nwrites stopped for %.2f s\n", rows.Gap.Seconds())
	fmt.Fprintf(d.out, "acknowledged %d rows (%.0f a second); missing afterwards: %d; twice: %d\n", rows.OK, rows.Rate, missing.Count, twice.Count)
	fmt.Fprintf(d.out, "unknown outcomes (no answer came): %d; refused: %d\n", rows.Unknown, rows.Failed)
	fmt.Fprintln(d.out, "the session on the pooled port that was idle meanwhile goes on: no error")
	var kinds []string
	for k, n := range rows.Errors {
		if !strings.Contains(k, " ") {
			k = "SQLSTATE " + k
		}
		kinds = append(kinds, fmt.Sprintf("%s: %d", k, n))
	}
	slices.Sort(kinds)
	if len(kinds) > 0 {
		fmt.Fprintf(d.out, "errors that the writers saw: %s\n", strings.Join(kinds, ", "))
	}
	fmt.Fprintf(d.out, "\n%s", d.o.Explain(s))
}
