// Package bindir finds the folder of PostgreSQL's server programs. It looks and runs nothing; errors say what to install
// or to configure.
package bindir

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Find looks below root: for the programs of the version that dataDir is of, where it holds a database, else for the
// newest in the places of Debian and Red Hat, else on path, a list as in PATH. Major is 0 when the place does not tell it.
func Find(root, dataDir, path string) (dir string, major int, err error) {
	wanted := dataMajor(dataDir)
	best, bestMajor := "", 0
	for _, pattern := range []string{"usr/lib/postgresql/*/bin", "usr/pgsql-*/bin"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			continue
		}
		for _, dir := range found {
			major, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(filepath.Dir(dir)), "pgsql-"))
			if err != nil || !hasServer(dir) {
				continue
			}
			if major == wanted {
				return dir, major, nil
			}
			if major > bestMajor {
				best, bestMajor = dir, major
			}
		}
	}
	if best != "" && wanted == 0 {
		return best, bestMajor, nil
	}
	for _, dir := range filepath.SplitList(path) {
		if filepath.IsAbs(dir) && hasServer(dir) {
			return dir, 0, nil
		}
	}
	if wanted != 0 {
		return "", 0, fmt.Errorf("find PostgreSQL: %s is a database of version %d, whose programs are not installed: install them (Debian: postgresql-%d), or set `postgresql.bin_dir`", dataDir, wanted, wanted)
	}
	return "", 0, fmt.Errorf("find PostgreSQL: no server programs in /usr/lib/postgresql, /usr/pgsql-* or PATH: install PostgreSQL (Debian: apt-get install postgresql), or set `postgresql.bin_dir`")
}

func hasServer(dir string) bool {
	info, err := os.Stat(filepath.Join(dir, "postgres"))
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o111 != 0
}

// dataMajor is the major version of an existing database; 0 when there is none, or it cannot be read.
func dataMajor(dir string) int {
	content, err := os.ReadFile(filepath.Join(dir, "PG_VERSION"))
	if err != nil {
		return 0
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		return 0
	}
	return n
}
