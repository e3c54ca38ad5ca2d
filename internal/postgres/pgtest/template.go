package pgtest

import (
	"archive/tar"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/havenha/haven/internal/postgres"
)

// Init fills the absent data directory of an instance with a new database, as InitDB would, from an archive that is made
// once for each version, account and set of options and kept in the temporary folder for later runs. All databases that
// come of it have one system identifier: a test that needs different clusters calls InitDB itself.
func Init(t testing.TB, i *postgres.Instance, o postgres.Options) {
	t.Helper()
	archive := template(i, o)
	if !usable(archive) {
		Must(t, i.InitDB(Context(t)))
		Must(t, pack(archive, o.DataDir))
		return
	}
	Must(t, unpack(archive, o))
}

// template is the name of the archive of what initdb makes with those options.
func template(i *postgres.Instance, o postgres.Options) string {
	h := fnv.New64a()
	fmt.Fprintln(h, o.BinDir, o.InitDB, o.Superuser.Username, o.Superuser.Password)
	return filepath.Join(os.TempDir(), fmt.Sprintf("haven-pgtest-%d-%d-%x.tar", i.Version(), os.Geteuid(), h.Sum64()))
}

// usable tells whether the archive is there and is ours.
func usable(archive string) bool {
	info, err := os.Lstat(archive)
	if err != nil || !info.Mode().IsRegular() {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// pack writes the archive under another name first: it is there whole, or not at all.
func pack(archive, dir string) error {
	f, err := os.CreateTemp(filepath.Dir(archive), ".haven-pgtest-*")
	if err != nil {
		return fmt.Errorf("keep a template: %w", err)
	}
	defer os.Remove(f.Name())
	w := tar.NewWriter(f)
	if err := errors.Join(w.AddFS(os.DirFS(dir)), w.Close(), f.Close()); err != nil {
		return fmt.Errorf("keep a template: %w", err)
	}
	return os.Rename(f.Name(), archive)
}

func unpack(archive string, o postgres.Options) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := give(o, o.DataDir, os.Mkdir(o.DataDir, 0o700)); err != nil {
		return err
	}
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("template %s: %w; remove it", archive, err)
		}
		path := filepath.Join(o.DataDir, filepath.Clean("/"+strings.TrimSuffix(h.Name, "/")))
		if path == o.DataDir {
			continue
		}
		if h.Typeflag == tar.TypeDir {
			err = os.Mkdir(path, 0o700)
		} else {
			err = writeFile(path, r, h.FileInfo().Mode().Perm())
		}
		if err := give(o, path, err); err != nil {
			return err
		}
	}
}

func writeFile(path string, r io.Reader, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// give hands a path over to the server's user, unless it could not be made.
func give(o postgres.Options, path string, made error) error {
	if made != nil || o.RunAs == nil {
		return made
	}
	return os.Lchown(path, o.RunAs.UID, o.RunAs.GID)
}
