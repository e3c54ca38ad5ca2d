// Package obs makes what people and machines watch Haven by: the logger. It never writes secrets, because it is never
// given any: those stay in internal/config.
package obs

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/havenha/haven/internal/config"
)

// Logger writes lines (or JSON, with log.type) of at least the configured level to w, or to haven.log in log.dir. The
// closer ends the file.
func Logger(c config.Log, w io.Writer) (*slog.Logger, io.Closer, error) {
	level, err := parseLevel(c.Level)
	if err != nil {
		return nil, nil, err
	}
	closer := io.Closer(io.NopCloser(nil))
	if c.Dir != "" {
		f, err := os.OpenFile(filepath.Join(c.Dir, "haven.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err != nil {
			return nil, nil, fmt.Errorf("open the log file: %w", err)
		}
		w, closer = f, f
	}
	opts := &slog.HandlerOptions{Level: level, ReplaceAttr: shortTime}
	if c.Type == "json" {
		return slog.New(slog.NewJSONHandler(w, opts)), closer, nil
	}
	return slog.New(slog.NewTextHandler(w, opts)), closer, nil
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
