package config

import (
	"fmt"

	"github.com/havenha/haven/internal/config/bindir"
)

// FindBinDir is where the server programs are: bin_dir where it is given, else those of the data directory's own major
// version, else the newest that is installed in the places of Debian and Red Hat, else those on PATH. Major is 0 when
// the place does not tell it.
func (n *Node) FindBinDir() (dir string, major int, err error) {
	if n.Postgres == nil {
		return "", 0, fmt.Errorf("find PostgreSQL: this node has no section postgresql")
	}
	if n.Postgres.BinDir != "" {
		return n.Postgres.BinDir, 0, nil
	}
	path, _ := lookup(n.src.Env, "PATH")
	return bindir.Find("/", n.Postgres.DataDir, path)
}
