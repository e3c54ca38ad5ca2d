package pgwire

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/postgres/pgtest"
)

// accepted is how an Accept ended.
type accepted struct {
	client *Client
	err    error
}

// accepting runs Accept at the far end of a connection.
func accepting(t *testing.T, o AcceptOptions) (net.Conn, <-chan accepted) {
	t.Helper()
	near, far := pair(t)
	near.SetDeadline(time.Now().Add(10 * time.Second))
	return near, acceptOn(t, far, o)
}

func acceptOn(t *testing.T, far net.Conn, o AcceptOptions) <-chan accepted {
	t.Helper()
	if o.Auth == nil {
		o.Auth = authenticator(t, Trust, nil)
	}
	if o.LoginTimeout == 0 {
		o.LoginTimeout = 5 * time.Second
	}
	done := make(chan accepted, 1)
	go func() {
		c, err := Accept(context.Background(), far, o)
		done <- accepted{c, err}
	}()
	return done
}

func opening(v Version, params ...string) []byte {
	var list []Param
	for i := 0; i+1 < len(params); i += 2 {
		list = append(list, Param{params[i], params[i+1]})
	}
	return appendStartup(nil, v, list)
}

func write(t *testing.T, c net.Conn, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
}

func wantBytes(t *testing.T, c io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v, want %q", got, err, want)
	}
}

// wantError reads an ErrorResponse of that code.
func wantError(t *testing.T, c io.Reader, code string) {
	t.Helper()
	kind, body, err := readMessage(c, maxReply)
	if err != nil || kind != 'E' {
		t.Fatalf("read %q %q, %v, want an error %s", kind, body, err, code)
	}
	if e, err := ParseError(body); err != nil || e.Code != code || e.Severity != "FATAL" {
		t.Errorf("%v, %v, want code %s", e, err, code)
	}
}

func request(code uint32) []byte { return appendRequest(nil, code) }

func TestStartup(t *testing.T) {
	for _, c := range []struct {
		name    string
		send    []byte
		want    Client
		unsent  string
		refused string
	}{
		{"plain", opening(Version30, "user", "u", "database", "d", "application_name", "a", "options", "-c x=1"),
			Client{User: "u", Database: "d", Version: Version30, Params: []Param{{"application_name", "a"}, {"options", "-c x=1"}}}, "", ""},
		{"database is the user", opening(Version32, "user", "u"), Client{User: "u", Database: "u", Version: Version32}, "", ""},
		{"the last user counts", opening(Version30, "user", "v", "user", "u"), Client{User: "u", Database: "u", Version: Version30}, "", ""},
		{"newer minor version", opening(3<<16|9999, "user", "u"), Client{User: "u", Database: "u", Version: Version32},
			"v\x00\x00\x00\x0c\x00\x03\x00\x02\x00\x00\x00\x00", ""},
		{"unknown option", opening(Version30, "_pq_.x", "1", "user", "u"), Client{User: "u", Database: "u", Version: Version30},
			"v\x00\x00\x00\x13\x00\x03\x00\x00\x00\x00\x00\x01_pq_.x\x00", ""},
		{"physical replication", opening(Version30, "user", "u", "replication", "true"),
			Client{User: "u", Database: "u", Version: Version30, Replication: true, Params: []Param{{"replication", "true"}}}, "", ""},
		{"logical replication", opening(Version30, "user", "u", "replication", "database"),
			Client{User: "u", Database: "u", Version: Version30, Replication: true, Params: []Param{{"replication", "database"}}}, "", ""},
		{"no replication", opening(Version30, "user", "u", "replication", "off"),
			Client{User: "u", Database: "u", Version: Version30, Params: []Param{{"replication", "off"}}}, "", ""},
		{"odd replication", opening(Version30, "user", "u", "replication", "o"), Client{}, "", "22023"},
		{"no user", opening(Version30, "database", "u"), Client{}, "", "28000"},
		{"nothing", opening(Version30), Client{}, "", "28000"},
		{"protocol 2", opening(2<<16, "user", "u"), Client{}, "", "0A000"},
		{"protocol 4", opening(4<<16, "user", "u"), Client{}, "", "0A000"},
		{"no end", appendOpening(nil, uint32(Version30), func(b []byte) []byte { return append(b, "user\x00u\x00"...) }), Client{}, "", "08P01"},
		{"more than the end", appendOpening(nil, uint32(Version30), func(b []byte) []byte { return append(b, "user\x00u\x00\x00x"...) }), Client{}, "", "08P01"},
	} {
		t.Run(c.name, func(t *testing.T) {
			near, done := accepting(t, AcceptOptions{})
			write(t, near, c.send)
			if c.refused != "" {
				wantError(t, near, c.refused)
				var r *Refused
				if got := <-done; !errors.As(got.err, &r) || r.Told.Code != c.refused {
					t.Errorf("%v", got.err)
				}
				return
			}
			got := <-done
			pgtest.Must(t, got.err)
			if unsent := string(got.client.Unsent); unsent != c.unsent+"R\x00\x00\x00\x08\x00\x00\x00\x00" {
				t.Errorf("unsent %q", unsent)
			}
			got.client.Conn, got.client.Unsent = nil, nil
			if !reflect.DeepEqual(*got.client, c.want) {
				t.Errorf("%+v\nwant %+v", *got.client, c.want)
			}
		})
	}
}

// TestGarbage: what is not PostgreSQL's protocol is dropped without an answer, and at once.
func TestGarbage(t *testing.T) {
	long := make([]byte, maxStartup+8)
	binary.BigEndian.PutUint32(long, uint32(len(long)))
	binary.BigEndian.PutUint32(long[4:], uint32(Version30))
	for name, send := range map[string]string{
		"HTTP": "GET / HTTP/1.1\r\n\r\n", "zeroes": "\x00\x00\x00\x00\x00\x00\x00\x00", "too short": "\x00\x00\x00\x07\x00\x03\x00\x00",
		"endless": "\xff\xff\xff\xff\x00\x03\x00\x00", "negative": "\x80\x00\x00\x00\x00\x03\x00\x00", "too long": string(long),
		"TLS without TLS": "\x16\x03\x01\x02\x00", "short cancel": "\x00\x00\x00\x0c\x04\xd2\x16\x2e\x00\x00\x00\x01",
		"long cancel": string(appendCancel(nil, CancelKey{Secret: make([]byte, maxCancelKey+1)})),
	} {
		near, done := accepting(t, AcceptOptions{})
		write(t, near, []byte(send))
		if got := <-done; got.err == nil || errors.Is(got.err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v", name, got.err)
		}
		if rest, _ := io.ReadAll(near); len(rest) > 0 {
			t.Errorf("%s is answered %q", name, rest)
		}
	}
}

func TestHalfAStartup(t *testing.T) {
	whole := opening(Version30, "user", "u")
	for n := range len(whole) {
		near, done := accepting(t, AcceptOptions{})
		write(t, near, whole[:n])
		near.Close()
		want := io.ErrUnexpectedEOF
		if n == 0 {
			want = io.EOF
		}
		if got := <-done; !errors.Is(got.err, want) || n > 0 && errors.Is(got.err, io.EOF) {
			t.Errorf("after %d bytes: %v", n, got.err)
		}
	}
}

func TestSlowClients(t *testing.T) {
	o := AcceptOptions{LoginTimeout: 300 * time.Millisecond}
	near, done := accepting(t, o)
	for _, b := range opening(Version30, "user", "u")[:12] {
		write(t, near, []byte{b})
		time.Sleep(30 * time.Millisecond)
		if len(done) > 0 {
			break
		}
	}
	if got := <-done; !errors.Is(got.err, os.ErrDeadlineExceeded) || !errors.Is(got.err, context.DeadlineExceeded) {
		t.Errorf("a byte now and then: %v", got.err)
	}

	o.Auth = authenticator(t, SCRAM, nil)
	near, done = accepting(t, o)
	write(t, near, opening(Version30, "user", "u"))
	if kind, _, err := readMessage(near, maxReply); kind != 'R' || err != nil {
		t.Fatalf("%q, %v", kind, err)
	}
	wantError(t, near, "57014")
	if got := <-done; !errors.Is(got.err, os.ErrDeadlineExceeded) {
		t.Errorf("no password: %v", got.err)
	}
}

func TestAcceptEndsWithItsContext(t *testing.T) {
	_, far := pair(t)
	ctx, cancel := context.WithCancelCause(context.Background())
	why := errors.New("the proxy stops")
	time.AfterFunc(50*time.Millisecond, func() { cancel(why) })
	if _, err := Accept(ctx, far, AcceptOptions{Auth: authenticator(t, Trust, nil)}); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
}

func TestCancelRequests(t *testing.T) {
	for _, n := range []int{4, 32, maxCancelKey} {
		key := CancelKey{PID: 4711, Secret: []byte(strings.Repeat("k", n))}
		near, done := accepting(t, AcceptOptions{SSLMode: SSLRequire, TLS: &tls.Config{}})
		write(t, near, appendCancel(nil, key))
		if got := <-done; got.err != nil || !reflect.DeepEqual(got.client.Cancel, &key) {
			t.Errorf("%d bytes: %+v", n, got)
		}
	}
}

func TestAdmit(t *testing.T) {
	near, done := accepting(t, AcceptOptions{Auth: authenticator(t, SCRAM, nil), Admit: func(_ context.Context, c *Client) *Error {
		return &Error{Code: "53300", Message: "no more connections for " + c.Database, Hint: "wait"}
	}})
	write(t, near, opening(Version30, "user", "u", "database", "d"))
	wantError(t, near, "53300")
	if got := <-done; got.err == nil || !strings.Contains(got.err.Error(), "no more connections for d") {
		t.Errorf("%v", got.err)
	}
}

// TestNothingIsReadAhead: what a client sends before it is answered comes out of Conn, plain and over TLS.
func TestNothingIsReadAhead(t *testing.T) {
	ca := pgtest.NewAuthority(t)
	config := &tls.Config{Certificates: []tls.Certificate{ca.Issue("pooler")}}
	for _, encrypted := range []bool{false, true} {
		near, done := accepting(t, AcceptOptions{SSLMode: SSLAllow, TLS: config})
		conn := near
		if encrypted {
			conn = tls.Client(near, &tls.Config{RootCAs: ca.Pool, InsecureSkipVerify: true, NextProtos: []string{alpn}})
		}
		write(t, conn, append(opening(Version30, "user", "u"), "Q\x00\x00\x00\x0dselect 1\x00"...))
		got := <-done
		pgtest.Must(t, got.err)
		wantBytes(t, got.client.Conn, "Q\x00\x00\x00\x0dselect 1\x00")
	}
}

func TestRequestsForEncryption(t *testing.T) {
	start := string(opening(Version30, "user", "u"))

	near, done := accepting(t, AcceptOptions{})
	write(t, near, request(codeGSS))
	wantBytes(t, near, "N")
	write(t, near, request(codeSSL))
	wantBytes(t, near, "N")
	write(t, near, []byte(start))
	pgtest.Must(t, (<-done).err)

	for _, code := range []uint32{codeGSS, codeSSL} { // never twice
		near, done = accepting(t, AcceptOptions{})
		write(t, near, request(code))
		wantBytes(t, near, "N")
		write(t, near, request(code))
		wantError(t, near, "0A000")
		if got := <-done; got.err == nil {
			t.Errorf("asked for twice: %x", code)
		}
	}
}

// TestPlainBytesBehindARequestForTLS: somebody in between puts a startup packet where the TLS handshake belongs.
func TestPlainBytesBehindARequestForTLS(t *testing.T) {
	ca := pgtest.NewAuthority(t)
	config := &tls.Config{Certificates: []tls.Certificate{ca.Issue("pooler")}}
	near, done := accepting(t, AcceptOptions{SSLMode: SSLAllow, TLS: config})
	write(t, near, append(request(codeSSL), opening(Version30, "user", "u")...))
	wantBytes(t, near, "S")
	if got := <-done; got.err == nil || !strings.Contains(got.err.Error(), "TLS handshake") {
		t.Errorf("%v", got.err)
	}
	if rest, _ := io.ReadAll(near); strings.Contains(string(rest), "R\x00") {
		t.Errorf("answered %q", rest)
	}
}

func TestDirectTLS(t *testing.T) {
	ca := pgtest.NewAuthority(t)
	config := &tls.Config{Certificates: []tls.Certificate{ca.Issue("pooler")}}
	start := opening(Version30, "user", "u")
	dial := func(o AcceptOptions, protocols ...string) (*tls.Conn, <-chan accepted) {
		near, done := accepting(t, o)
		return tls.Client(near, &tls.Config{InsecureSkipVerify: true, NextProtos: protocols}), done
	}
	on := AcceptOptions{SSLMode: SSLRequire, TLS: config}
	conn, done := dial(on, alpn)
	write(t, conn, start)
	if got := <-done; got.err != nil || got.client.TLS == nil {
		t.Errorf("%+v", got)
	}
	conn, done = dial(on)
	_ = conn.Handshake()
	if got := <-done; got.err == nil || !strings.Contains(got.err.Error(), "ALPN") {
		t.Errorf("without ALPN: %v", got.err)
	}
	conn, done = dial(on, "http/1.1")
	if err := conn.Handshake(); err == nil {
		t.Error("a client of another protocol finishes the handshake")
	}
	if got := <-done; got.err == nil {
		t.Error("a client of another protocol is let in")
	}
	conn, done = dial(on, alpn)
	write(t, conn, request(codeSSL)) // TLS in TLS
	wantError(t, conn, "0A000")
	if got := <-done; got.err == nil {
		t.Error("TLS within TLS")
	}
	conn, done = dial(on, alpn)
	write(t, conn, appendCancel(nil, CancelKey{1, []byte("four")}))
	if got := <-done; got.err != nil || got.client.Cancel == nil {
		t.Errorf("a cancel request over TLS: %+v", got)
	}
}

func TestUnixSockets(t *testing.T) {
	me, err := user.Current()
	pgtest.Must(t, err)
	ca := pgtest.NewAuthority(t)
	config := &tls.Config{Certificates: []tls.Certificate{ca.Issue("pooler")}}
	rules, err := ParseRules("hba", "local all all peer\nhost all all all trust")
	pgtest.Must(t, err)
	auth, err := NewAuthenticator(AuthOptions{Rules: rules})
	pgtest.Must(t, err)
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	pgtest.Must(t, err)
	defer l.Close()
	for _, name := range []string{me.Username, "somebody"} {
		near, err := net.Dial("unix", l.Addr().String())
		pgtest.Must(t, err)
		t.Cleanup(func() { near.Close() })
		far, err := l.Accept()
		pgtest.Must(t, err)
		done := acceptOn(t, far, AcceptOptions{SSLMode: SSLRequire, TLS: config, Auth: auth})
		write(t, near, request(codeSSL))
		wantBytes(t, near, "N")
		write(t, near, opening(Version30, "user", name))
		got := <-done
		if (got.err == nil) != (name == me.Username) {
			t.Errorf("%s as %s: %v", me.Username, name, got.err)
		}
		if got.err != nil {
			wantError(t, near, "28000")
			continue
		}
		got.client.Conn.Close()
	}
}

func TestValidate(t *testing.T) {
	auth := authenticator(t, Trust, nil)
	for i, o := range []AcceptOptions{{}, {Auth: auth, SSLMode: SSLRequire}, {Auth: auth, SSLMode: SSLVerifyCA, TLS: &tls.Config{}}, {Auth: auth, SSLMode: "yes"}} {
		if o.Validate() == nil {
			t.Errorf("%d: valid", i)
		}
	}
	o := AcceptOptions{Auth: auth}
	pgtest.Must(t, o.Validate())
	if _, err := NewAuthenticator(AuthOptions{Method: "hba"}); err == nil {
		t.Error("hba without rules")
	}
	for word, want := range map[string]Method{"plain": Password, "any": Trust, "md5": MD5} {
		if got, err := ParseMethod(word); got != want || err != nil {
			t.Errorf("%s: %s, %v", word, got, err)
		}
	}
}

type broken struct{}

func (broken) Secret(context.Context, string) (Secret, error) { return Secret{}, io.ErrClosedPipe }

func TestALookupThatFails(t *testing.T) {
	near, done := accepting(t, AcceptOptions{Auth: authenticator(t, SCRAM, First(users(t, `"u" "x"`), broken{}))})
	write(t, near, opening(Version30, "user", "v"))
	wantError(t, near, "57P03")
	if got := <-done; !errors.Is(got.err, io.ErrClosedPipe) {
		t.Errorf("%v", got.err)
	}
}

type tooSlow struct{}

func (tooSlow) Secret(context.Context, string) (Secret, error) {
	return Secret{}, fmt.Errorf("ask: %w", os.ErrDeadlineExceeded)
}

// TestALookupThatIsCutIsNotTheEndOfTheLoginsTime: the client is told at once.
func TestALookupThatIsCutIsNotTheEndOfTheLoginsTime(t *testing.T) {
	for _, limit := range []time.Duration{time.Minute, -1} { // -1: none
		near, done := accepting(t, AcceptOptions{Auth: authenticator(t, SCRAM, tooSlow{}), LoginTimeout: limit})
		write(t, near, opening(Version30, "user", "v"))
		wantError(t, near, "57P03")
		if got := <-done; !errors.Is(got.err, os.ErrDeadlineExceeded) || errors.Is(got.err, context.DeadlineExceeded) {
			t.Errorf("%v", got.err)
		}
	}
}

func TestMalformedPasswords(t *testing.T) {
	for name, message := range map[string]string{
		"no zero": "p\x00\x00\x00\x05x", "zero inside": "p\x00\x00\x00\x07x\x00\x00", "another type": "Q\x00\x00\x00\x05\x00",
		"too long": "p\x7f\x00\x00\x00", "too short": "p\x00\x00\x00\x03",
	} {
		near, done := accepting(t, AcceptOptions{Auth: authenticator(t, Password, users(t, `"u" "x"`))})
		write(t, near, append(opening(Version30, "user", "u"), message...))
		if kind, _, err := readMessage(near, maxReply); kind != 'R' || err != nil {
			t.Fatalf("%q, %v", kind, err)
		}
		wantError(t, near, "08P01")
		if got := <-done; got.err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	secret := ParseSecret("geheim")
	c := Credential{Password: "geheim", MD5: "geheim", SCRAM: &SCRAMKeys{ClientKey: []byte("geheim")}}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		for _, v := range []any{secret, &secret, c, &c, c.SCRAM, *c.SCRAM, Client{Credential: c}, LoginOptions{Credential: c}} {
			if text := fmt.Sprintf(format, v); strings.Contains(text, "geheim") || strings.Contains(text, "67 65 68") || strings.Contains(text, "103 101 104") {
				t.Errorf("%s of %T: %s", format, v, text)
			}
		}
	}
}
