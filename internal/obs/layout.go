package obs

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// layout is a line's format in the notation of Python's logging module: %(asctime)s %(levelname)-8s %(message)s.
type layout struct {
	parts      []part
	dateFormat string // of strftime; empty: with milliseconds after a comma, as Python writes them
}

// part is literal text, or a field with its verb of package fmt.
type part struct{ text, field, verb string }

// fieldNames are the fields that a format may name.
func fieldNames() []string {
	return []string{"asctime", "levelname", "levelno", "message", "name", "module", "pathname", "filename", "lineno", "funcName",
		"process", "processName", "thread", "threadName", "created", "msecs"}
}

// parseLayout reads a format.
func parseLayout(format, dateFormat string) (layout, error) {
	l := layout{dateFormat: dateFormat}
	field := regexp.MustCompile(`%\((\w+)\)([-0+ #]*\d*(?:\.\d+)?)([sdifr])|%%`)
	at := 0
	for _, m := range field.FindAllStringSubmatchIndex(format, -1) {
		if err := l.literal(format[at:m[0]]); err != nil {
			return l, err
		}
		at = m[1]
		if m[2] < 0 {
			l.parts = append(l.parts, part{text: "%"})
			continue
		}
		name := format[m[2]:m[3]]
		if !slices.Contains(fieldNames(), name) {
			return l, fmt.Errorf("log.format: there is no field %q: write one of %s", name, strings.Join(fieldNames(), ", "))
		}
		l.parts = append(l.parts, part{field: name, verb: "%" + format[m[4]:m[5]] + goVerb(name, format[m[6]:m[7]])})
	}
	err := l.literal(format[at:])
	return l, err
}

func (l *layout) literal(text string) error {
	if strings.Contains(text, "%") {
		return fmt.Errorf("log.format: %q is no field: write %%(name)s, or %%%% for a percent sign", text)
	}
	if text != "" {
		l.parts = append(l.parts, part{text: text})
	}
	return nil
}

// goVerb is the verb of package fmt for one of Python's. Its %d takes a float too, and cuts it.
func goVerb(field, verb string) string {
	number := slices.Contains([]string{"levelno", "lineno", "process", "thread", "created", "msecs"}, field)
	switch {
	case number && (verb == "d" || verb == "i"):
		return "d"
	case number && verb == "f":
		return "f"
	case number:
		return "v"
	}
	return "s"
}

// text lays a record out.
func (l layout) text(r slog.Record, message string) string {
	var b strings.Builder
	for _, p := range l.parts {
		if p.field == "" {
			b.WriteString(p.text)
			continue
		}
		v := l.value(p.field, r, message)
		switch f, float := v.(float64); {
		case float && strings.HasSuffix(p.verb, "d"):
			v = int64(f)
		case strings.HasSuffix(p.verb, "f"):
			if n, ok := v.(int); ok {
				v = float64(n)
			}
		}
		fmt.Fprintf(&b, p.verb, v)
	}
	return b.String()
}

// value is a field of a record. What a Go program does not have (threads by name) has the value of Python's main thread.
func (l layout) value(field string, r slog.Record, message string) any {
	switch field {
	case "asctime":
		return l.time(r.Time)
	case "levelname":
		return levelName(r.Level)
	case "levelno":
		return int(r.Level)*10/4 + 20
	case "message":
		return message
	case "name":
		return "haven"
	case "process":
		return os.Getpid()
	case "processName":
		return "MainProcess"
	case "thread":
		return 1
	case "threadName":
		return "MainThread"
	case "created":
		return float64(r.Time.UnixMicro()) / 1e6
	case "msecs":
		return float64(r.Time.Nanosecond()/1000) / 1000
	}
	return sourceField(field, r.PC)
}

func sourceField(field string, pc uintptr) any {
	frame, _ := runtime.CallersFrames([]uintptr{pc}).Next()
	base := filepath.Base(frame.File)
	switch field {
	case "pathname":
		return frame.File
	case "filename":
		return base
	case "module":
		return strings.TrimSuffix(base, ".go")
	case "lineno":
		return frame.Line
	}
	return frame.Function[strings.LastIndexByte(frame.Function, '.')+1:]
}

func (l layout) time(t time.Time) string {
	t = t.Local()
	if l.dateFormat == "" {
		return t.Format("2006-01-02 15:04:05") + fmt.Sprintf(",%03d", t.Nanosecond()/int(time.Millisecond))
	}
	return strftime(t, l.dateFormat)
}

// strftime formats a time by the conversions of C's function of that name that make sense in a log.
func strftime(t time.Time, format string) string {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' || i+1 == len(format) {
			b.WriteByte(format[i])
			continue
		}
		i++
		b.WriteString(conversion(t, format[i]))
	}
	return b.String()
}

func conversion(t time.Time, c byte) string {
	layouts := map[byte]string{'Y': "2006", 'y': "06", 'm': "01", 'd': "02", 'e': "_2", 'H': "15", 'I': "03", 'M': "04", 'S': "05", 'p': "PM",
		'b': "Jan", 'h': "Jan", 'B': "January", 'a': "Mon", 'A': "Monday", 'j': "002", 'Z': "MST", 'z': "-0700", 'F': "2006-01-02", 'T': "15:04:05",
		'D': "01/02/06", 'R': "15:04", 'c': "Mon Jan _2 15:04:05 2006", 'x': "01/02/06", 'X': "15:04:05"}
	switch {
	case c == '%':
		return "%"
	case c == 's':
		return strconv.FormatInt(t.Unix(), 10)
	case layouts[c] != "":
		return t.Format(layouts[c])
	}
	return "%" + string(c)
}

// levelName is a severity as Python prints it.
func levelName(l slog.Level) string {
	switch {
	case l < slog.LevelInfo:
		return "DEBUG"
	case l < slog.LevelWarn:
		return "INFO"
	case l < slog.LevelError:
		return "WARNING"
	case l < slog.LevelError+4:
		return "ERROR"
	}
	return "CRITICAL"
}
