// Command bench runs Haven and its peer, Debian's Patroni with etcd and HAProxy, side by side on hosts made of network
// namespaces, does the same to both, and writes what it cost: raw results, and a table.
//
//	go run ./e2e/bench -repeat 3 -out docs/bench
//
// It needs root, PostgreSQL, and the packages patroni, etcd-server and haproxy (make bench installs them).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/havenha/haven/internal/drill/hosts"
	"github.com/havenha/haven/internal/drill/stack"
)

// options are the command line.
type options struct {
	repeat   int
	out      string
	dir      string
	haven    string
	variants string
	faults   string
	table    bool
	random   int
	seed     uint64
	modes    string
	days     int
	quiet    int
	only     string
	idle     time.Duration
	add      bool
}

func main() {
	var o options
	flag.IntVar(&o.repeat, "repeat", 3, "how often each fault is made on each variant")
	flag.StringVar(&o.out, "out", "docs/bench", "where raw.json and README.md are written")
	flag.StringVar(&o.dir, "dir", "", "where data is kept, on the disk that is to be measured (default: a temporary directory)")
	flag.StringVar(&o.haven, "haven", "bin/haven", "the program")
	flag.StringVar(&o.variants, "variants", "", "only these, separated by commas")
	flag.StringVar(&o.faults, "faults", strings.Join(benchFaults(), ","), "only these, separated by commas")
	flag.BoolVar(&o.table, "table", false, "only write the pages again, from the raw results")
	flag.IntVar(&o.random, "random", 0, "instead of the table: make that many random faults on Haven, and judge after each")
	flag.Uint64Var(&o.seed, "seed", 1, "chooses the random faults")
	flag.StringVar(&o.modes, "modes", "on,quorum", "synchronous modes of the random faults, one after another")
	flag.IntVar(&o.days, "days", 0, "instead of the table: live through each bad day that often, and judge after each")
	flag.IntVar(&o.quiet, "quiet", 0, "instead of the table: that many runs of a minute of each disturbance that must not move the leadership")
	flag.StringVar(&o.only, "only", "", "only these days or disturbances, separated by commas")
	flag.DurationVar(&o.idle, "idle", 0, "instead of the table: watch for so long what a cluster uses that nobody uses")
	flag.BoolVar(&o.add, "add", false, "add to the days and disturbances that are recorded, instead of beginning anew")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if o.table {
		return errors.Join(again(o.out, rawFile, writeTable), again(o.out, daysFile, writeDays), again(o.out, quietFile, writeQuiet), again(o.out, "idle.json", writeIdle))
	}
	if err := hosts.Available(); err != nil {
		return err
	}
	b, err := newBench(o)
	if err != nil {
		return err
	}
	if err := b.measure(ctx); err != nil {
		return fmt.Errorf("%w (data and logs are kept in %s)", err, b.dir)
	}
	return os.RemoveAll(b.dir)
}

// measure does what the options ask for.
func (b *bench) measure(ctx context.Context) error {
	switch {
	case b.o.random > 0:
		return b.random(ctx)
	case b.o.days > 0:
		return b.days(ctx)
	case b.o.quiet > 0:
		return b.quiet(ctx)
	case b.o.idle > 0:
		return b.rest(ctx)
	}
	for _, v := range b.variants {
		if err := b.variant(ctx, v); err != nil {
			return errors.Join(err, b.write())
		}
		if err := b.write(); err != nil { // after each: an hour's work is not lost for a fault in the last minute
			return err
		}
	}
	return nil
}

// write saves what is known so far.
func (b *bench) write() error {
	if err := writeJSON(filepath.Join(b.o.out, rawFile), b.results); err != nil {
		return err
	}
	return writeTable(b.o.out, b.results)
}

const rawFile = "raw.json"

// again writes a page again from its raw results.
func again[T any](dir, file string, write func(dir string, r T) error) error {
	r, err := readJSON[T](filepath.Join(dir, file))
	if err != nil {
		return err
	}
	return write(dir, r)
}

func writeTable(dir string, r results) error {
	return os.WriteFile(filepath.Join(dir, "README.md"), []byte(render(r)), 0o644)
}

// variant is one product with one set of settings.
type variant struct {
	Name     string
	Peer     bool
	Settings stack.Settings
}

// variants are what is compared. The guides' settings are those of the published guides that the project's tests
// read; the fastest are the least that each product accepts.
func variants() []variant {
	guides := stack.Settings{TTL: 30 * time.Second, LoopWait: 10 * time.Second, RetryTimeout: 10 * time.Second, StartTimeout: 300 * time.Second,
		Synchronous: "on", Check: "inter 3s fall 3 rise 2"}
	least := stack.Settings{TTL: 20 * time.Second, LoopWait: time.Second, RetryTimeout: 3 * time.Second, Synchronous: "on", Check: "inter 500ms fall 2 rise 1"}
	own := stack.Settings{TTL: 5 * time.Second, LoopWait: time.Second, RetryTimeout: 2 * time.Second, Synchronous: "on"}
	return []variant{
		{"Haven as guides set it", false, guides},
		{"Haven at its fastest", false, own},
		{"Patroni as guides set it", true, guides},
		{"Patroni at its fastest", true, least},
	}
}

// chosen are the variants of these names; empty: all.
func chosen(names string) ([]variant, error) {
	all := variants()
	if names == "" {
		return all, nil
	}
	var out []variant
	for _, name := range split(names) {
		i := slices.IndexFunc(all, func(v variant) bool { return v.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no variant %q", name)
		}
		out = append(out, all[i])
	}
	return out, nil
}

func split(s string) []string {
	var out []string
	for _, part := range strings.Split(s, ",") {
		out = append(out, strings.TrimSpace(part))
	}
	return out
}

// version is the first line of what a program says of itself; empty: it is not there.
func version(argv ...string) string {
	out, err := exec.Command(argv[0], argv[1:]...).Output()
	if err != nil {
		return ""
	}
	first, _, _ := strings.Cut(string(out), "\n")
	return first
}
