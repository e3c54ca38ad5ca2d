package obs

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/config"
)

func record(level slog.Level, message string, attrs ...any) slog.Record {
	r := slog.NewRecord(time.Date(2031, 1, 2, 3, 4, 5, 678901000, time.Local), level, message, 0)
	r.Add(attrs...)
	return r
}

func TestLinesLookAsTheFormatSays(t *testing.T) {
	for _, c := range []struct {
		format, date string
		record       slog.Record
		want         string
	}{
		{"%(asctime)s %(levelname)s: %(message)s.", "", record(slog.LevelInfo, "no action. I am (a), the leader with the lock"),
			"2031-01-02 03:04:05,678 INFO: no action. I am (a), the leader with the lock.\n"},
		{"%(asctime)s|%(levelname)-8s|%(message)s", "%d/%b/%y %H:%M:%S", record(slog.LevelWarn, "x", "member", "b", "error", errors.New("it is gone")),
			`02/Jan/31 03:04:05|WARNING |x member=b error="it is gone"` + "\n"},
		{"%(message)s", "", record(slog.LevelInfo, "x", "user", "\x1b[2J", "database", "a\rb", "other", "\xff"), `x user="\x1b[2J" database="a\rb" other="\xff"` + "\n"},
		{"%(name)s %(levelname).3s %(msecs)03d 100%% %(created).1f", "", record(slog.LevelError, "x"),
			"haven ERR 678 100% CREATED\n"},
	} {
		var b bytes.Buffer
		log, _, err := Logger(config.Log{Format: c.format, DateFormat: c.date}, &b)
		if err != nil {
			t.Fatal(err)
		}
		if err := log.Handler().Handle(t.Context(), c.record); err != nil {
			t.Fatal(err)
		}
		got := regexp.MustCompile(`\d{10}\.\d\n`).ReplaceAllString(b.String(), "CREATED\n")
		if got != c.want {
			t.Errorf("%s:\ngot  %q\nwant %q", c.format, got, c.want)
		}
	}
	for _, bad := range []string{"%(massage)s", "%s", "50%"} {
		if _, _, err := Logger(config.Log{Format: bad}, &bytes.Buffer{}); err == nil {
			t.Errorf("the format %q was taken", bad)
		}
	}
}

func TestRecordsAsJSON(t *testing.T) {
	var b bytes.Buffer
	log, _, err := Logger(config.Log{Type: "json", Level: "info", Fields: []config.LogField{{Name: "message", As: "msg"}, {Name: "levelname", As: "levelname"}},
		StaticFields: map[string]string{"app": "shop"}}, &b)
	if err != nil {
		t.Fatal(err)
	}
	log.Debug("not this")
	log.With("component", "agent").Error("it failed", "error", errors.New("no \"luck\""), "after", 2*time.Second, "times", 3)
	if got, want := b.String(), `{"msg": "it failed", "levelname": "ERROR", "component": "agent", "error": "no \"luck\"", "after": "2s", "times": 3, "app": "shop"}`+"\n"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !json.Valid(b.Bytes()) {
		t.Error("it is no JSON")
	}
}

func TestTheFileIsRotated(t *testing.T) {
	dir := t.TempDir()
	log, closer, err := Logger(config.Log{Format: "%(message)s", Dir: dir, File: "patroni.log", Mode: "0604", FileSize: 30, FileNum: 2}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"one 4567890123456", "two 4567890123456", "three 67890123456", "four 567890123456"} {
		log.Info(text)
	}
	if err := closer.Close(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"patroni.log": "four", "patroni.log.1": "three", "patroni.log.2": "two"} {
		path := filepath.Join(dir, name)
		text, err := os.ReadFile(path)
		if err != nil || !strings.HasPrefix(string(text), want+" ") {
			t.Errorf("%s holds %q (%v), want %s", name, text, err, want)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o604 {
			t.Errorf("%s: mode %v", name, info.Mode())
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "patroni.log.3")); err == nil {
		t.Error("more files are kept than were asked for")
	}
}
