package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFaultsAreAllFoundWithTheirPlace(t *testing.T) {
	if err := os.Chmod("testdata/faults/secret-for-all", 0o644); err != nil { // whatever the umask of the checkout
		t.Fatal(err)
	}
	files, err := filepath.Glob("testdata/faults/*.yml")
	if err != nil || len(files) < 30 {
		t.Fatalf("%d files of seeded mistakes: %v", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yml")
		t.Run(name, func(t *testing.T) {
			src := host(file)
			if wd, err := os.Getwd(); err == nil {
				src.WorkDir = wd
			}
			n, r := Load(src)
			if (n == nil) == r.OK() {
				t.Errorf("node %v, report OK %v", n != nil, r.OK())
			}
			got := strings.ReplaceAll(r.String(), src.WorkDir+"/testdata/faults/", "DIR/")
			golden(t, strings.TrimSuffix(file, ".yml")+".golden", strings.ReplaceAll(got, "testdata/faults/", ""))
		})
	}
}
