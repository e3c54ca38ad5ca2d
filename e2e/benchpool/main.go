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
	"maps"
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
	page, add, mixed                        bool
}

func main() {
	var o options
	flag.IntVar(&o.runs, "runs", 5, "how often each cell is measured, with what -add keeps; the page shows the medians")
	flag.IntVar(&o.seconds, "seconds", 20, "how long one run is measured")
	flag.IntVar(&o.warmup, "warmup", 1, "seconds of each run, and of each part of one, before that")
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
	flag.BoolVar(&o.add, "add", false, "go on where pool.json ends: it was begun alike, with the same programs")
	flag.BoolVar(&o.mixed, "mixed", false, "with -add, also where Haven's sources, or the processor, have changed meanwhile: the page says so")
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
	r, err := w.describe(clients)
	if err == nil && o.add {
		err = r.keep(o.out, o.mixed)
	}
	if err == nil {
		err = w.measure(ctx, &r)
	}
	return errors.Join(err, w.close())
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

func (c *cell) String() string {
	return fmt.Sprintf("%s, %s, %s, %d clients", c.Variant, c.Workload, c.Protocol, c.Clients)
}

// same tells whether two cells are of the same combination.
func (c cell) same(other cell) bool {
	return c.Variant == other.Variant && c.Workload == other.Workload && c.Protocol == other.Protocol && c.Clients == other.Clients
}

// sample is one run.
type sample struct {
	Round int     `json:"round"` // runs of one round were made shortly after one another
	TPS   float64 `json:"tps"`
	P50   float64 `json:"p50"` // milliseconds
	P99   float64 `json:"p99"`
	CPU   float64 `json:"cpu"` // microseconds of the process in the middle for each transaction
	RSS   float64 `json:"rss"` // megabytes of it at the end
}

// measure goes through all cells, each round in another order. All variants of a combination follow one another (see order): what
// else happens on the machine comes and goes over minutes, and so hits them alike. What has been kept of earlier rounds is not
// measured again.
func (w *world) measure(ctx context.Context, r *results) error {
	blocks := blocksOf(r.Cells[:r.asked])
	for round := 1; round <= w.o.runs; round++ {
		random := rand.New(rand.NewPCG(w.o.seed, uint64(round)))
		for done, i := range random.Perm(len(blocks)) {
			if !slices.ContainsFunc(blocks[i], func(j int) bool { return r.Cells[j].lacks(round) }) {
				continue
			}
			fmt.Printf("round %d, %d of %d\n", round, done+1, len(blocks))
			if err := w.block(ctx, r, order(r.Cells, blocks[i], random), round); err != nil {
				return err
			}
			if err := save(w.o.out, *r); err != nil {
				return err
			}
		}
	}
	return nil
}

// part is some of a run: the whole, or one of shares equal parts.
type part struct{ cell, shares int }

// byTurns is in which order two variants are measured that are compared with each other: what changes meanwhile, steadily or
// speeding up, favours none (the sequence of Thue and Morse).
var byTurns = [...]int{0, 1, 1, 0, 1, 0, 0, 1}

// order is in which one the cells of a block are measured. The two poolers are, in parts, by turns: the machine's speed was seen to
// change by a third within a minute. All else is shuffled.
func order(cells []cell, block []int, random *rand.Rand) (parts []part) {
	var poolers, others []int
	for _, i := range block {
		switch cells[i].Variant {
		case "haven-transaction", "pgbouncer":
			poolers = append(poolers, i)
		default:
			others = append(others, i)
		}
	}
	if len(poolers) != 2 {
		poolers, others = nil, block
	}
	for _, at := range random.Perm(len(others) + len(poolers)/2) {
		if at < len(others) {
			parts = append(parts, part{others[at], 1})
			continue
		}
		first := random.IntN(2)
		for _, turn := range byTurns {
			parts = append(parts, part{poolers[(turn+first)%2], len(byTurns) / 2})
		}
	}
	return parts
}

// block measures the cells of one block, in that order. What goes wrong with one is noted, and no error.
func (w *world) block(ctx context.Context, r *results, parts []part, round int) error {
	yields := make([]yield, len(r.Cells))
	for _, p := range parts {
		c, y := &r.Cells[p.cell], &yields[p.cell]
		if y.failed {
			continue
		}
		err := w.pgbench(ctx, c, float64(w.o.seconds)/float64(p.shares), y)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			y.failed = true
			r.Problems = append(r.Problems, fmt.Sprintf("%s: %v", c, err))
			fmt.Println("  " + r.Problems[len(r.Problems)-1])
			continue
		}
		if y.parts == p.shares {
			s := y.sample()
			s.Round = round
			c.add(s)
			fmt.Printf("  %s: %.0f tps, p50 %.2f ms, p99 %.2f ms, %.1f µs, %.0f MB\n", c, s.TPS, s.P50, s.P99, s.CPU, s.RSS)
		}
	}
	return nil
}

// blocksOf are the cells that differ in their variants only, by their indices.
func blocksOf(cells []cell) (blocks [][]int) {
	for i, c := range cells {
		n := slices.IndexFunc(blocks, func(b []int) bool {
			first := cells[b[0]]
			first.Variant = c.Variant
			return c.same(first)
		})
		if n < 0 {
			blocks = append(blocks, []int{i})
			continue
		}
		blocks[n] = append(blocks[n], i)
	}
	return blocks
}

// of is the cell's run of a round.
func (c cell) of(round int) (sample, bool) {
	if i := slices.IndexFunc(c.Runs, func(s sample) bool { return s.Round == round }); i >= 0 {
		return c.Runs[i], true
	}
	return sample{}, false
}

func (c cell) lacks(round int) bool {
	_, ok := c.of(round)
	return !ok
}

// add takes a run in, in place of an earlier one of the same round.
func (c *cell) add(s sample) {
	c.Runs = append(slices.DeleteFunc(c.Runs, func(old sample) bool { return old.Round == s.Round }), s)
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

// later stands between what was there in the first runs and what was in others.
const later = ", in later runs "

// goesOn tells what was there in earlier runs and is now; not ok: they differ. mixed: they may.
func goesOn(was, is string, mixed bool) (both string, ok bool) {
	switch {
	case was == is, strings.HasSuffix(was, later+is):
		return was, true
	case mixed:
		return was + later + is, true
	}
	return was, false
}

// keep takes over the earlier runs, which what is to come is compared with: so they must have been made alike, with the same
// programs. Without a file there are none. mixed: Haven and the machine may be others, since the programs of a combination are compared round
// by round.
func (r *results) keep(dir string, mixed bool) error {
	old, err := load(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	cpu, sameCPU := goesOn(old.CPU, r.CPU, mixed)
	haven, sameHaven := goesOn(old.Versions["Haven"], r.Versions["Haven"], mixed)
	others := maps.Clone(old.Versions)
	others["Haven"] = r.Versions["Haven"]
	switch {
	case old.Seconds != r.Seconds || old.Warmup != r.Warmup || old.Scale != r.Scale || old.Pool != r.Pool || old.Cores != r.Cores || !sameCPU:
		return errors.New("-add: what is in pool.json was measured in another way, or elsewhere: leave -add out to replace it, or, for another processor, give -mixed")
	case !sameHaven || !maps.Equal(others, r.Versions):
		return fmt.Errorf("-add: what is in pool.json was measured with %v, and now there is %v: leave -add out to replace it", old.Versions, r.Versions)
	}
	r.CPU, r.Versions["Haven"] = cpu, haven
	for _, c := range old.Cells {
		i := slices.IndexFunc(r.Cells, func(other cell) bool { return other.same(c) })
		if i < 0 {
			r.Cells = append(r.Cells, c)
			continue
		}
		r.Cells[i].Runs = c.Runs
	}
	r.Begun, r.Problems = old.Begun, append(old.Problems, r.Problems...)
	return nil
}

// again writes the page again from the raw results.
func again(dir string) error {
	r, err := load(dir)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "pool.md"), []byte(render(r)), 0o644)
}
