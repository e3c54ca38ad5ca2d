package pgwire

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
)

// UserFile are the users of PgBouncer's auth_file (userlist.txt): one in a line, its name and its secret in double quotes, in which two
// of them stand for one. What follows on the line is ignored, and so are empty lines and those that begin with a semicolon.
type UserFile struct {
	path  string
	users atomic.Pointer[map[string]Secret]
}

// OpenUserFile reads the file.
func OpenUserFile(path string) (*UserFile, error) {
	f := &UserFile{path: path}
	err := f.Reload()
	return f, err
}

// Reload reads the file again. With an error nothing changes; all of its faults are reported, each with its line.
func (f *UserFile) Reload() error {
	text, err := os.ReadFile(f.path)
	if err != nil {
		return fmt.Errorf("read users: %w", err)
	}
	users, err := parseUsers(f.path, string(text))
	if err != nil {
		return err
	}
	f.users.Store(&users)
	return nil
}

// Secret is that of the file as it was last read.
func (f *UserFile) Secret(_ context.Context, user string) (Secret, error) {
	if users := f.users.Load(); users != nil {
		if s, ok := (*users)[user]; ok {
			return s, nil
		}
	}
	return Secret{}, ErrUnknownUser
}

// parseUsers reads the file's text. Of a user who stands there twice the last line counts, as with PgBouncer.
func parseUsers(file, text string) (map[string]Secret, error) {
	users := map[string]Secret{}
	var faults []error
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == ';' {
			continue
		}
		name, rest, err := quoted(line)
		if err == nil && name == "" {
			err = errors.New("the name is empty")
		}
		var secret string
		if err == nil {
			secret, _, err = quoted(strings.TrimLeft(rest, " \t"))
		}
		if err != nil {
			faults = append(faults, fmt.Errorf(`%s:%d: %w; a line is "name" "password"`, file, number, err))
			continue
		}
		users[name] = ParseSecret(secret)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return users, nil
}

// quoted takes a text in double quotes off the front of a line.
func quoted(line string) (text, rest string, err error) {
	if line == "" || line[0] != '"' {
		return "", "", errors.New("a double quote is missing")
	}
	var b strings.Builder
	for i := 1; i < len(line); i++ {
		if line[i] != '"' {
			b.WriteByte(line[i])
			continue
		}
		if i+1 >= len(line) || line[i+1] != '"' {
			return b.String(), line[i+1:], nil
		}
		b.WriteByte('"')
		i++
	}
	return "", "", errors.New("a double quote is not closed")
}
