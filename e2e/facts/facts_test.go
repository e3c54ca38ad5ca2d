package facts

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/havenha/haven/internal/postgres/pgtest"
	"golang.org/x/sys/unix"
)

var (
	runs = flag.Int("runs", 3, "how often each fact is tried")
	out  = flag.String("out", "", "folder for facts-pg<major>.json and facts.md; empty: they are not written")
)

// fact is how a fact is tried: once, on servers that the run makes.
type fact struct {
	name, says, leans string
	try               func(r *run)
}

// run is one try of one fact.
type run struct {
	*testing.T
	bin  string
	fact *Fact
}

// figure notes what was measured.
func (r *run) figure(name, unit string, value float64) { r.fact.Add(name, unit, value) }

// TestFacts tries every fact on Debian's PostgreSQL and on every one that HAVEN_TEST_PG names.
func TestFacts(t *testing.T) {
	if len(pgtest.BinDirs()) == 0 {
		t.Skip("no PostgreSQL server was found: install one, or set HAVEN_TEST_PG")
	}
	for _, bin := range pgtest.BinDirs() {
		version := versionOf(t, bin)
		report := Report{PostgreSQL: version, Cores: runtime.NumCPU(), Kernel: kernel(), Runs: *runs}
		t.Run("PostgreSQL "+version, func(t *testing.T) {
			for _, f := range facts() {
				if seen, tried := tryFact(t, bin, f); tried {
					report.Facts = append(report.Facts, seen)
				}
			}
		})
		t.Log("\n" + Markdown([]Report{report}))
		if *out == "" || len(report.Facts) == 0 {
			continue
		}
		if err := Save(*out, report); err != nil {
			t.Error(err)
		}
	}
}

// tryFact tries one fact; tried is false if -run leaves it out.
func tryFact(t *testing.T, bin string, f fact) (seen Fact, tried bool) {
	seen = Fact{Name: f.name, Says: f.says, Leans: f.leans, Holds: true}
	t.Run(f.name, func(t *testing.T) {
		tried = true
		for n := range *runs {
			seen.Holds = t.Run(fmt.Sprint(n+1), func(t *testing.T) { f.try(&run{t, bin, &seen}) }) && seen.Holds
		}
		if !seen.Holds {
			t.Errorf("on %s it does not hold, or could not be shown, that %s. Haven leans on it: %s", bin, f.says, f.leans)
		}
	})
	return seen, tried
}

func facts() []fact {
	var all []fact
	for _, of := range [][]fact{cutFacts(), promotionFacts(), endFacts(), acknowledgementFacts(), positionFacts()} {
		all = append(all, of...)
	}
	return all
}

func versionOf(t *testing.T, bin string) string {
	t.Helper()
	text, err := exec.Command(filepath.Join(bin, "postgres"), "--version").Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(text))[2]
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

func TestMain(m *testing.M) {
	flag.Parse()
	if *runs < 1 {
		fmt.Fprintln(os.Stderr, "facts: -runs must be 1 or more")
		os.Exit(2)
	}
	os.Exit(m.Run())
}
