package demo

import (
	"os"
	"path/filepath"
	"testing"
)

// TestDemosHavePasswordsOfTheirOwn: every demo makes its own, long ones, and one that goes on keeps them.
func TestDemosHavePasswordsOfTheirOwn(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	seen := map[string]bool{}
	for _, dir := range []string{first, second} {
		if _, err := Make(dir, Shape{Members: 1, Sync: "on", AnyPorts: true}); err != nil {
			t.Fatal(err)
		}
		secrets := read(t, dir)
		for name, secret := range secrets {
			if seen[secret] || len(secret) < 20 {
				t.Errorf("%s is %q, which is short or not its own", name, secret)
			}
			seen[secret] = true
		}
	}
	before := read(t, first)
	if _, err := Make(first, Shape{Members: 1, Sync: "on", AnyPorts: true}); err != nil {
		t.Fatal(err)
	}
	for name, secret := range read(t, first) {
		if before[name] != secret {
			t.Errorf("%s has changed under a cluster that goes on", name)
		}
	}
}

func read(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, name := range []string{"superuser", "replication", "restapi", "demo"} {
		path := filepath.Join(dir, "secrets", name)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", path, info.Mode(), err)
		}
		out[name] = string(b[:len(b)-1])
	}
	return out
}
