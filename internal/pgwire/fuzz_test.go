package pgwire

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"strings"
	"testing"
	"time"
)

// canned is a connection whose other end has said all it will say.
type canned struct {
	bytes.Reader
	sent bytes.Buffer
}

func (c *canned) Write(p []byte) (int, error)      { return c.sent.Write(p) }
func (c *canned) Close() error                     { return nil }
func (c *canned) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *canned) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (c *canned) SetDeadline(time.Time) error      { return nil }
func (c *canned) SetReadDeadline(time.Time) error  { return nil }
func (c *canned) SetWriteDeadline(time.Time) error { return nil }

func can(said []byte) *canned {
	c := &canned{}
	c.Reset(said)
	return c
}

// plainSecrets knows everybody.
type plainSecrets struct{ secret Secret }

func (p plainSecrets) Secret(context.Context, string) (Secret, error) { return p.secret, nil }

func FuzzAccept(f *testing.F) {
	start := appendStartup(nil, Version30, []Param{{"user", "u"}})
	f.Add(byte(0), start)
	f.Add(byte(0), append(appendRequest(nil, codeSSL), start...))
	f.Add(byte(1), append(appendRequest(nil, codeGSS), start...))
	f.Add(byte(2), append(start, "p\x00\x00\x00\x06x\x00"...))
	f.Add(byte(3), append(start, "p\x00\x00\x00\x06x\x00"...))
	f.Add(byte(4), append(start, "p\x00\x00\x00\x2aSCRAM-SHA-256\x00\x00\x00\x00\x14n,,n=,r=0123456789ab"...))
	f.Add(byte(4), appendCancel(nil, CancelKey{1, []byte("four")}))
	f.Add(byte(1), []byte("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03"))
	methods := [...]Method{Trust, Cert, Password, MD5, SCRAM}
	secrets := plainSecrets{ParseSecret("x")}
	f.Fuzz(func(t *testing.T, which byte, said []byte) {
		auth, err := NewAuthenticator(AuthOptions{Method: methods[int(which)%len(methods)], Secrets: secrets})
		if err != nil {
			t.Fatal(err)
		}
		o := AcceptOptions{Auth: auth}
		if which >= 128 {
			o.TLS, o.SSLMode = &tls.Config{}, SSLAllow
		}
		conn := can(said)
		c, err := Accept(context.Background(), conn, o)
		if (c == nil) == (err == nil) {
			t.Errorf("%v, %v", c, err)
		}
		if c != nil && c.Cancel == nil && c.User == "" {
			t.Error("a client without user")
		}
		if conn.sent.Len() > maxStartup+1000 {
			t.Errorf("%d bytes are sent in answer to %d", conn.sent.Len(), len(said))
		}
	})
}

func FuzzLogin(f *testing.F) {
	f.Add([]byte(admitted + ready))
	f.Add([]byte(askMD5 + admitted + ready))
	f.Add(appendAuth(appendAuth(nil, authSASL, mechanismList([]string{mechanism})), authSASLContinue, []byte("r=x,s=AAAA,i=1")))
	f.Add(AppendBackendKeyData([]byte(admitted), CancelKey{1, []byte("four")}))
	f.Add(AppendErrorResponse(nil, &Error{Code: "28000", Message: "m"}))
	f.Add(appendNegotiation(nil, Version30, []string{"_pq_.x"}))
	f.Fuzz(func(t *testing.T, said []byte) {
		o := LoginOptions{User: "u", Credential: Credential{Password: "p"}, Version: Version32}
		s, err := Login(context.Background(), can(said), o)
		if (s == nil) == (err == nil) {
			t.Errorf("%v, %v", s, err)
		}
	})
}

func FuzzQuerySecret(f *testing.F) {
	f.Add([]byte("1\x00\x00\x00\x042\x00\x00\x00\x04D\x00\x00\x00\x10\x00\x02\x00\x00\x00\x01u\x00\x00\x00\x01x" + ready))
	f.Add([]byte("D\x00\x00\x00\x0f\x00\x02\x00\x00\x00\x01u\xff\xff\xff\xff" + ready))
	f.Add(append(AppendErrorResponse(nil, &Error{Severity: "ERROR"}), ready...))
	f.Fuzz(func(_ *testing.T, said []byte) {
		_, _ = QuerySecret(context.Background(), &Server{Conn: can(said)}, DefaultAuthQuery, "u")
	})
}

func FuzzStartup(f *testing.F) {
	f.Add([]byte("user\x00u\x00database\x00d\x00_pq_.x\x00y\x00replication\x00on\x00\x00"))
	f.Add([]byte("\x00"))
	f.Fuzz(func(t *testing.T, body []byte) {
		s, told := parseStartup(body)
		if told == nil && (s.user == "" || s.database == "") {
			t.Errorf("%+v", s)
		}
	})
}

func FuzzSASLInitial(f *testing.F) {
	f.Add([]byte("SCRAM-SHA-256\x00\x00\x00\x00\x01x"))
	f.Add([]byte("SCRAM-SHA-256\x00\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, body []byte) {
		if chosen, message, err := parseSASLInitial(body); err == nil && len(chosen)+len(message)+5 != len(body) {
			t.Errorf("%q, %q", chosen, message)
		}
	})
}

func FuzzClientMessages(f *testing.F) {
	f.Add("n,,n=,r=abc", "c=biws,r=abcdef,p=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
	f.Add("p=tls-server-end-point,,n=u,r=abc", "c=biws,r=,x=1,p=AAAA")
	f.Add("y,,m=", "v=")
	f.Fuzz(func(t *testing.T, firstMessage, lastMessage string) {
		for _, chosen := range []string{mechanism, mechanismPlus} {
			s := scramServer{verifier: &verifier{iterations: 1, salt: []byte("salt"), storedKey: make([]byte, 32), serverKey: make([]byte, 32)}, endPoint: []byte("x")}
			if _, err := s.begin(chosen, firstMessage); err != nil {
				continue
			}
			if !strings.HasPrefix(s.nonce, s.first.nonce) || s.first.header+s.first.bare != firstMessage {
				t.Errorf("%+v", s.first)
			}
			if _, _, err := s.end(lastMessage); err == nil {
				t.Error("a proof without the key")
			}
		}
	})
}

func FuzzServerMessages(f *testing.F) {
	f.Add("r=abc,s=AAAA,i=1", "v=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
	f.Add("r=,s=,i=", "e=other-error")
	f.Fuzz(func(t *testing.T, firstMessage, lastMessage string) {
		if m, err := parseServerFirst(firstMessage); err == nil && (m.iterations < 1 || len(m.salt) == 0 || m.nonce == "") {
			t.Errorf("%+v", m)
		}
		if signature, err := parseServerFinal(lastMessage); err == nil && len(signature) != 32 {
			t.Errorf("%q", signature)
		}
	})
}

func FuzzSecret(f *testing.F) {
	f.Add("SCRAM-SHA-256$4096:AAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")
	f.Add("md5d41d8cd98f00b204e9800998ecf8427e")
	f.Add("geheim")
	f.Fuzz(func(t *testing.T, text string) {
		s := ParseSecret(text)
		if (s.kind() == "none") != (text == "") {
			t.Errorf("%q is of kind %s", text, s.kind())
		}
		if s.stored {
			if again, ok := parseVerifier(s.scram().String()); !ok || again.String() != s.scram().String() {
				t.Errorf("%q", text)
			}
		}
	})
}

func FuzzUsers(f *testing.F) {
	f.Add("; c\n\"a\" \"b\"\"c\" d\n")
	f.Add("\"a\"")
	f.Fuzz(func(t *testing.T, text string) {
		users, err := parseUsers("f", text)
		if _, empty := users[""]; err != nil && users != nil || empty {
			t.Errorf("%v, %v", users, err)
		}
	})
}

func FuzzRules(f *testing.F) {
	f.Add(hbaFile)
	f.Add("host a,b \"c\"d ::1/128 md5 clientcert=verify-ca\\\n")
	f.Fuzz(func(t *testing.T, text string) {
		rules, err := ParseRules("f", text)
		if err != nil {
			return
		}
		if m, ok := rules.match(candidate{user: "u", database: "d"}); ok && m == "" {
			t.Error("a rule without method")
		}
	})
}

func FuzzError(f *testing.F) {
	f.Add([]byte("SFATAL\x00VFATAL\x00C28000\x00Mm\x00Dd\x00Hh\x00F\x00\x00"))
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := ParseError(body)
		if err != nil {
			return
		}
		if _, err := ParseError(AppendErrorResponse(nil, e)[5:]); err != nil {
			t.Errorf("%+v: %v", e, err)
		}
	})
}

func FuzzSASLprep(f *testing.F) {
	f.Add(kelvin)
	f.Fuzz(func(t *testing.T, password string) {
		if password != "" && saslprep(password) == "" {
			t.Errorf("%+q becomes empty", password)
		}
	})
}
