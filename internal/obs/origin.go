package obs

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"

	"github.com/havenha/haven/internal/config"
)

// Log is where the records of a program go. It may be used by several goroutines.
type Log struct {
	stderr io.Writer

	mu     sync.RWMutex // held for reading while a record is written
	round  int          // how often Use has changed what follows
	writer slog.Handler
	closer io.Closer
	level  slog.Level            // of parts that levels does not have
	levels map[string]slog.Level // by part
}

// Use has all that is logged from now on written as the configuration says. With an error nothing changes.
func (l *Log) Use(c config.Log) error {
	level, err := parseLevel(c.Level)
	if err != nil {
		return err
	}
	levels := map[string]slog.Level{}
	for name, text := range c.Loggers {
		if levels[name], err = parseLevel(text); err != nil {
			return err
		}
	}
	if rest, ok := levels[config.LogRest]; ok {
		level = rest
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	writer, closer, err := writerOf(c, l.stderr)
	if err != nil {
		return err
	}
	if l.closer != nil {
		if err := l.closer.Close(); err != nil {
			fmt.Fprintf(l.stderr, "the former log file could not be closed: %v\n", err)
		}
	}
	l.round, l.writer, l.closer, l.level, l.levels = l.round+1, writer, closer, level, levels
	return nil
}

// Close ends the file that is written to.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closer.Close()
}

// origin is the handler of one part of the program, the one that the attribute component names.
type origin struct {
	log       *Log
	component string
	with      []func(slog.Handler) slog.Handler // the attributes and groups of its logger, in their order

	mu      sync.Mutex
	derived slog.Handler // of the log's writer, for that round
	round   int
}

// Enabled implements slog.Handler.
func (o *origin) Enabled(_ context.Context, level slog.Level) bool {
	o.log.mu.RLock()
	defer o.log.mu.RUnlock()
	if own, ok := o.log.levels[o.component]; ok {
		return level >= own
	}
	return level >= o.log.level
}

// Handle implements slog.Handler.
func (o *origin) Handle(ctx context.Context, r slog.Record) error {
	o.log.mu.RLock()
	defer o.log.mu.RUnlock()
	return o.writer().Handle(ctx, r)
}

// writer is the log's writer with the attributes of this logger. The log is held.
func (o *origin) writer() slog.Handler {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.round != o.log.round {
		o.derived, o.round = o.log.writer, o.log.round
		for _, with := range o.with {
			o.derived = with(o.derived)
		}
	}
	return o.derived
}

func (o *origin) derive(with func(slog.Handler) slog.Handler) *origin {
	return &origin{log: o.log, component: o.component, with: append(slices.Clone(o.with), with)}
}

// WithAttrs implements slog.Handler.
func (o *origin) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := o.derive(func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
	for _, a := range attrs {
		if a.Key == "component" {
			next.component = a.Value.String()
		}
	}
	return next
}

// WithGroup implements slog.Handler.
func (o *origin) WithGroup(name string) slog.Handler {
	return o.derive(func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}
