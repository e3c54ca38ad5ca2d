package obs

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/havenha/haven/internal/config"
)

// handler writes records as Patroni writes its log: by a format, as text or as JSON. What a record says beside its
// message follows the message as key=value, or stands in the JSON object under its key.
type handler struct {
	lay    layout
	fields []config.LogField // JSON: these first; nil: text
	static map[string]string
	out    *output
	attrs  []slog.Attr
	group  string
}

// output is shared by a handler and those derived from it.
type output struct {
	mu sync.Mutex
	w  io.Writer
}

// Enabled implements slog.Handler: origin is what drops records.
func (h *handler) Enabled(context.Context, slog.Level) bool { return true }

// WithAttrs implements slog.Handler.
func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.attrs = append(append([]slog.Attr{}, h.attrs...), h.named(attrs)...)
	return &next
}

// WithGroup implements slog.Handler.
func (h *handler) WithGroup(name string) slog.Handler {
	next := *h
	next.group += name + "."
	return &next
}

func (h *handler) named(attrs []slog.Attr) []slog.Attr {
	out := make([]slog.Attr, 0, len(attrs))
	for _, a := range attrs {
		out = append(out, slog.Attr{Key: h.group + a.Key, Value: a.Value.Resolve()})
	}
	return out
}

// Handle implements slog.Handler.
func (h *handler) Handle(_ context.Context, r slog.Record) error {
	attrs := append([]slog.Attr{}, h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		attrs = append(attrs, h.named([]slog.Attr{a})...)
		return true
	})
	line := []byte(nil)
	if h.fields != nil {
		line = h.object(r, attrs)
	} else {
		line = []byte(h.lay.text(r, withAttrs(r.Message, attrs)))
	}
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	_, err := h.out.w.Write(append(line, '\n'))
	return err
}

func withAttrs(message string, attrs []slog.Attr) string {
	var b strings.Builder
	b.WriteString(message)
	for _, a := range attrs {
		v := a.Value.String()
		if v == "" || !utf8.ValidString(v) || strings.ContainsFunc(v, delicate) {
			v = strconv.Quote(v)
		}
		b.WriteString(" " + a.Key + "=" + v)
	}
	return b.String()
}

// delicate tells whether a value with that character is quoted: it would look like the end of the value, or do something to a terminal. Clients
// of the proxy choose what some values are.
func delicate(c rune) bool { return strings.ContainsRune(" \"=", c) || !unicode.IsPrint(c) }

// object is a record as a JSON object with its fields in order.
func (h *handler) object(r slog.Record, attrs []slog.Attr) []byte {
	var b bytes.Buffer
	put := func(key string, value any) {
		if err, ok := value.(error); ok {
			value = err.Error()
		}
		text, err := json.Marshal(value)
		if err != nil {
			text, _ = json.Marshal(slog.AnyValue(value).String())
		}
		name, _ := json.Marshal(key) // a string: cannot fail
		if b.Len() > 1 {
			b.WriteString(", ")
		}
		b.Write(name)
		b.WriteString(": ")
		b.Write(text)
	}
	b.WriteByte('{')
	for _, f := range h.fields {
		put(f.As, h.lay.value(f.Name, r, r.Message))
	}
	for _, a := range attrs {
		value := a.Value.Any()
		if a.Value.Kind() == slog.KindDuration || a.Value.Kind() == slog.KindTime {
			value = a.Value.String()
		}
		put(a.Key, value)
	}
	for _, key := range sortedKeys(h.static) {
		put(key, h.static[key])
	}
	b.WriteByte('}')
	return b.Bytes()
}
