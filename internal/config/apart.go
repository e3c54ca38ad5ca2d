package config

import (
	"path/filepath"
	"strings"
)

// apart keeps the data directory and the node's state from lying in one another: the state is for its owner alone, so
// that the server's user could not walk to data within; and a data directory that is replaced by a new copy would take
// the state within with it.
func (l *loader) apart(n *Node) {
	if n.Postgres == nil || n.Postgres.DataDir == "" {
		return
	}
	data, state := n.Postgres.DataDir, n.Dir()
	at := l.doc.Nearest("postgresql.data_dir")
	switch {
	case within(data, state):
		l.report.errorf(at, "`postgresql.data_dir` %s is in this node's state directory %s, which only haven itself may enter: put the data beside it, for instance %s", data, state, filepath.Join(n.Haven.StateDir, n.Scope))
	case within(state, data):
		l.report.errorf(at, "`postgresql.data_dir` %s has this node's state directory %s in it, which would be moved away with the data: give the data a folder of its own, for instance %s, or set `haven.state_dir` to one outside of it", data, state, filepath.Join(data, n.Scope))
	}
}

// within tells whether a path is a folder or lies in it, wherever symbolic links lead.
func within(path, folder string) bool {
	rel, err := filepath.Rel(resolved(folder), resolved(path))
	return err == nil && rel != ".." && !strings.HasPrefix(rel, "../")
}

// resolved follows the symbolic links of the part of a path that exists.
func resolved(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	dir := filepath.Dir(path)
	if dir == path {
		return path
	}
	return filepath.Join(resolved(dir), filepath.Base(path))
}
