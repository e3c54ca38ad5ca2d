package sim

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/havenha/haven/internal/ha"
)

var (
	seeds  = flag.Int("seeds", 500, "how many random schedules are played")
	first  = flag.Uint64("first", 1, "the first seed")
	update = flag.Bool("update", false, "rewrite the golden files")
	keep   = flag.Bool("keep", false, "make a failing schedule as small as it gets and keep it in testdata/failed")
)

// play plays the schedules of some seeds, over all processors, and returns what they went through and the first failure.
func play(from uint64, n int, change func(*Scenario)) (Counts, *Violation) {
	var (
		mu    sync.Mutex
		group sync.WaitGroup
		sum   Counts
		worst *Violation
		next  = from
	)
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for {
				mu.Lock()
				seed := next
				next++
				stop := worst != nil || seed >= from+uint64(n)
				mu.Unlock()
				if stop {
					return
				}
				s := Schedule(seed)
				if change != nil {
					change(&s)
				}
				w, err := s.Play()
				f := w.Failure()
				if err != nil && f == nil {
					f = &Violation{Seed: seed, At: w.now, Text: err.Error()}
				}
				mu.Lock()
				sum.Add(w.Counts())
				if f != nil && (worst == nil || f.Seed < worst.Seed) {
					worst = f
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return sum, worst
}

// TestRandomSchedules plays random schedules, each of which keeps all invariants, and checks that together they went
// through enough to mean something: `-args -seeds 10000 -first 1`.
func TestRandomSchedules(t *testing.T) {
	began := time.Now()
	counts, failed := play(*first, *seeds, nil)
	if failed != nil {
		tellFailure(t, failed)
	}
	t.Logf("%s a schedule on %d processors\n%s", time.Since(began)/time.Duration(*seeds), runtime.GOMAXPROCS(0), counts.Table())
	for _, c := range []struct {
		what string
		got  int
		want int // of 10,000
	}{
		{"events", counts.Events(), 2_000_000}, {"promotions", counts.Promotions, 5000}, {"partitions", counts.Partitions, 2000},
		{"crashes between steps of an action", counts.StepCrashes, 2000}, {"rewinds", counts.Rewinds, 500},
		{"changes of the synchronous set in flight when a fault hits", counts.SyncHit, 500},
	} {
		if want := c.want * *seeds / 10_000; c.got < want {
			t.Errorf("%s: %d, fewer than %d", c.what, c.got, want)
		}
	}
	if *seeds < 2000 {
		return
	}
	for _, k := range Kinds() {
		if counts.Kinds[k] == 0 {
			t.Errorf("no schedule leads to the action %s", k)
		}
	}
	var never []ha.Code
	codes := reasonCodes(t)
	for _, c := range codes {
		if counts.Reasons[c] == 0 {
			never = append(never, c)
		}
	}
	if len(never)*20 > len(codes) {
		t.Errorf("more than 5 %% of the %d reasons are never reached: %v", len(codes), never)
	}
	t.Logf("reasons never reached: %v of %d", never, len(codes))
}

func tellFailure(t *testing.T, f *Violation) {
	t.Helper()
	s := Schedule(f.Seed)
	if *keep {
		s = s.Shrink()
		file := filepath.Join("testdata", "failed", fmt.Sprintf("seed-%d.txt", f.Seed))
		if err := os.WriteFile(file, []byte(fmt.Sprintf("# %s\n", f)+s.Text()), 0o644); err != nil {
			t.Error(err)
		}
	}
	s.Options.Trace = true
	w, _ := s.Play()
	lines := w.trace
	if len(lines) > 60 {
		lines = lines[len(lines)-60:]
	}
	for _, l := range lines {
		t.Log(l)
	}
	t.Fatalf("%v\n%s", f, s.Text())
}

// A seed gives one history, byte for byte.
func TestSameSeedSameHistory(t *testing.T) {
	for seed := range uint64(20) {
		var traces [2]string
		for i := range traces {
			s := Schedule(seed)
			s.Options.Trace = true
			w, err := s.Play()
			if err != nil {
				t.Fatal(err)
			}
			traces[i] = w.Trace()
		}
		if traces[0] != traces[1] {
			t.Fatalf("seed %d: two runs differ", seed)
		}
	}
}
