package etcd

import (
	"context"
	"log/slog"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// bridge is a zapcore.Core that writes etcd's log through ours, one step quieter: what etcd calls info is of use only
// to somebody who debugs etcd.
type bridge struct {
	log    *slog.Logger
	source string
	fields []zapcore.Field
}

func zapLogger(log *slog.Logger, source string) *zap.Logger {
	return zap.New(&bridge{log: log, source: source})
}

func (b *bridge) Enabled(l zapcore.Level) bool {
	return b.log.Enabled(context.Background(), b.level(l))
}

func (b *bridge) With(fields []zapcore.Field) zapcore.Core {
	return &bridge{log: b.log, source: b.source, fields: append(b.fields[:len(b.fields):len(b.fields)], fields...)}
}

func (b *bridge) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if b.Enabled(e.Level) {
		return ce.AddCore(e, b)
	}
	return ce
}

func (b *bridge) Write(e zapcore.Entry, fields []zapcore.Field) error {
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range append(b.fields[:len(b.fields):len(b.fields)], fields...) {
		f.AddTo(enc)
	}
	attrs := make([]slog.Attr, 0, len(enc.Fields)+2)
	attrs = append(attrs, slog.String("source", b.source), slog.String("text", e.Message))
	for k, v := range enc.Fields {
		attrs = append(attrs, slog.Any(strings.ReplaceAll(k, "-", "_"), v))
	}
	b.log.LogAttrs(context.Background(), b.level(e.Level), "etcd reports", attrs...)
	return nil
}

func (b *bridge) Sync() error { return nil }

// level is slog's level for one of zap's. The client repeats by itself whatever it warns of, so its warnings and errors
// are for debugging only: calls report their own failures.
func (b *bridge) level(l zapcore.Level) slog.Level {
	switch {
	case l < zapcore.InfoLevel:
		return slog.LevelDebug - 4
	case b.source == "client" && l <= zapcore.ErrorLevel:
		return slog.LevelDebug
	case l == zapcore.InfoLevel:
		return slog.LevelDebug
	case l == zapcore.WarnLevel:
		return slog.LevelInfo
	case l == zapcore.ErrorLevel:
		return slog.LevelWarn
	}
	return slog.LevelError
}
