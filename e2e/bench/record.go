package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// record adds one result to a list in a file, and writes the page of all of them again. Several runs may add to one file at
// a time: it is locked meanwhile, and replaced whole.
func record[T any](dir, file string, one T, page func(dir string, all []T) error) error {
	unlock, err := lock(filepath.Join(dir, "."+file+".lock"))
	if err != nil {
		return err
	}
	defer unlock()
	all, err := recorded[T](dir, file)
	if err != nil {
		return err
	}
	all = append(all, one)
	next := filepath.Join(dir, file+".new")
	return errors.Join(writeJSON(next, all), os.Rename(next, filepath.Join(dir, file)), page(dir, all))
}

// recorded is what the file holds; nothing, if it is not there.
func recorded[T any](dir, file string) ([]T, error) {
	all, err := readJSON[[]T](filepath.Join(dir, file))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return all, err
}

// readJSON reads what writeJSON wrote.
func readJSON[T any](path string) (v T, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return v, err
	}
	if err := json.Unmarshal(text, &v); err != nil {
		return v, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	return v, nil
}

// anew forgets what the file held, unless results are to be added to it.
func (b *bench) anew(file string) error {
	if err := os.MkdirAll(b.o.out, 0o755); err != nil || b.o.add {
		return err
	}
	err := os.Remove(filepath.Join(b.o.out, file))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// lock holds a lock file until unlock is called; the file goes with it, and whoever waited for it makes another.
func lock(path string) (unlock func(), err error) {
	for {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		held, errHeld := f.Stat()
		there, errThere := os.Stat(path)
		if errHeld == nil && errThere == nil && os.SameFile(held, there) {
			return func() { _ = os.Remove(path); f.Close() }, nil
		}
		f.Close()
	}
}
