package disk

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Every is how often file systems are asked.
const Every = time.Minute

// leave is how long the end of a Watch waits for questions under way; one that hangs is left behind.
const leave = time.Second

// Place is a directory that the node writes to, and what it is for.
type Place struct{ Use, Path string }

// Watch asks file systems again and again. Make it with New, and Run it once.
type Watch struct {
	places func() []Place
	ask    func(path string) (device uint64, s Sample, err error)
	ticks  <-chan time.Time // nil: Every

	report atomic.Pointer[[]FileSystem]

	// owned by Run
	listing bool
	known   []Place
	asked   map[string]time.Time // path → since when a question is under way
	latest  map[string]answer
	history map[uint64][]Sample // by device
	answers chan answer
	lists   chan []Place
	done    chan struct{}
}

type answer struct {
	path   string
	device uint64
	sample Sample
	err    error
}

// New watches the places that the function names; it is called before each round, in a goroutine, since looking for them
// may hang as well.
func New(places func() []Place) *Watch {
	return &Watch{places: places, ask: statfs, asked: map[string]time.Time{}, latest: map[string]answer{}, history: map[uint64][]Sample{},
		answers: make(chan answer), lists: make(chan []Place), done: make(chan struct{})}
}

// Report tells of all file systems as they were last seen; nil: not yet. It never blocks.
func (w *Watch) Report() []FileSystem {
	if r := w.report.Load(); r != nil {
		return *r
	}
	return nil
}

// Problems are the sentences on those that are not well. It never blocks.
func (w *Watch) Problems() []string {
	var out []string
	for _, f := range w.Report() {
		if p := f.Problem(); p != "" {
			out = append(out, p)
		}
	}
	return out
}

// Run asks until ctx ends. Questions that hang then are left to themselves.
func (w *Watch) Run(ctx context.Context) error {
	defer close(w.done)
	ticks := w.ticks
	if ticks == nil {
		t := time.NewTicker(Every)
		defer t.Stop()
		ticks = t.C
	}
	w.list()
	for {
		select {
		case <-ctx.Done():
			w.drain()
			return nil
		case <-ticks:
			w.publish() // what has not answered since the last round hangs
			w.list()
		case places := <-w.lists:
			w.listing, w.known = false, places
			w.round()
		case a := <-w.answers:
			w.take(a)
			w.publish()
		}
	}
}

func (w *Watch) drain() {
	late := time.NewTimer(leave)
	defer late.Stop()
	for w.listing || len(w.asked) > 0 {
		select {
		case <-w.lists:
			w.listing = false
		case a := <-w.answers:
			delete(w.asked, a.path)
		case <-late.C:
			return
		}
	}
}

func (w *Watch) list() {
	if w.listing {
		w.round() // the places that are known are asked all the same
		return
	}
	w.listing = true
	go func() {
		places := w.places()
		select {
		case w.lists <- places:
		case <-w.done:
		}
	}()
}

func (w *Watch) round() {
	for _, p := range w.known {
		if _, busy := w.asked[p.Path]; busy {
			continue
		}
		w.asked[p.Path] = time.Now()
		go func() {
			a := answer{path: p.Path}
			a.device, a.sample, a.err = w.ask(p.Path)
			select {
			case w.answers <- a:
			case <-w.done:
			}
		}()
	}
}

func (w *Watch) take(a answer) {
	delete(w.asked, a.path)
	w.latest[a.path] = a
	if a.err != nil {
		return
	}
	h := w.history[a.device]
	if n := len(h); n > 0 && a.sample.At.Sub(h[n-1].At) < Every/2 { // another place of the same file system
		h[n-1] = a.sample
	} else {
		h = append(h, a.sample)
	}
	for len(h) > 0 && a.sample.At.Sub(h[0].At) > Window {
		h = h[1:]
	}
	w.history[a.device] = h
}

// publish composes the report: places of one device are one file system.
func (w *Watch) publish() {
	out := []FileSystem{}
	devices := map[uint64]int{}
	for _, p := range w.known {
		a, answered := w.latest[p.Path]
		since, busy := w.asked[p.Path]
		busy = busy && time.Since(since) > Every/2
		if !answered && !busy {
			continue
		}
		f := FileSystem{Uses: []string{p.Use}, Path: p.Path, Sample: a.sample}
		if a.err != nil {
			f.Error = a.err.Error()
		}
		if busy {
			f.Hung = &since
		}
		if i, seen := devices[a.device]; seen && answered && a.err == nil && !busy {
			if !slices.Contains(out[i].Uses, p.Use) {
				out[i].Uses = append(out[i].Uses, p.Use)
			}
			continue
		}
		if answered && a.err == nil {
			if left, fills := Forecast(w.history[a.device]); fills {
				f.FullIn = &left
			}
			devices[a.device] = len(out)
		}
		out = append(out, f)
	}
	w.report.Store(&out)
}

// statfs asks for the room where path lies; of a directory that is not there yet, where it will be.
func statfs(path string) (uint64, Sample, error) {
	for {
		var st unix.Stat_t
		var f unix.Statfs_t
		err := unix.Stat(path, &st)
		if err == nil {
			err = unix.Statfs(path, &f)
		}
		up := filepath.Dir(path)
		if errors.Is(err, fs.ErrNotExist) && up != path {
			path = up
			continue
		}
		if err != nil {
			return 0, Sample{}, err
		}
		block := uint64(f.Bsize)
		if f.Frsize > 0 {
			block = uint64(f.Frsize)
		}
		return st.Dev, Sample{At: time.Now(), Free: f.Bavail * block, Total: (f.Blocks - f.Bfree + f.Bavail) * block}, nil
	}
}
