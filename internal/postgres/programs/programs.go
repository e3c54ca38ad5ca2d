// Package programs finds PostgreSQL's server programs and asks them for their version. Errors say what to install or to
// configure.
package programs

import (
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var versionPattern = regexp.MustCompile(`^(\d+)(?:\.(\d+))?`)

// Version asks the server program of a directory for its version, as PG_VERSION_NUM counts it (15.18 is 150018).
func Version(dir string) (int, error) {
	return VersionOf(filepath.Join(dir, "postgres"), filepath.Join(dir, "initdb"))
}

// VersionOf is Version of programs that may have other names.
func VersionOf(postgres, initdb string) (int, error) {
	for _, path := range []string{postgres, initdb} {
		if _, err := os.Stat(path); err != nil {
			return 0, fmt.Errorf("PostgreSQL's program %s is not in %s: install the server package, or set postgresql.bin_dir to the directory that holds postgres and initdb: %w", filepath.Base(path), filepath.Dir(path), err)
		}
	}
	out, err := exec.Command(postgres, "--version").Output()
	if err != nil {
		return 0, fmt.Errorf("ask %s for its version: %w", postgres, err)
	}
	_, text, _ := strings.Cut(string(out), "(PostgreSQL) ")
	v := ParseVersion(text)
	if v == 0 {
		return 0, fmt.Errorf("%s says its version is %q, which cannot be understood", postgres, strings.TrimSpace(string(out)))
	}
	return v, nil
}

// ParseVersion reads what begins with a version, such as 15.18 or 17beta1, as PG_VERSION_NUM counts it; 0 if nothing does.
func ParseVersion(text string) int {
	m := versionPattern.FindStringSubmatch(text)
	if m == nil {
		return 0
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	return major*10000 + minor
}

// Find finds the directory of PostgreSQL's server programs: the newest of what pg_config names, of Debian's and
// of Red Hat's places and of PATH. want, when not zero, is the major version that it must have.
func Find(want int) (string, error) {
	type found struct {
		dir     string
		version int
	}
	var all []found
	places := binDirCandidates()
	for _, dir := range places {
		v, err := Version(dir)
		if err == nil && (want == 0 || v/10000 == want) {
			all = append(all, found{dir, v})
		}
	}
	if len(all) == 0 {
		what := "PostgreSQL"
		if want != 0 {
			what = fmt.Sprintf("PostgreSQL %d", want)
		}
		return "", fmt.Errorf("no %s server was found (looked for postgres and initdb in %s): install it, or set postgresql.bin_dir", what, strings.Join(places, ", "))
	}
	return slices.MaxFunc(all, func(a, b found) int { return cmp.Compare(a.version, b.version) }).dir, nil
}

func binDirCandidates() []string {
	var dirs []string
	add := func(dir string) {
		if dir != "" && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		add(strings.TrimSpace(string(out)))
	}
	for _, pattern := range []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin"} {
		matches, _ := filepath.Glob(pattern)
		for _, m := range matches {
			add(m)
		}
	}
	if p, err := exec.LookPath("postgres"); err == nil {
		if real, err := filepath.EvalSymlinks(p); err == nil {
			p = real
		}
		add(filepath.Dir(p))
	}
	if len(dirs) == 0 {
		dirs = []string{"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "PATH"}
	}
	return dirs
}
