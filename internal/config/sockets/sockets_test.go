package sockets

import (
	"os"
	"path/filepath"
	"testing"
)

func TestProcAddress(t *testing.T) {
	for in, want := range map[string]string{"0100007F:1538": "127.0.0.1:5432", "00000000:1F48": "0.0.0.0:8008",
		"00000000000000000000000001000000:0050": "[::1]:80", "0000000000000000FFFF00000100007F:0050": "127.0.0.1:80"} {
		if got, ok := procAddress(in); !ok || got.String() != want {
			t.Errorf("%s: %s %v, want %s", in, got, ok, want)
		}
	}
	if _, ok := procAddress("nonsense"); ok {
		t.Error("nonsense is an address")
	}
}

func TestHolderName(t *testing.T) {
	for _, c := range []struct{ name, cmdline, comm, want string }{
		{"started through a descriptor", "haven\x00run\x00db1.yml\x00", "3\n", "pid 7 (haven)"},
		{"started by its path", "/usr/local/bin/a-very-long-name-of-a-server\x00-D\x00/data\x00", "a-very-long-nam\n", "pid 7 (a-very-long-name-of-a-server)"},
		{"a title", "nginx: master process /usr/sbin/nginx -g daemon off;", "nginx\n", "pid 7 (nginx)"},
		{"a login shell", "-bash\x00", "bash\n", "pid 7 (bash)"},
		{"no arguments", "", "kworker/0:1\n", "pid 7 (kworker/0:1)"},
		{"a name that would move the cursor", "\x1b[2Jevil\x00", "evil\n", "pid 7 ([2Jevil)"},
	} {
		proc := t.TempDir()
		dir := filepath.Join(proc, "7")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for file, content := range map[string]string{"cmdline": c.cmdline, "comm": c.comm} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := HolderName(proc, []int{7, 8}); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
	if got := HolderName(t.TempDir(), []int{7}); got != "pid 7" {
		t.Errorf("a process that is gone: %s", got)
	}
	if got := HolderName("/proc", nil); got != "another user's process" {
		t.Errorf("a process that may not be looked at: %s", got)
	}
}
