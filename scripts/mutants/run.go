package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// result is what became of a mutant.
type result struct {
	Guard    string  `json:"guard"`
	Way      way     `json:"way"`
	At       string  `json:"at"`                  // file:line, from the module's root
	KilledBy string  `json:"killed_by,omitempty"` // empty: it survived
	Suite    string  `json:"suite,omitempty"`
	Seconds  float64 `json:"seconds"`
	Error    string  `json:"error,omitempty"`
}

func (r result) survived() bool { return r.KilledBy == "" && r.Error == "" }

// runner runs mutants against suites, some at a time.
type runner struct {
	root     string
	suites   []suite
	limit    time.Duration
	parallel int
	progress io.Writer
}

// baseline sees that the suites pass without any change, else every mutant would look killed, and how long they may take.
func (r runner) baseline(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "mutants-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	overlay, err := writeOverlay(dir, nil)
	if err != nil {
		return err
	}
	for i, s := range r.suites {
		began := time.Now()
		failed, err := s.run(ctx, overlay, dir, r.limit)
		r.suites[i].limit = min(r.limit, 30*time.Second+20*time.Since(began))
		if err == nil && failed != "" {
			err = fmt.Errorf("%s fails", failed)
		}
		if err != nil {
			return fmt.Errorf("%s without any change: %w; mend that first", s.name, err)
		}
		fmt.Fprintf(r.progress, "%s passes without any change, in %.1f s\n", s.name, time.Since(began).Seconds())
	}
	return nil
}

// all runs the mutants; results are in the same order.
func (r runner) all(ctx context.Context, list []mutant) []result {
	results := make([]result, len(list))
	next := make(chan int)
	var mu sync.Mutex
	var workers sync.WaitGroup
	done := 0
	for range max(1, r.parallel) {
		workers.Go(func() {
			for i := range next {
				results[i] = r.one(ctx, list[i])
				mu.Lock()
				done++
				fmt.Fprintf(r.progress, "[%d/%d] %s\n", done, len(list), results[i])
				mu.Unlock()
			}
		})
	}
	for i := range list {
		next <- i
	}
	close(next)
	workers.Wait()
	return results
}

// one runs one mutant against the suites, until one of them fails.
func (r runner) one(ctx context.Context, m mutant) result {
	began := time.Now()
	file, _ := filepath.Rel(r.root, m.file)
	res := result{Guard: m.name, Way: m.way, At: fmt.Sprintf("%s:%d", file, m.line)}
	if err := r.try(ctx, m, &res); err != nil {
		res.Error = err.Error()
	}
	res.Seconds = time.Since(began).Seconds()
	return res
}

func (r runner) try(ctx context.Context, m mutant, res *result) error {
	dir, err := os.MkdirTemp("", "mutants-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	overlay, err := m.overlay(dir)
	if err != nil {
		return err
	}
	for _, s := range r.suites {
		if res.KilledBy, err = s.run(ctx, overlay, dir, min(r.limit, s.limit)); err != nil {
			return err
		}
		if res.KilledBy != "" {
			res.Suite = s.name
			return nil
		}
	}
	return nil
}

// String is a line of progress.
func (r result) String() string {
	what := "killed by " + r.KilledBy
	switch {
	case r.Error != "":
		what = "ERROR: " + r.Error
	case r.survived():
		what = "SURVIVED"
	}
	return fmt.Sprintf("%s %s (%s): %s, %.1f s", r.Guard, r.Way, r.At, what, r.Seconds)
}
