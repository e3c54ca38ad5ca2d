package config

import (
	"os"
	"strings"

	"github.com/havenha/haven/internal/config/tree"
)

// secret reads a password from its key or from the file that its sibling <key>_file names.
func (l *loader) secret(path string) string {
	inline, file := l.given(path), l.given(path+"_file")
	if inline != nil && file != nil {
		if l.kept[path] { // what was read from there at the start
			l.abs(path + "_file")
			return inline.Text
		}
		_, last, _ := tree.CutLast(path)
		l.report.errorf(file.At, "`%s` and `%s_file` are both given: keep one", path, last)
		return ""
	}
	if file == nil {
		if inline == nil {
			return ""
		}
		return inline.Text
	}
	name := l.abs(path + "_file")
	content, ok := l.secretFile(path+"_file", name, file.At)
	if !ok {
		return ""
	}
	l.doc.Set(path, &tree.Value{Shape: tree.Scalar, Text: content, Quoted: true, At: tree.Place{Note: name}})
	return content
}

// secretFile reads a secret that only its owner and group may read; its last line break is cut off.
func (l *loader) secretFile(key, name string, at tree.Place) (string, bool) {
	info, err := os.Stat(name)
	switch {
	case os.IsNotExist(err):
		l.report.errorf(at, "`%s`: there is no file %s: make it, mode 0600", key, name)
		return "", false
	case err != nil:
		l.report.errorf(at, "`%s`: %s cannot be read: %v", key, name, err)
		return "", false
	case !info.Mode().IsRegular():
		l.report.errorf(at, "`%s`: %s is not a file", key, name)
		return "", false
	case info.Mode().Perm()&0o004 != 0:
		l.report.errorf(at, "`%s`: %s can be read by every user of this host: chmod 600 it, and change the secret", key, name)
		return "", false
	case info.Size() > 64<<10:
		l.report.errorf(at, "`%s`: %s has %d bytes, which is no password", key, name, info.Size())
		return "", false
	}
	content, err := os.ReadFile(name)
	if err != nil {
		l.report.errorf(at, "`%s`: %s may not be read by this user: give it to the user that runs haven", key, name)
		return "", false
	}
	s := strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
	if s == "" || strings.ContainsAny(s, "\n\x00") {
		l.report.errorf(at, "`%s`: %s must hold one line with the secret", key, name)
		return "", false
	}
	return s, true
}

// required reports a secret that is missing, with all the ways to give it.
func (l *loader) required(path, secret, variable string) {
	if secret != "" || l.given(path+"_file") != nil {
		return
	}
	at := l.doc.Nearest(path)
	if v := l.given(path); v != nil {
		l.report.errorf(v.At, "`%s` is empty: set it%s", path, orVariable(variable))
		return
	}
	_, last, _ := tree.CutLast(path)
	l.report.errorf(at, "`%s` is missing: set it, or `%s_file`%s", path, last, orVariable(variable))
}

func orVariable(name string) string {
	if name == "" {
		return ""
	}
	return ", or " + name
}
