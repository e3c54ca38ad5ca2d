package basebackup

import (
	"archive/tar"
	"os"
	"path/filepath"
	"testing"
)

// unpack sends an archive of these entries through a sink.
func unpack(t *testing.T, dir string, entries ...tar.Header) error {
	t.Helper()
	sink, err := newTarSink(nil, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer sink.abort()
	w := tar.NewWriter(sink)
	for _, h := range entries {
		if h.Typeflag == tar.TypeReg {
			h.Size = 1
		}
		if w.WriteHeader(&h) != nil {
			break
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write([]byte("x")); err != nil {
				break
			}
		}
	}
	_ = w.Close() // a failure to unpack is told by finish
	return sink.finish()
}

func TestNothingIsWrittenOutside(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	file := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o600} }
	if err := unpack(t, dir, tar.Header{Name: "base/", Typeflag: tar.TypeDir, Mode: 0o700}, file("base/1")); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "base", "1")); err != nil {
		t.Error(err)
	}
	link := tar.Header{Name: "away", Linkname: outside, Typeflag: tar.TypeSymlink}
	for name, entries := range map[string][]tar.Header{
		"a parent":     {file("../evil")},
		"through link": {link, file("away/evil")},
		"a device":     {{Name: "dev", Typeflag: tar.TypeChar}},
	} {
		if err := unpack(t, dir, entries...); err == nil {
			t.Errorf("%s: unpacked", name)
		}
	}
	if found, _ := filepath.Glob(filepath.Join(outside, "*")); len(found) > 0 {
		t.Errorf("written outside: %v", found)
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(dir), "evil")); err == nil {
		t.Error("written into the parent")
	}
}
