// Command mutants shows that the tests of the engine would notice if one of its guards were wrong. A guard is a condition
// whose wrong sense could lose data, make two writers or leave the cluster dead; it is marked in the source by a comment
// at the end of the line that the condition ends on:
//
//	if v.Lease.Lost { // guard: lease-lost
//	if !ok || a.Primary { // guard: answer-of-primary@2
//
// The second mark means the second operand of && and ||, counted from the left; vote@2,4 marks two. For each guard a copy of the file with
// that one condition turned is built by go's -overlay, and the package's tests are run; if they pass, the simulator's. A
// mutant that no test kills has survived, and the exit status is 1. Nothing is written into the tree.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// options are the command line.
type options struct {
	root, pkg, sim, only string
	seeds, parallel      int
	limit                time.Duration
	list, asJSON, drop   bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code, err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "mutants:", err)
	}
	os.Exit(code)
}

// run is the command; it returns the exit status: 0 all killed, 1 a survivor, 2 nothing was shown.
func run(ctx context.Context, args []string, out, progress io.Writer) (int, error) {
	o, err := parse(args, progress)
	if err != nil {
		return 2, err
	}
	guards, err := findGuards(filepath.Join(o.root, o.pkg))
	if err != nil {
		return 2, err
	}
	if guards = chosen(guards, o.only); len(guards) == 0 {
		return 2, fmt.Errorf("no guard is marked in %s, or -only names none", o.pkg)
	}
	if o.list {
		return 0, show(out, o.root, guards)
	}
	r := runner{root: o.root, suites: suites(o, progress), limit: o.limit, parallel: o.parallel, progress: progress}
	if err := r.baseline(ctx); err != nil {
		return 2, err
	}
	ways := []way{negated}
	if o.drop {
		ways = append(ways, removed)
	}
	return report(out, o, r.all(ctx, mutants(guards, ways)))
}

func parse(args []string, usage io.Writer) (options, error) {
	var o options
	fs := flag.NewFlagSet("mutants", flag.ContinueOnError)
	fs.SetOutput(usage)
	fs.StringVar(&o.root, "root", ".", "the module's root")
	fs.StringVar(&o.pkg, "package", "internal/ha", "the package whose guards are turned")
	fs.StringVar(&o.sim, "sim", "internal/ha/sim", "the simulator's package; it is left out if it does not exist")
	fs.StringVar(&o.only, "only", "", "guards to run, by name, separated by commas")
	fs.IntVar(&o.seeds, "seeds", 2000, "seeds that the simulator runs for a mutant that the tests let live; 0: no simulator")
	fs.IntVar(&o.parallel, "j", 2, "mutants at a time")
	fs.DurationVar(&o.limit, "timeout", 10*time.Minute, "what runs longer counts as killed")
	fs.BoolVar(&o.list, "list", false, "list the guards and run nothing")
	fs.BoolVar(&o.asJSON, "json", false, "print JSON instead of a table")
	fs.BoolVar(&o.drop, "removed", false, "also try the code without each guard, which is harder to notice than its negation")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	root, err := filepath.Abs(o.root)
	o.root = root
	return o, err
}

func chosen(guards []guard, only string) []guard {
	if only == "" {
		return guards
	}
	names := strings.Split(only, ",")
	return slices.DeleteFunc(guards, func(g guard) bool {
		whole, _, _ := strings.Cut(g.name, "@")
		return !slices.Contains(names, g.name) && !slices.Contains(names, whole)
	})
}

// suites are the package's own tests, then the simulator.
func suites(o options, progress io.Writer) []suite {
	list := []suite{{name: "tests", dir: filepath.Join(o.root, o.pkg)}}
	sim := filepath.Join(o.root, o.sim)
	if tests, _ := filepath.Glob(filepath.Join(sim, "*_test.go")); o.seeds == 0 || len(tests) == 0 {
		fmt.Fprintln(progress, "without the simulator: only the package's own tests are run")
		return list
	}
	return append(list, suite{name: "simulator", dir: sim, args: []string{"-test.run=^TestRandomSchedules$", "-seeds=" + strconv.Itoa(o.seeds)}})
}

func show(out io.Writer, root string, guards []guard) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, g := range guards {
		file, _ := filepath.Rel(root, g.file)
		fmt.Fprintf(w, "%s\t%s:%d\t%s\n", g.name, file, g.line, strings.Join(strings.Fields(string(g.src[g.start:g.end])), " "))
	}
	return w.Flush()
}

// report prints the results and tells the exit status.
func report(out io.Writer, o options, results []result) (int, error) {
	survivors, broken := 0, 0
	for _, r := range results {
		switch {
		case r.Error != "":
			broken++
		case r.survived():
			survivors++
		}
	}
	if o.asJSON {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		if err := e.Encode(results); err != nil {
			return 2, err
		}
	} else if err := table(out, results); err != nil {
		return 2, err
	}
	switch {
	case broken > 0:
		return 2, fmt.Errorf("%d of %d mutants could not be tried", broken, len(results))
	case survivors > 0:
		return 1, fmt.Errorf("%d of %d mutants survived: a test is missing, or the guard is not needed", survivors, len(results))
	}
	return 0, nil
}

func table(out io.Writer, results []result) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "GUARD\tCHANGE\tAT\tKILLED BY\tSECONDS")
	for _, r := range results {
		by := cmp.Or(r.KilledBy, "none: SURVIVED")
		if r.Suite == "simulator" {
			by = "simulator: " + by
		}
		if r.Error != "" {
			by = "ERROR: " + strings.ReplaceAll(r.Error, "\n", " ")
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%.1f\n", r.Guard, r.Way, r.At, by, r.Seconds)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	killed := 0
	for _, r := range results {
		if r.KilledBy != "" {
			killed++
		}
	}
	_, err := fmt.Fprintf(out, "%d mutants, %d killed\n", len(results), killed)
	return err
}
