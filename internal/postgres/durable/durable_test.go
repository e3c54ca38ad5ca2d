package durable

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestReplaceIsAllOrNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	owned := ""
	own := func(p string) error { owned = p; return nil }
	if changed, err := Replace(path, []byte("one"), 0o640, own); !changed || err != nil || filepath.Dir(owned) != dir || owned == path {
		t.Fatalf("changed %v, owned %s: %v", changed, owned, err)
	}
	if changed, err := Replace(path, []byte("one"), 0o640, own); changed || err != nil {
		t.Errorf("the same contents: changed %v, %v", changed, err)
	}
	refused := errors.New("refused")
	if _, err := Replace(path, []byte("two"), 0o640, func(string) error { return refused }); !errors.Is(err, refused) {
		t.Errorf("a file that could not be given to its owner: %v", err)
	}
	got, err := os.ReadFile(path)
	entries, _ := os.ReadDir(dir)
	info, _ := os.Stat(path)
	if err != nil || string(got) != "one" || len(entries) != 1 || info.Mode().Perm() != 0o640 {
		t.Errorf("after the failure: %q, %d files, mode %v: %v", got, len(entries), info.Mode(), err)
	}
	for _, want := range []bool{true, false} {
		if removed, err := Remove(path); removed != want || err != nil {
			t.Errorf("removed %v, %v", removed, err)
		}
	}
}
