package listen

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/havenha/haven/internal/config/notation"
)

func TestAUnixSocketHasItsNamePermissionsAndGroup(t *testing.T) {
	dir := t.TempDir()
	l, err := Open("127.0.0.1,"+dir+":6432", Unix{Mode: 0o770, Group: strconv.Itoa(os.Getgid())})
	if err == nil {
		defer Close(l)
	}
	if err != nil && strings.Contains(err.Error(), "another program uses this port") {
		t.Skip(err)
	}
	if err != nil || len(l) != 2 {
		t.Fatal(l, err)
	}
	path := filepath.Join(dir, ".s.PGSQL.6432")
	if got := l[1].Addr().String(); got != path {
		t.Errorf("its address is %s", got)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != fs.ModeSocket|0o770 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	greets(t, l[1], path)
	Close(l)
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}

// greets connects to the path, and expects to reach that listener.
func greets(t *testing.T, l net.Listener, path string) {
	t.Helper()
	out, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	in.Close()
}

// listening is a socket that becomes stale when it is closed.
func listening(t *testing.T, path string) *net.UnixListener {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	return l
}

// TestOnlyAStaleSocketIsReplaced: one on which somebody listens is not, nor is a file.
func TestOnlyAStaleSocketIsReplaced(t *testing.T) {
	dir := t.TempDir()
	path := SocketFile(dir, "1")
	stale := listening(t, path)
	if _, err := Open(dir+":1", Unix{}); err == nil || !strings.Contains(err.Error(), "another program listens on "+path) {
		t.Errorf("one that is in use: %v", err)
	}
	stale.Close()
	l, err := Open(dir+":1", Unix{})
	if err != nil {
		t.Fatal("one that nobody listens on: ", err)
	}
	greets(t, l[0], path)
	Close(l)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir+":1", Unix{}); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("a file: %v", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("the file is gone: %v", err)
	}
}

// TestCloseLeavesTheSocketOfAnother that has taken the place of one's own.
func TestCloseLeavesTheSocketOfAnother(t *testing.T) {
	dir := t.TempDir()
	l, err := Open(dir+":1", Unix{})
	if err != nil {
		t.Fatal(err)
	}
	path := SocketFile(dir, "1")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	other, err := Open(dir+":1", Unix{})
	if err != nil {
		t.Fatal(err)
	}
	defer Close(other)
	Close(l)
	greets(t, other[0], path)
}

func TestWhatIsWrongWithAUnixSocketIsSaid(t *testing.T) {
	dir := t.TempDir()
	long := filepath.Join(dir, strings.Repeat("x", notation.MaxSocketPath))
	for _, c := range []struct {
		setting, want string
		unix          Unix
	}{
		{dir + "/none:1", "there is no directory " + dir + "/none: make it", Unix{}},
		{long + ":1", "choose a shorter directory", Unix{}},
		{dir + ":1", "no such group", Unix{Group: "haven-no-such-group"}},
		{"127.0.0.1", "write host:port", Unix{}},
	} {
		if _, err := Open(c.setting, c.unix); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.setting, err, c.want)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestOneOfManyGetsTheSocket: of those that find a stale socket at the same time.
func TestOneOfManyGetsTheSocket(t *testing.T) {
	dir := t.TempDir()
	path := SocketFile(dir, "1")
	stale := listening(t, path)
	stale.Close()
	var trying sync.WaitGroup
	got := make(chan []net.Listener, 8)
	for range cap(got) {
		trying.Go(func() {
			l, err := Open(dir+":1", Unix{})
			if err == nil {
				got <- l
			} else if !strings.Contains(err.Error(), "another program listens") {
				t.Error(err)
			}
		})
	}
	trying.Wait()
	if n := len(got); n != 1 {
		t.Fatalf("%d have it", n)
	}
	l := <-got
	defer Close(l)
	greets(t, l[0], path)
}
