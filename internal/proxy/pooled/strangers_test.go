package pooled

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/havenha/haven/internal/postgres/pgtest"
)

// TestStrangersAreBounded: of those that do not prove who they are, the oldest make room. Who has is not counted among them.
func TestStrangersAreBounded(t *testing.T) {
	var s strangers
	come := func() (far net.Conn, known func()) {
		near, far := net.Pipe()
		t.Cleanup(func() { near.Close(); far.Close() })
		return far, s.come(near, 1000)
	}
	friend, known := come()
	known()
	first, _ := come()
	second, _ := come()
	for range maxStrangers - 1 {
		come()
	}
	if _, err := first.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the oldest: %v", err)
	}
	for name, conn := range map[string]net.Conn{"the second": second, "the friend": friend} {
		pgtest.Must(t, conn.SetReadDeadline(time.Now().Add(time.Millisecond)))
		if _, err := conn.Read(make([]byte, 1)); errors.Is(err, io.EOF) {
			t.Errorf("%s was closed", name)
		}
	}
}
