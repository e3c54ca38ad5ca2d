package pgwire

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/havenha/haven/internal/postgres/pgtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair is a TCP connection with both of its ends.
func pair(t testing.TB) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	pgtest.Must(t, err)
	defer l.Close()
	near, err = net.Dial("tcp", l.Addr().String())
	pgtest.Must(t, err)
	far, err = l.Accept()
	pgtest.Must(t, err)
	t.Cleanup(func() {
		near.Close()
		far.Close()
	})
	return near, far
}

// secrets are users by name.
func users(t testing.TB, text string) *UserFile {
	t.Helper()
	path := filepath.Join(t.TempDir(), "userlist.txt")
	pgtest.Must(t, os.WriteFile(path, []byte(text), 0o600))
	f, err := OpenUserFile(path)
	pgtest.Must(t, err)
	return f
}

func authenticator(t testing.TB, m Method, s Secrets) *Authenticator {
	t.Helper()
	a, err := NewAuthenticator(AuthOptions{Method: m, Secrets: s})
	pgtest.Must(t, err)
	return a
}
