package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/havenha/haven/internal/config"
)

func TestDataMovedAsideIsTold(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"data/pg_tblspc", "data.20310506T031200Z.aside", "database.aside", "space", "space.20310506T031200Z-2.aside"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(dir, "space"), filepath.Join(dir, "data/pg_tblspc/16385")); err != nil {
		t.Fatal(err)
	}
	n := &config.Node{Postgres: &config.Postgres{DataDir: filepath.Join(dir, "data")}}
	got := strings.Join((&leftovers{node: n}).look(), "\n")
	for _, want := range []string{"/data.20310506T031200Z.aside", "/space.20310506T031200Z-2.aside"} {
		if !strings.Contains(got, want) {
			t.Errorf("not told: %s\n%s", want, got)
		}
	}
	if strings.Contains(got, "database") {
		t.Errorf("a directory of somebody else's is told: %s", got)
	}
	var uses []string
	for _, p := range places(n) {
		uses = append(uses, p.Use)
	}
	if strings.Join(uses, ",") != "data,wal,tablespace 16385,state" {
		t.Errorf("watched: %v", uses)
	}
}
