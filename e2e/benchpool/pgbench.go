package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// command is pgbench as the benchmark's role, on that port.
func (w *world) command(ctx context.Context, port int, arguments ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(w.bin, "pgbench"), append(arguments, "-h", "127.0.0.1", "-p", strconv.Itoa(port), "-U", role, role)...)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+password, "PGSSLMODE=disable", "PGGSSENCMODE=disable")
	return cmd
}

// patience is how long the logins of one run may take.
const patience = 3 * time.Minute

// yield is what one or more runs of pgbench have brought.
type yield struct {
	parts     int
	done      float64 // transactions
	seconds   float64
	cpu       time.Duration
	rss       int64
	latencies []float64 // milliseconds
	failed    bool      // a run of it has
}

// sample are the figures of the whole.
func (y *yield) sample() sample {
	slices.Sort(y.latencies)
	return sample{TPS: y.done / y.seconds, P50: quantile(y.latencies, 0.5), P99: quantile(y.latencies, 0.99),
		CPU: float64(y.cpu.Microseconds()) / y.done, RSS: float64(y.rss) / (1 << 20)}
}

// pgbench runs one cell once, for so many seconds, and adds what that brings. What counts is between the report of progress that
// ends the warm-up and the last one: so neither logins nor the first touch of anything count.
//
// The time that -T gives pgbench includes its logins, which can take longer than the measurement. So it gets time enough,
// and its alarm (SIGALRM, by which it ends a run in good order) from here.
func (w *world) pgbench(ctx context.Context, c *cell, seconds float64, y *yield) error {
	ctx, cancel := context.WithTimeout(ctx, patience+time.Duration(w.o.warmup+w.o.seconds)*time.Second)
	defer cancel()
	v := w.variants[slices.IndexFunc(w.variants, func(v *variant) bool { return v.name == c.Variant })]
	dir, err := os.MkdirTemp(w.dir, "run-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	script, rate := "select-only", "0.05"
	if c.Workload == "tpcb" {
		script, rate = "tpcb-like", "1"
	}
	cmd := w.command(ctx, v.port, "-n", "-b", script, "-M", c.Protocol, "-c", strconv.Itoa(c.Clients), "-j", strconv.Itoa(threads(c)),
		"-T", "3600", "-P", "1", "-l", "--log-prefix", filepath.Join(dir, "log"), "--sampling-rate", rate)
	said, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	watched := watch{middle: v.middle, warmup: float64(w.o.warmup), seconds: seconds, enough: func() { _ = cmd.Process.Signal(syscall.SIGALRM) }}
	watched.read(said)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("pgbench: %w: %s", err, cmp.Or(watched.complaint, "no reason is told"))
	}
	latencies, err := readLatencies(dir, watched.from, watched.to)
	if err != nil {
		return err
	}
	return watched.addTo(y, latencies)
}

// threads is how many pgbench gets. It waits for the answer to a Parse with the whole thread, which never ends if that
// needs a server connection which another client of the thread holds in its transaction: then each has a thread.
func threads(c *cell) int {
	if c.Workload == "tpcb" && c.Protocol == "prepared" {
		return c.Clients
	}
	return min(c.Clients, 2)
}

// watch follows pgbench's reports.
type watch struct {
	middle    *process
	warmup    float64
	seconds   float64
	enough    func() // ends the run
	begun     bool
	first     float64 // seconds, of the first report: until then clients logged in
	last      float64 // of the last one
	from, to  time.Time
	begin     usage
	end       usage
	done      float64 // transactions since the warm-up
	measured  float64 // seconds
	complaint string
	err       error
}

// read reads what pgbench says until it ends.
func (w *watch) read(said io.Reader) {
	lines := bufio.NewScanner(said)
	for lines.Scan() {
		at, tps, ok := parseProgress(lines.Text())
		if !ok {
			if strings.Contains(lines.Text(), "error") || strings.Contains(lines.Text(), "FATAL") {
				w.complaint = cmp.Or(w.complaint, lines.Text())
			}
			continue
		}
		now, err := w.middle.used()
		w.err = errors.Join(w.err, err)
		w.report(at, tps, now)
	}
	_, _ = io.Copy(io.Discard, said) // a line too long for the scanner: it is not to block pgbench
}

// slack is how much early a report may come.
const slack = 0.2

// report takes one report, and what the process in the middle has used until then.
func (w *watch) report(at, tps float64, now usage) {
	if !w.begun {
		w.begun, w.first = true, at
	}
	switch {
	case !w.from.IsZero() && w.measured >= w.seconds-slack: // it is about to end
	case !w.from.IsZero():
		w.to, w.end = time.Now(), now
		w.done += tps * (at - w.last)
		w.measured += at - w.last
		if w.measured >= w.seconds-slack {
			w.enough()
		}
	case at-w.first >= w.warmup-slack:
		w.from, w.begin = time.Now(), now
	}
	w.last = at
}

// parseProgress reads a report of -P.
func parseProgress(line string) (at, tps float64, ok bool) {
	_, rest, found := strings.Cut(line, "progress: ")
	if !found {
		return 0, 0, false
	}
	n, err := fmt.Sscanf(rest, "%f s, %f tps", &at, &tps)
	return at, tps, err == nil && n == 2
}

// addTo adds what was measured.
func (w *watch) addTo(y *yield, latencies []float64) error {
	if w.err != nil {
		return w.err
	}
	if w.done == 0 || len(latencies) == 0 {
		return errors.New("no transactions")
	}
	y.parts++
	y.done += w.done
	y.seconds += w.measured
	y.cpu += w.end.cpu - w.begin.cpu
	y.rss = w.end.rss
	y.latencies = append(y.latencies, latencies...)
	return nil
}

func quantile(sorted []float64, q float64) float64 { return sorted[int(q*float64(len(sorted)-1))] }

// readLatencies reads pgbench's logs: milliseconds of the transactions that ended between the two times.
func readLatencies(dir string, from, to time.Time) ([]float64, error) {
	files, err := filepath.Glob(filepath.Join(dir, "log.*"))
	if err != nil {
		return nil, err
	}
	var out []float64
	for _, file := range files {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			took, ended, ok := parseLog(lines.Text())
			if ok && ended.After(from) && ended.Before(to) {
				out = append(out, took)
			}
		}
		f.Close()
	}
	return out, nil
}

// parseLog reads a line of pgbench's log: client, number, microseconds, script, and when it ended.
func parseLog(line string) (took float64, ended time.Time, ok bool) {
	var client, number, script int
	var sec, usec int64
	n, err := fmt.Sscan(line, &client, &number, &took, &script, &sec, &usec)
	return took / 1000, time.Unix(sec, usec*1000), err == nil && n == 6
}
