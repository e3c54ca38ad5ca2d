package bindir

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func save(t *testing.T, path, content string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

func TestFindBinDirFollowsTheDataDirectory(t *testing.T) {
	root := t.TempDir()
	install := func(dir string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
		save(t, filepath.Join(root, dir, "postgres"), "", 0o700)
	}
	data := filepath.Join(root, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Find(root, data, ""); err == nil {
		t.Error("a server is found where none is installed")
	}
	for _, dir := range []string{"usr/lib/postgresql/9/bin", "usr/lib/postgresql/15/bin", "usr/lib/postgresql/16/bin", "usr/pgsql-17/bin", "opt/bin"} {
		install(dir)
	}
	for version, want := range map[string]string{"": "/usr/pgsql-17/bin 17", "15": "/usr/lib/postgresql/15/bin 15", "13": "/opt/bin 0"} {
		if version != "" {
			save(t, filepath.Join(data, "PG_VERSION"), version+"\n", 0o600)
		}
		dir, major, err := Find(root, data, "/nowhere:"+root+"/opt/bin")
		if got := fmt.Sprint(strings.TrimPrefix(dir, root), " ", major); err != nil || got != want {
			t.Errorf("data of version %q: %s %v, want %s", version, got, err, want)
		}
		_ = os.Remove(filepath.Join(data, "PG_VERSION"))
	}
	save(t, filepath.Join(data, "PG_VERSION"), "13\n", 0o600)
	if _, _, err := Find(root, data, ""); err == nil || !strings.Contains(err.Error(), "postgresql-13") {
		t.Errorf("missing programs: %v", err)
	}
}
