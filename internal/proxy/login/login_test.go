package login_test

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/pgwire"
	"github.com/havenha/haven/internal/pgwire/frame"
	"github.com/havenha/haven/internal/proxy/login"
)

// TestUnknownUsersAreShownTheSameEverywhere: who compares the salts of two listeners, or of two nodes with the same file, must not learn
// whether a user exists. Those of two unknown users differ.
func TestUnknownUsersAreShownTheSameEverywhere(t *testing.T) {
	file := filepath.Join(t.TempDir(), "userlist.txt")
	if err := os.WriteFile(file, []byte(`"known" "secret"`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var listeners []pgwire.AcceptOptions
	for range 2 {
		o, _, err := login.Read(login.Options{Auth: config.ProxyAuth{Type: "scram-sha-256", File: file, ClientMode: "disable", ServerMode: "disable"}})
		if err != nil {
			t.Fatal(err)
		}
		listeners = append(listeners, o)
	}
	one, two := salt(t, listeners[0], "nobody"), salt(t, listeners[1], "nobody")
	if one != two {
		t.Errorf("the salts of an unknown user are %s and %s", one, two)
	}
	if other := salt(t, listeners[0], "nobody2"); other == one {
		t.Error("two unknown users have one salt")
	}
}

// salt is what a user is shown that begins to log in (RFC 5802, server-first-message).
func salt(t *testing.T, o pgwire.AcceptOptions, user string) string {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = pgwire.Accept(context.Background(), far, o)
	}()
	_ = near.SetDeadline(time.Now().Add(time.Minute))
	body := "\x00\x03\x00\x00user\x00" + user + "\x00\x00"
	send(t, near, append(binary.BigEndian.AppendUint32(nil, uint32(len(body)+4)), body...))
	read(t, near)
	first := "n,,n=,r=abc"
	send(t, near, frame.Append(nil, 'p', "SCRAM-SHA-256\x00", string(binary.BigEndian.AppendUint32(nil, uint32(len(first)))), first))
	found := regexp.MustCompile(`,s=([^,]+),`).FindStringSubmatch(read(t, near))
	if found == nil {
		t.Fatal("no salt")
	}
	near.Close()
	<-ended
	return found[1]
}

func send(t *testing.T, conn net.Conn, b []byte) {
	t.Helper()
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
}

// read reads one message.
func read(t *testing.T, conn net.Conn) string {
	t.Helper()
	var head [5]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, binary.BigEndian.Uint32(head[1:])-4)
	if _, err := io.ReadFull(conn, body); err != nil {
		t.Fatal(err)
	}
	return string(body)
}
