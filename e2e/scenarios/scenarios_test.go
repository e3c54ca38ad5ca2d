// Package scenarios holds Haven to what docs/reference/behaviour.md says, by stories in text: testdata/*.txt.
//
// Each story begins with what it shows and the sections of that page it belongs to, and goes on with steps, one a line: what an
// operator does or what breaks, and what is then to be seen. They are carried out by the built program, with patroni.yml
// files, on a genuine etcd and real PostgreSQL, twice: plain, and with TLS and client certificates everywhere.
// testdata/README.md lists the words.
package scenarios

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
)

func TestMain(m *testing.M) {
	atOnce()
	os.Exit(build(m))
}

// atOnce lets three stories play at once also where there are only two processors: most of the time they wait for a lease to end.
func atOnce() {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f != nil && f.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = f.Value.Set(strconv.Itoa(max(3, runtime.GOMAXPROCS(0))))
	}
}

// build builds the program, unless HAVEN_E2E_BINARY names one.
func build(m *testing.M) int {
	if os.Getenv("HAVEN_E2E_BINARY") != "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "haven-scenarios-bin-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "haven")
	out, err := exec.Command("go", "build", "-o", path, "../../cmd/haven").CombinedOutput()
	if err = errors.Join(err, os.Chmod(dir, 0o755)); err != nil {
		fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
		return 1
	}
	os.Setenv("HAVEN_E2E_BINARY", path)
	return m.Run()
}

// TestBehaviour plays each story, plain and with TLS.
func TestBehaviour(t *testing.T) {
	stories := stories(t)
	for _, run := range []string{"plain", "tls"} {
		t.Run(run, func(t *testing.T) {
			site := newSite(t, run == "tls")
			t.Run("stories", func(t *testing.T) {
				for _, s := range stories {
					t.Run(s.name, func(t *testing.T) {
						t.Parallel()
						play(t, site, s)
					})
				}
			})
		})
	}
}
