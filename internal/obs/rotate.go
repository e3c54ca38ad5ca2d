package obs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
)

// rotating is a log file that is renamed to <file>.1 before it would grow beyond a size; older ones move on to .2 and so
// on, and the oldest goes (Python, RotatingFileHandler).
type rotating struct {
	path string
	mode fs.FileMode
	size int64 // 0: it grows for ever
	keep int   // rotated files; 0: it grows for ever

	mu      sync.Mutex
	file    *os.File
	written int64
}

// openRotating opens the file, or makes it.
func openRotating(path string, mode fs.FileMode, size int64, keep int) (*rotating, error) {
	r := &rotating{path: path, mode: mode, size: size, keep: keep}
	if err := r.open(); err != nil {
		return nil, fmt.Errorf("open the log file: %w", err)
	}
	return r, nil
}

func (r *rotating) open() error {
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, r.mode)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil && r.mode != 0 && info.Mode().Perm() != r.mode {
		err = f.Chmod(r.mode)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	r.file, r.written = f, info.Size()
	return nil
}

// Write writes one line, to the next file if the present one is full. Where that cannot be had, the line goes to the old
// one: no line is lost for want of a rename.
func (r *rotating) Write(line []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.size > 0 && r.keep > 0 && r.written > 0 && r.written+int64(len(line)) >= r.size {
		r.next()
	}
	n, err := r.file.Write(line)
	r.written += int64(n)
	return n, err
}

func (r *rotating) next() {
	for n := r.keep - 1; n > 0; n-- {
		_ = os.Rename(fmt.Sprintf("%s.%d", r.path, n), fmt.Sprintf("%s.%d", r.path, n+1)) // absent: nothing to move on
	}
	if os.Rename(r.path, r.path+".1") != nil {
		r.written = 0 // tried again when as much again is written
		return
	}
	old := r.file
	if r.open() == nil {
		old.Close()
	}
}

// Close closes the file.
func (r *rotating) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.file.Close()
}
