// Package journal keeps what a member decided and why, as JSON lines in a directory of bounded size.
//
// Recording never blocks the caller and never fails it: entries go through a bounded queue to a goroutine that writes;
// what does not fit is counted as dropped, and a full or hung disk is reported by Problem. It leaves the meaning of the
// entries to the caller.
package journal

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// Files of a journal are named so that their order is that of time; the newest is written to.
const (
	filePrefix = "journal-"
	fileSuffix = ".jsonl"
	queueSize  = 1024
	fileCount  = 8 // a journal of N bytes is kept in files of N/8
)

// Journal writes entries. Make one with Open, end it with Close.
type Journal struct {
	dir     string
	maxSize int64
	queue   chan []byte
	done    chan struct{}
	closing sync.Once
	dropped atomic.Int64
	problem atomic.Pointer[string]

	file *os.File // owned by the writer
	size int64
	next int
}

// Open begins a journal in dir, which is made if it is missing (mode 0700). maxSize is in bytes, over all files.
func Open(dir string, maxSize int64) (*Journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	j := &Journal{dir: dir, maxSize: max(maxSize, 1<<20), queue: make(chan []byte, queueSize), done: make(chan struct{})}
	files, err := list(dir)
	if err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	n := len(files)
	if n > 0 {
		number := strings.TrimSuffix(strings.TrimPrefix(files[n-1], filePrefix), fileSuffix)
		if j.next, err = strconv.Atoi(number); err != nil {
			return nil, fmt.Errorf("open journal: %s is not a file of ours: %w", files[n-1], err)
		}
	}
	if n == 0 || j.goOn(filepath.Join(dir, files[n-1])) != nil {
		if err := j.rotate(); err != nil {
			return nil, fmt.Errorf("open journal: %w", err)
		}
	}
	go j.write()
	return j, nil
}

// Record queues an entry. It never blocks; an entry that finds the queue full is dropped and counted.
func (j *Journal) Record(entry any) {
	line, err := json.Marshal(entry)
	if err != nil {
		j.fail(err)
		return
	}
	select {
	case <-j.done:
		j.dropped.Add(1)
	default:
		select {
		case j.queue <- append(line, '\n'):
		default:
			j.dropped.Add(1)
		}
	}
}

// Dropped counts the entries that were lost since Open.
func (j *Journal) Dropped() int64 { return j.dropped.Load() }

// Problem is the last error of writing; empty while all is well.
func (j *Journal) Problem() string {
	if p := j.problem.Load(); p != nil {
		return *p
	}
	return ""
}

// Close writes what is queued and ends the journal. Nobody may call Record at the same time.
func (j *Journal) Close() {
	j.closing.Do(func() { close(j.queue) })
	<-j.done
}

func (j *Journal) write() {
	defer close(j.done)
	for line := range j.queue {
		if err := j.append(line); err != nil {
			j.dropped.Add(1)
			j.fail(err)
		}
	}
	if j.file != nil {
		j.file.Close()
	}
}

func (j *Journal) append(line []byte) error {
	if j.file == nil || j.size+int64(len(line)) > j.maxSize/fileCount && j.size > 0 {
		if err := j.rotate(); err != nil {
			return err
		}
	}
	n, err := j.file.Write(line)
	j.size += int64(n)
	if err == nil {
		j.problem.Store(nil)
	}
	return err
}

// goOn appends to the newest file: a member that ends at its start again and again would otherwise push out what is remembered of the
// time before. A line that a crash has cut off is ended first.
func (j *Journal) goOn(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil && size > 0 {
		last := make([]byte, 1)
		if _, err = f.ReadAt(last, size-1); err == nil && last[0] != '\n' {
			var n int
			n, err = f.Write([]byte("\n"))
			size += int64(n)
		}
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	j.file, j.size = f, size
	return nil
}

// rotate begins a new file and removes the oldest beyond the bound.
func (j *Journal) rotate() error {
	if j.file != nil {
		j.file.Close()
		j.file = nil
	}
	j.next++
	f, err := os.OpenFile(filepath.Join(j.dir, fmt.Sprintf("%s%08d%s", filePrefix, j.next, fileSuffix)), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	j.file, j.size = f, 0
	files, err := list(j.dir)
	if err != nil {
		return err
	}
	for len(files) > fileCount {
		if err := os.Remove(filepath.Join(j.dir, files[0])); err != nil {
			return err
		}
		files = files[1:]
	}
	return nil
}

func (j *Journal) fail(err error) {
	text := err.Error()
	j.problem.Store(&text)
}

func list(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), filePrefix) && strings.HasSuffix(e.Name(), fileSuffix) {
			files = append(files, e.Name())
		}
	}
	slices.Sort(files)
	return files, nil
}

// Read calls each for every entry of the journal in dir, oldest first. A last line that was cut off by a crash is
// passed over. A directory that is absent holds no entries.
func Read(dir string, each func(line []byte) error) error {
	files, err := list(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read journal: %w", err)
	}
	for _, name := range files {
		if err := readFile(filepath.Join(dir, name), each); err != nil {
			return fmt.Errorf("read journal %s: %w", name, err)
		}
	}
	return nil
}

func readFile(path string, each func(line []byte) error) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 16<<20)
	for s.Scan() {
		if !json.Valid(s.Bytes()) {
			continue
		}
		if err := each(s.Bytes()); err != nil {
			return err
		}
	}
	return s.Err()
}
