package obs

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/havenha/haven/internal/config"
)

func TestEachPartHasItsLevel(t *testing.T) {
	for name, c := range map[string]config.Log{"format": {Format: "%(message)s"}, "own": {}, "json": {Type: "json"}} {
		var b bytes.Buffer
		c.Level, c.Loggers = "WARNING", map[string]string{"agent": "DEBUG", "etcd": "ERROR"}
		log, _, err := Logger(c, &b)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range []*slog.Logger{log.With("component", "agent").With("task", 1), log.With("component", "etcd").WithGroup("g"), log.With("component", "proxy"), log} {
			l.Debug("m-debug")
			l.Warn("m-warn")
			l.Error("m-error")
		}
		if d, w, e := strings.Count(b.String(), "m-debug"), strings.Count(b.String(), "m-warn"), strings.Count(b.String(), "m-error"); d != 1 || w != 3 || e != 4 {
			t.Errorf("%s: %d, %d and %d lines were written, want 1, 3 and 4:\n%s", name, d, w, e, b.String())
		}
	}
}

func TestLogIsChangedInUse(t *testing.T) {
	dir := t.TempDir()
	var b bytes.Buffer
	log, where, err := Logger(config.Log{Format: "%(levelname)s %(message)s", Loggers: map[string]string{config.LogRest: "ERROR"}}, &b)
	if err != nil {
		t.Fatal(err)
	}
	agent := log.With("component", "agent")
	agent.Info("one")
	log.Warn("dropped")
	if err := where.Use(config.Log{Format: "%(massage)s"}); err == nil {
		t.Error("a format with a field that is not there was taken")
	}
	log.Error("two")
	if err := where.Use(config.Log{Format: "%(message)s!", Dir: dir, File: "haven.log", Loggers: map[string]string{"agent": "ERROR"}}); err != nil {
		t.Fatal(err)
	}
	agent.Info("dropped")
	agent.Error("three")
	log.Info("four")
	if err := where.Use(config.Log{Format: "%(message)s?"}); err != nil {
		t.Fatal(err)
	}
	agent.Info("five")
	if got, want := b.String(), "ERROR two\nfive component=agent?\n"; got != want {
		t.Errorf("standard error got %q, want %q", got, want)
	}
	file, err := os.ReadFile(filepath.Join(dir, "haven.log"))
	if got, want := string(file), "three component=agent!\nfour!\n"; err != nil || got != want {
		t.Errorf("the file has %q, want %q (%v)", got, want, err)
	}
	if err := where.Close(); err != nil {
		t.Error(err)
	}
}
