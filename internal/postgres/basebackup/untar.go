package basebackup

import (
	"archive/tar"
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

// archiveSink takes the bytes of one archive (or of the manifest). Its goroutine unpacks; finish and abort wait for it.
// A nil sink may be finished and aborted.
type archiveSink struct {
	w    *io.PipeWriter
	done chan error
}

func newSink(consume func(io.Reader) error) *archiveSink {
	r, w := io.Pipe()
	s := &archiveSink{w: w, done: make(chan error, 1)}
	go func() {
		err := consume(r)
		if err == nil {
			_, err = io.Copy(io.Discard, r) // the zero blocks after the archive's end
		}
		_ = r.CloseWithError(err) // a writer is told why
		s.done <- err
	}()
	return s
}

// Write implements io.Writer; a failure to unpack is the writer's error.
func (s *archiveSink) Write(p []byte) (int, error) { return s.w.Write(p) }

func (s *archiveSink) finish() error {
	if s == nil {
		return nil
	}
	_ = s.w.Close() // never fails
	err := <-s.done
	s.done <- err // for abort after finish
	return err
}

func (s *archiveSink) abort() {
	if s == nil {
		return
	}
	_ = s.w.CloseWithError(errors.New("the copy was given up"))
	err := <-s.done
	s.done <- err
}

func newFileSink(own *Owner, name string) (*archiveSink, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return newSink(func(r io.Reader) error {
		_, err := io.Copy(f, r)
		return errors.Join(err, own.take(name), f.Close())
	}), nil
}

// newTarSink unpacks into dir and nowhere else: os.Root refuses names that lead outside.
func newTarSink(own *Owner, dir string) (*archiveSink, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	return newSink(func(r io.Reader) error {
		return errors.Join(untar(root, own, bufio.NewReaderSize(r, 1<<20)), root.Close())
	}), nil
}

func untar(root *os.Root, own *Owner, r io.Reader) error {
	archive := tar.NewReader(r)
	buf := make([]byte, 256<<10)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the server's archive: %w", err)
		}
		name := path.Clean(strings.TrimSuffix(h.Name, "/"))
		if name == "." {
			continue
		}
		if err := extract(root, archive, h, name, buf); err != nil {
			return fmt.Errorf("unpack %s: %w", name, err)
		}
		if err := own.takeIn(root, name); err != nil {
			return fmt.Errorf("unpack %s: %w", name, err)
		}
	}
}

func extract(root *os.Root, r io.Reader, h *tar.Header, name string, buf []byte) error {
	mode := h.FileInfo().Mode().Perm() & 0o750
	switch h.Typeflag {
	case tar.TypeDir:
		err := root.Mkdir(name, mode)
		if errors.Is(err, os.ErrExist) {
			return nil
		}
		return err
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name) // a tablespace
	case tar.TypeReg:
		f, err := root.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, mode)
		if err != nil {
			return err
		}
		// The struct hides ReadFrom, which would not use our buffer.
		_, err = io.CopyBuffer(struct{ io.Writer }{f}, r, buf)
		return errors.Join(err, f.Close())
	}
	return fmt.Errorf("the archive holds an entry of the unexpected type %q", h.Typeflag)
}

// Owner is whom what was made is given to; nil: it stays ours.
type Owner struct{ UID, GID int }

func (o *Owner) take(path string) error {
	if o == nil {
		return nil
	}
	return os.Lchown(path, o.UID, o.GID)
}

func (o *Owner) takeIn(root *os.Root, name string) error {
	if o == nil {
		return nil
	}
	return root.Lchown(name, o.UID, o.GID)
}
