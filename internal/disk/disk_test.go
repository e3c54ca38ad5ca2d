package disk

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hour is a history of one sample a minute: free bytes go from a to b in that many minutes.
func hour(minutes int, a, b float64) []Sample {
	var out []Sample
	for m := range minutes + 1 {
		free := a + (b-a)*float64(m)/float64(minutes)
		out = append(out, Sample{At: time.Unix(int64(m)*60, 0), Free: uint64(free), Total: 1000 << 20})
	}
	return out
}

func TestForecast(t *testing.T) {
	const mb = 1 << 20
	grown := hour(60, 500*mb, 400*mb)
	for i := range grown[:30] {
		grown[i].Total = 900 * mb
	}
	old := append([]Sample{{At: time.Unix(-7200, 0), Free: 1000 * mb, Total: 1000 * mb}}, hour(60, 500*mb, 500*mb)...)
	tests := []struct {
		name    string
		history []Sample
		want    time.Duration
		fills   bool
	}{
		{"nothing known", nil, 0, false},
		{"one sample", hour(1, 500*mb, 400*mb)[:1], 0, false},
		{"too short to tell", hour(4, 500*mb, 100*mb), 0, false},
		{"100 MB an hour, 400 left", hour(60, 500*mb, 400*mb), 4 * time.Hour, true},
		{"the same after ten minutes", hour(10, 500*mb, 400*mb), 40 * time.Minute, true},
		{"steady", hour(60, 500*mb, 500*mb), 0, false},
		{"it empties", hour(60, 400*mb, 500*mb), 0, false},
		{"so slowly that it does not matter", hour(60, 500*mb, 500*mb-100), 0, false},
		{"it was made larger meanwhile", grown, 0, false},
		{"what was longer ago than an hour does not count", old, 0, false},
		{"full already", hour(60, 100*mb, 0), 0, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, fills := Forecast(tt.history)
			if fills != tt.fills || (got-tt.want).Abs() > time.Second {
				t.Errorf("%v %v, want %v %v", got, fills, tt.want, tt.fills)
			}
		})
	}
}

func TestProblems(t *testing.T) {
	soon, later, since := 130*time.Minute, 5*time.Hour, time.Unix(3600, 0)
	room := func(free uint64) Sample { return Sample{Free: free << 20, Total: 1000 << 20} }
	tests := []struct {
		name string
		f    FileSystem
		want string
	}{
		{"well", FileSystem{Sample: room(100), FullIn: &later}, ""},
		{"not known", FileSystem{}, ""},
		{"under a tenth", FileSystem{Uses: []string{"data", "wal"}, Path: "/d", Sample: room(99)}, "the file system of data, wal (/d) has 9.9 % left (99.0 MiB): make room or grow it"},
		{"full soon", FileSystem{Sample: room(500), FullIn: &soon}, "will be full in about 2.2 h at the rate of the last hour (500.0 MiB left)"},
		{"hung", FileSystem{Sample: room(500), Hung: &since}, "has not answered since 01:00:00 UTC"},
		{"not to be asked", FileSystem{Error: "permission denied"}, "cannot be asked for its room: permission denied"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.f.Problem(); !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

// run runs a watch with rounds that the test asks for.
func run(t *testing.T, w *Watch) (round func()) {
	t.Helper()
	ticks := make(chan time.Time)
	w.ticks = ticks
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return func() { ticks <- time.Now() }
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func TestPlacesOfOneFileSystemAreOne(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	w := New(func() []Place {
		return []Place{{"data", filepath.Join(dir, "not", "there")}, {"state", filepath.Join(dir, "state")}}
	})
	run(t, w)
	eventually(t, "both places are known", func() bool {
		r := w.Report()
		return len(r) == 1 && slices.Equal(r[0].Uses, []string{"data", "state"}) && r[0].Total > 0 && r[0].Free <= r[0].Total
	})
}

// TestHungFileSystemHoldsUpNobody: one file system hangs for ever, the others are told of, and the watch ends.
func TestHungFileSystemHoldsUpNobody(t *testing.T) {
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	w := New(func() []Place { return []Place{{"data", "/good"}, {"wal", "/hung"}} })
	w.ask = func(path string) (uint64, Sample, error) {
		if path == "/hung" {
			<-release
		}
		return 7, Sample{At: time.Now(), Free: 50, Total: 1000}, nil
	}
	round := run(t, w)
	eventually(t, "the good one is told of", func() bool { return len(w.Report()) == 1 && w.Report()[0].Free == 50 })
	round()
	if p := w.Problems(); len(p) != 1 || !strings.Contains(p[0], "5.0 % left") {
		t.Errorf("problems: %q", p)
	}
}

func TestQuestionUnderWayForLongHangs(t *testing.T) {
	w := New(nil)
	w.known = []Place{{"data", "/good"}, {"wal", "/hung"}}
	w.take(answer{path: "/good", device: 1, sample: Sample{At: time.Now(), Free: 900, Total: 1000}})
	w.asked["/hung"] = time.Now().Add(-Every)
	w.publish()
	if p := w.Problems(); len(p) != 1 || !strings.Contains(p[0], "wal (/hung) has not answered") {
		t.Errorf("problems: %q", p)
	}
}
