// Package obs makes what people and machines watch Haven by: the logger. It never writes secrets, because it is never
// given any: those stay in internal/config.
package obs

import (
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/havenha/haven/internal/config"
)

// Logger writes records to w, or to a file in log.dir, which it rotates: those of at least the level that the
// configuration has for the part of the program which they are of, or else for all. With a format (a Patroni file always has
// one) lines look as Patroni's do; without one they are slog's. The Log changes all that while the logger is in use, and ends
// the file.
func Logger(c config.Log, w io.Writer) (*slog.Logger, *Log, error) {
	l := &Log{stderr: w}
	if err := l.Use(c); err != nil {
		return nil, nil, err
	}
	return slog.New(&origin{log: l}), l, nil
}

// writerOf is the handler that writes records as the configuration says, whatever their level, and what ends its file.
func writerOf(c config.Log, w io.Writer) (slog.Handler, io.Closer, error) {
	lay, err := parseLayout(c.Format, c.DateFormat)
	if err != nil {
		return nil, nil, err
	}
	closer := io.Closer(io.NopCloser(nil))
	if c.Dir != "" {
		f, err := openFile(c)
		if err != nil {
			return nil, nil, err
		}
		w, closer = f, f
	}
	if c.Format != "" || len(c.Fields) > 0 {
		return likePatroni(c, lay, w), closer, nil
	}
	opts := &slog.HandlerOptions{Level: slog.Level(math.MinInt), ReplaceAttr: shortTime}
	if c.Type != "json" {
		return slog.NewTextHandler(w, opts), closer, nil
	}
	var static []slog.Attr
	for _, key := range sortedKeys(c.StaticFields) {
		static = append(static, slog.String(key, c.StaticFields[key]))
	}
	return slog.NewJSONHandler(w, opts).WithAttrs(static), closer, nil
}

// likePatroni is for a log with a format. Of a format as text, JSON takes the fields.
func likePatroni(c config.Log, lay layout, w io.Writer) *handler {
	h := &handler{lay: lay, out: &output{w: w}}
	if c.Type != "json" {
		return h
	}
	h.static, h.fields = c.StaticFields, c.Fields
	if len(h.fields) == 0 {
		for _, p := range lay.parts {
			if p.field != "" {
				h.fields = append(h.fields, config.LogField{Name: p.field, As: p.field})
			}
		}
	}
	return h
}

// openFile opens the log file under the name that tools expect of whoever the configuration is written for.
func openFile(c config.Log) (*rotating, error) {
	mode := fs.FileMode(0o640)
	if c.Mode != "" {
		n, err := strconv.ParseUint(c.Mode, 8, 12)
		if err != nil {
			return nil, fmt.Errorf("log.mode %q is no octal mode", c.Mode)
		}
		mode = fs.FileMode(n)
	}
	return openRotating(filepath.Join(c.Dir, c.File), mode, c.FileSize, c.FileNum)
}

func shortTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		a.Value = slog.StringValue(a.Value.Time().UTC().Format("2006-01-02T15:04:05.000Z"))
	}
	return a
}

func parseLevel(name string) (slog.Level, error) {
	switch strings.ToUpper(name) {
	case "DEBUG":
		return slog.LevelDebug, nil
	case "", "INFO":
		return slog.LevelInfo, nil
	case "WARN", "WARNING":
		return slog.LevelWarn, nil
	case "ERROR", "FATAL", "CRITICAL":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("log.level %q is none of DEBUG, INFO, WARNING, ERROR, CRITICAL", name)
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
