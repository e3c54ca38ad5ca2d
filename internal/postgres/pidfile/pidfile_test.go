package pidfile

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]File{
		"123\n/data\n1700000000\n5432\n/run/pg\nlocalhost\n  123  4\nready   \n": {PID: 123, Start: time.Unix(1700000000, 0), Port: "5432", Socket: "/run/pg", Segment: 4, Status: "ready"},
		"-7\n/data\n1700000000\n": {PID: -7, Start: time.Unix(1700000000, 0), Segment: -1},
		"5\n":                     {PID: 5, Segment: -1},
	} {
		if err := os.WriteFile(filepath.Join(dir, "postmaster.pid"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(dir); err != nil || got != want {
			t.Errorf("%q: got %+v, %v", text, got, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "postmaster.pid"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir); err == nil {
		t.Error("an empty file names a process")
	}
}

func TestReadStatOfThisProcess(t *testing.T) {
	st, err := ReadStat(os.Getpid())
	if err != nil || time.Since(st.Start) > time.Hour || time.Since(st.Start) < -2*time.Second {
		t.Errorf("this process began at %v: %v", st.Start, err)
	}
}
