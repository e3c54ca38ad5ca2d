package journal_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/havenha/haven/internal/journal"
)

type entry struct {
	N    int
	Text string
}

func read(t *testing.T, dir string) []entry {
	t.Helper()
	var out []entry
	err := journal.Read(dir, func(line []byte) error {
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			return err
		}
		out = append(out, e)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestEntriesSurviveReopeningInOrder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "j")
	for round := range 3 {
		j, err := journal.Open(dir, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for n := range 10 {
			j.Record(entry{N: round*10 + n})
		}
		j.Close()
	}
	got := read(t, dir)
	if len(got) != 30 {
		t.Fatalf("read %d entries, want 30", len(got))
	}
	for i, e := range got {
		if e.N != i {
			t.Fatalf("entry %d is %d", i, e.N)
		}
	}
}

func TestOldestEntriesMakeRoom(t *testing.T) {
	dir := t.TempDir()
	j, err := journal.Open(dir, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("x", 10_000)
	recorded := 0
	for n := range 400 {
		j.Record(entry{N: n, Text: text})
		recorded = n
	}
	j.Close()
	var size int64
	files, _ := os.ReadDir(dir)
	for _, f := range files {
		info, _ := f.Info()
		size += info.Size()
	}
	if size > 1<<20+20_000 {
		t.Errorf("journal takes %d bytes, bound is %d", size, 1<<20)
	}
	got := read(t, dir)
	if int64(len(got)) >= 400 || len(got) == 0 || got[len(got)-1].N != recorded && j.Dropped() == 0 {
		t.Errorf("%d entries kept, newest %d, dropped %d", len(got), got[len(got)-1].N, j.Dropped())
	}
}

func TestGarbledTailIsPassedOver(t *testing.T) {
	dir := t.TempDir()
	j, err := journal.Open(dir, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	j.Record(entry{N: 1})
	j.Close()
	files, _ := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	f, err := os.OpenFile(files[0], os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString(`{"N":2,"Te`)
	f.Close()
	if got := read(t, dir); len(got) != 1 || got[0].N != 1 {
		t.Errorf("read %v", got)
	}
}

func TestRecordingIntoAVanishedDirectoryIsReportedNotFatal(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "j")
	j, err := journal.Open(dir, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	os.RemoveAll(dir)
	for n := range 40 {
		j.Record(entry{N: n, Text: strings.Repeat("x", 10_000)})
	}
	j.Close()
	if j.Problem() == "" || j.Dropped() == 0 {
		t.Errorf("problem %q, dropped %d: a journal that cannot be written must say so", j.Problem(), j.Dropped())
	}
}

// TestStartsInARowKeepWhatWas: a member that ends at its start, over and over, does not push out what the journal tells of the fault.
func TestStartsInARowKeepWhatWas(t *testing.T) {
	dir := t.TempDir()
	for n := range 20 {
		j, err := journal.Open(dir, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			j.Record(entry{N: 1})
		}
		j.Close()
		if n == 10 {
			files, _ := filepath.Glob(filepath.Join(dir, "*.jsonl"))
			f, err := os.OpenFile(files[len(files)-1], os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			f.WriteString(`{"N":2,"Te`)
			f.Close()
		}
	}
	j, err := journal.Open(dir, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	j.Record(entry{N: 3})
	j.Close()
	if got := read(t, dir); len(got) != 2 || got[0].N != 1 || got[1].N != 3 {
		t.Errorf("read %v", got)
	}
}
