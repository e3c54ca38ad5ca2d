package journal

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/havenha/haven/internal/check"
)

// flushEvery is how many operations may be lost if the recorder itself is killed.
const flushEvery = 256

// HistoryWriter writes the history of a load, one JSON object a line (docs/reference/history.md). What was written
// stays readable if the recorder dies: at most the last operations and half a line are missing. Its methods may be
// called from several goroutines.
type HistoryWriter struct {
	mu      sync.Mutex
	file    *os.File
	out     *bufio.Writer
	pending int
	err     error // the first one; nothing is written after it
}

// CreateHistory makes the file, which must not exist: a history is never written over.
func CreateHistory(path string) (*HistoryWriter, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("create history: %w", err)
	}
	return &HistoryWriter{file: f, out: bufio.NewWriterSize(f, 1<<16)}, nil
}

// Append adds a line. After an error it does nothing but return that error again.
func (w *HistoryWriter) Append(l check.Line) error {
	text, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("append to history: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return w.err
	}
	_, err = w.out.Write(append(text, '\n'))
	w.pending++
	if err == nil && (l.Op == nil || w.pending >= flushEvery) {
		w.pending = 0
		err = w.out.Flush()
	}
	if err != nil {
		w.err = fmt.Errorf("append to history: %w", err)
	}
	return w.err
}

// Close writes what is buffered, syncs the file to disk and closes it. It returns the first error that the writer met.
func (w *HistoryWriter) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if errors.Is(w.err, os.ErrClosed) {
		return nil
	}
	err := w.err
	if err == nil {
		err = errors.Join(w.out.Flush(), w.file.Sync())
	}
	err = errors.Join(err, w.file.Close())
	w.err = os.ErrClosed
	if err != nil {
		return fmt.Errorf("close history: %w", err)
	}
	return nil
}

// ReadHistory reads a history. A last line that was cut off is passed over. It is an error if there is no header, if any
// other line cannot be read, or if the format is newer than this program knows.
func ReadHistory(r io.Reader) (*check.History, error) {
	h := &check.History{}
	in := bufio.NewReaderSize(r, 1<<16)
	for number := 1; ; number++ {
		text, err := in.ReadBytes('\n')
		torn := errors.Is(err, io.EOF)
		if err != nil && !torn {
			return nil, fmt.Errorf("read history: %w", err)
		}
		if len(bytes.TrimSpace(text)) > 0 {
			line, err := parseLine(text, number)
			if err != nil && (!torn || number == 1) {
				return nil, fmt.Errorf("read history: line %d: %w", number, err)
			}
			if err == nil {
				h.Add(line)
			}
		}
		if torn {
			break
		}
	}
	if h.Header.Format == 0 {
		return nil, errors.New("read history: the file is empty: it is no history, or its recorder died at once")
	}
	return h, nil
}

func parseLine(text []byte, number int) (check.Line, error) {
	var l check.Line
	if err := json.Unmarshal(text, &l); err != nil {
		return l, err
	}
	if number > 1 {
		return l, nil
	}
	if l.Header == nil || l.Header.Format < 1 {
		return l, errors.New("a history begins with a line {\"header\": {\"format\": …}}: this is no history")
	}
	if l.Header.Format > check.Format {
		return l, fmt.Errorf("the history has format %d, and this program knows formats up to %d: judge it with a newer haven", l.Header.Format, check.Format)
	}
	return l, nil
}
