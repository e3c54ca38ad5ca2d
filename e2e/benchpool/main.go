// Command benchpool measures Haven's proxy beside PgBouncer, HAProxy and no proxy at all, in front of one PostgreSQL on
// this machine: pgbench in each protocol at growing numbers of clients, runs of all variants shuffled, and writes what
// it cost as raw results and a page.
//
//	go run ./e2e/benchpool -runs 5 -seconds 20 -out docs/bench
//
// It needs PostgreSQL with pgbench, and the packages pgbouncer and haproxy (make bench-pool installs them).
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// options are the command line.
type options struct {
	runs, seconds, warmup, scale, pool      int
	clients, workloads, protocols, variants string
	out, dir, haven                         string
	seed                                    uint64
	page, add                               bool
}

func main() {
	var o options
	flag.IntVar(&o.runs, "runs", 5, "how often each cell is measured; the page shows the medians")
	flag.IntVar(&o.seconds, "seconds", 20, "how long one run is measured")
	flag.IntVar(&o.warmup, "warmup", 2, "seconds of each run before that")
	flag.IntVar(&o.scale, "scale", 50, "pgbench's scale: 15 MB each")
	flag.IntVar(&o.pool, "pool", 50, "server connections of the poolers")
	flag.StringVar(&o.clients, "clients", "1,10,100,1000", "numbers of clients")
	flag.StringVar(&o.workloads, "workloads", "select,tpcb", "of select and tpcb")
	flag.StringVar(&o.protocols, "protocols", "simple,extended,prepared", "of simple, extended and prepared")
	flag.StringVar(&o.variants, "variants", "direct,haven-tcp,haven-transaction,pgbouncer,haproxy", "of these")
	flag.StringVar(&o.out, "out", "docs/bench", "where pool.json and pool.md are written")
	flag.StringVar(&o.dir, "dir", "", "where data is kept (default: a temporary directory)")
	flag.StringVar(&o.haven, "haven", "bin/haven", "the program")
	flag.Uint64Var(&o.seed, "seed", uint64(time.Now().UnixNano()), "chooses the order")
	flag.BoolVar(&o.add, "add", false, "keep the runs in pool.json that were made alike, with the same program")
	flag.BoolVar(&o.page, "page", false, "only write the page again, from pool.json")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "benchpool:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	if o.page {
		return again(o.out)
	}
	if err := moreFiles(); err != nil {
		return err
	}
	clients, err := numbers(o.clients)
	if err != nil {
		return err
	}
	w, err := newWorld(ctx, o, slices.Max(clients))
	if err != nil {
		return err
	}
	r := w.describe(clients)
	if o.add {
		if err = r.keep(o.out); err != nil {
			return errors.Join(err, w.close())
		}
	}
	err = w.measure(ctx, &r)
	err = errors.Join(err, w.close())
	if len(r.Cells) > 0 {
		err = errors.Join(err, save(o.out, r))
	}
	return err
}

// moreFiles raises the limit of open files for us and for what is started: each client is one, or two.
func moreFiles() error {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	l.Cur = l.Max
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &l)
}

func numbers(text string) ([]int, error) {
	var out []int
	for word := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(word)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("-clients: %q is not a number of clients", word)
		}
		out = append(out, n)
	}
	return out, nil
}

// results are everything that was measured.
type results struct {
	Begun    time.Time         `json:"begun"`
	Cores    int               `json:"cores"`
	CPU      string            `json:"cpu"`
	Kernel   string            `json:"kernel"`
	Versions map[string]string `json:"versions"`
	Seconds  int               `json:"seconds"`
	Warmup   int               `json:"warmup"`
	Scale    int               `json:"scale"`
	Pool     int               `json:"pool"`
	Seed     uint64            `json:"seed"`
	Load     float64           `json:"load"` // what else ran when it began, in cores
	Variants []string          `json:"variants"`
	Cells    []cell            `json:"cells"`
	Problems []string          `json:"problems,omitempty"`

	asked int // so many of the cells, the first ones, are to be measured now
}

// cell is one combination, with all of its runs.
type cell struct {
	Variant  string   `json:"variant"`
	Workload string   `json:"workload"`
	Protocol string   `json:"protocol"`
	Clients  int      `json:"clients"`
	Runs     []sample `json:"runs"`
}

// same tells whether two cells are of the same combination.
func (c cell) same(other cell) bool {
	return c.Variant == other.Variant && c.Workload == other.Workload && c.Protocol == other.Protocol && c.Clients == other.Clients
}

// sample is one run.
type sample struct {
	TPS float64 `json:"tps"`
	P50 float64 `json:"p50"` // milliseconds
	P99 float64 `json:"p99"`
	CPU float64 `json:"cpu"` // microseconds of the process in the middle for each transaction
	RSS float64 `json:"rss"` // megabytes of it at the end
}

// measure goes through all cells, each round in another order: what else happens on the machine hits all variants alike.
func (w *world) measure(ctx context.Context, r *results) error {
	random := rand.New(rand.NewPCG(w.o.seed, 0))
	for round := range w.o.runs {
		for done, i := range random.Perm(r.asked) {
			c := &r.Cells[i]
			fmt.Printf("round %d, %d of %d: %s, %s, %s, %d clients: ", round+1, done+1, r.asked, c.Variant, c.Workload, c.Protocol, c.Clients)
			s, err := w.pgbench(ctx, c)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				fmt.Println(err)
				r.Problems = append(r.Problems, fmt.Sprintf("%s, %s, %s, %d clients: %v", c.Variant, c.Workload, c.Protocol, c.Clients, err))
				continue
			}
			fmt.Printf("%.0f tps, p50 %.2f ms, p99 %.2f ms, %.1f µs, %.0f MB\n", s.TPS, s.P50, s.P99, s.CPU, s.RSS)
			c.Runs = append(c.Runs, s)
		}
	}
	return nil
}

func save(dir string, r results) error {
	text, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "pool.json"), append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "pool.md"), []byte(render(r)), 0o644)
}

func load(dir string) (r results, err error) {
	text, err := os.ReadFile(filepath.Join(dir, "pool.json"))
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("pool.json: %w", err)
	}
	return r, nil
}

// keep takes over the earlier runs that can be compared with those to come. Without a file there are none.
func (r *results) keep(dir string) error {
	old, err := load(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case old.Seconds != r.Seconds || old.Warmup != r.Warmup || old.Scale != r.Scale || old.Pool != r.Pool || old.CPU != r.CPU || old.Cores != r.Cores:
		return errors.New("-add: what is in pool.json was measured in another way, or elsewhere: leave -add out to replace it")
	}
	for _, c := range old.Cells {
		if p := program(c.Variant); old.Versions[p] != r.Versions[p] {
			continue
		}
		i := slices.IndexFunc(r.Cells, func(other cell) bool { return other.same(c) })
		if i < 0 {
			r.Cells = append(r.Cells, c)
			continue
		}
		r.Cells[i].Runs = c.Runs
	}
	return nil
}

// program is the one in the middle of a variant, as versions are named.
func program(variant string) string {
	switch variant {
	case "direct":
		return "PostgreSQL"
	case "pgbouncer":
		return "PgBouncer"
	case "haproxy":
		return "HAProxy"
	}
	return "Haven"
}

// again writes the page again from the raw results.
func again(dir string) error {
	r, err := load(dir)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "pool.md"), []byte(render(r)), 0o644)
}
