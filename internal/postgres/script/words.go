package script

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// Split cuts a command into words by the rules of a POSIX shell's quotes, and of nothing else of a shell: what Python's
// shlex.split does, since that is what such commands were written for.
func Split(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	open, begun, escaped := byte(0), false, false
	for i := range len(line) {
		c := line[i]
		switch {
		case escaped:
			if open == '"' && c != '"' && c != '\\' {
				word.WriteByte('\\')
			}
			word.WriteByte(c)
			escaped = false
		case c == '\\' && open != '\'':
			begun, escaped = true, true
		case open != 0 && c == open:
			open = 0
		case open != 0:
			word.WriteByte(c)
		case c == '\'' || c == '"':
			open, begun = c, true
		case strings.IndexByte(" \t\r\n", c) >= 0:
			if begun {
				words = append(words, word.String())
				word.Reset()
			}
			begun = false
		default:
			word.WriteByte(c)
			begun = true
		}
	}
	if open != 0 || escaped {
		return nil, errors.New("the command ends within quotes, or with a backslash")
	}
	if begun {
		words = append(words, word.String())
	}
	return words, nil
}

// lookPath finds a program by the PATH of the command's own environment; empty: exec says what is wrong.
func lookPath(name string, env []string) string {
	if strings.Contains(name, "/") {
		return ""
	}
	for _, kv := range env {
		dirs, ok := strings.CutPrefix(kv, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range filepath.SplitList(dirs) {
			path := filepath.Join(dir, name)
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0 && filepath.IsAbs(path) {
				return path
			}
		}
	}
	return ""
}
