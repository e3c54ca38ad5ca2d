package pgwire

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/postgres/pgtest"
)

// fakeServer plays the server's part at the far end of a connection, and Login ours.
func fakeServer(t *testing.T, o LoginOptions, play func(net.Conn)) (*Server, error) {
	t.Helper()
	near, far := pair(t)
	done := make(chan struct{})
	go func() {
		defer close(done)
		far.SetDeadline(time.Now().Add(5 * time.Second))
		play(far)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if o.User == "" {
		o.User = "u"
	}
	t.Cleanup(func() {
		near.Close()
		<-done
	})
	return Login(ctx, near, o)
}

// startupOf reads a startup packet, and gives its bytes.
func startupOf(c net.Conn) string {
	var first [1]byte
	if _, err := io.ReadFull(c, first[:]); err != nil {
		return ""
	}
	_, rest, _ := readOpening(c, first[0])
	return string(rest)
}

const (
	admitted = "R\x00\x00\x00\x08\x00\x00\x00\x00"
	ready    = "Z\x00\x00\x00\x05I"
	askMD5   = "R\x00\x00\x00\x0c\x00\x00\x00\x05salt"
)

func TestLoginAtFakeServers(t *testing.T) {
	password := Credential{Password: "p"}
	long := string(AppendBackendKeyData(nil, CancelKey{7, []byte(strings.Repeat("k", 256))}))
	for _, c := range []struct {
		name   string
		answer string
		o      LoginOptions
		want   string // in the error; empty: none
	}{
		{"trust", admitted + ready, LoginOptions{}, ""},
		{"a long key", admitted + long + ready, LoginOptions{Version: Version32}, ""},
		{"a key too long", admitted + string(AppendBackendKeyData(nil, CancelKey{7, make([]byte, 257)})) + ready, LoginOptions{}, "cancel key"},
		{"a key too short", admitted + string(AppendBackendKeyData(nil, CancelKey{7, make([]byte, 3)})) + ready, LoginOptions{}, "cancel key"},
		{"an older version", "v\x00\x00\x00\x0c\x00\x03\x00\x00\x00\x00\x00\x00" + admitted + ready, LoginOptions{Version: Version32}, ""},
		{"a newer version", "v\x00\x00\x00\x0c\x00\x03\x00\x02\x00\x00\x00\x00" + admitted + ready, LoginOptions{}, "speaks protocol 3.2"},
		{"another protocol", "v\x00\x00\x00\x0c\x00\x02\x00\x00\x00\x00\x00\x00" + admitted + ready, LoginOptions{}, "speaks protocol 2.0"},
		{"unknown options", "v\x00\x00\x00\x0c\x00\x03\x00\x00\x00\x00\x00\x01" + admitted + ready, LoginOptions{}, "options"},
		{"notices", string(AppendNotice(nil, &Error{Message: "x"})) + admitted + string(AppendNotice(nil, &Error{Message: "x"})) + ready, LoginOptions{}, ""},
		{"an error after admission", admitted + string(AppendErrorResponse(nil, &Error{Code: "3D000", Message: "no such database", Hint: "h"})), LoginOptions{}, "3D000"},
		{"settings before admission", string(AppendParameterStatus(nil, "a", "b")) + admitted + ready, LoginOptions{}, "before it has admitted us"},
		{"ready before admission", ready, LoginOptions{}, "before it has admitted us"},
		{"admitted twice", admitted + admitted + ready, LoginOptions{}, "malformed authentication"},
		{"in a transaction", admitted + "Z\x00\x00\x00\x05T", LoginOptions{}, "state"},
		{"a row", admitted + "D\x00\x00\x00\x06\x00\x00", LoginOptions{}, "during the login"},
		{"GSSAPI", "R\x00\x00\x00\x08\x00\x00\x00\x07", LoginOptions{Credential: password}, "code 7"},
		{"SASL that nobody knows", "R\x00\x00\x00\x0f\x00\x00\x00\x0aOAUTH\x00\x00"[:16] + "\x00", LoginOptions{Credential: password}, "none of the server's"},
		{"admitted in the middle of SCRAM", string(appendAuth(nil, authSASL, mechanismList([]string{mechanism}))) + admitted + ready, LoginOptions{Credential: password}, ErrImposter.Error()},
		{"SCRAM twice", strings.Repeat(string(appendAuth(nil, authSASL, mechanismList([]string{mechanism}))), 2), LoginOptions{Credential: password}, "second"},
		{"SCRAM from the middle", string(appendAuth(nil, authSASLContinue, []byte("r=x"))), LoginOptions{Credential: password}, "there is not"},
		{"SCRAM from the end", string(appendAuth(nil, authSASLFinal, []byte("v=x"))), LoginOptions{Credential: password}, "there is not"},
		{"MD5 without salt", "R\x00\x00\x00\x08\x00\x00\x00\x05", LoginOptions{Credential: password}, "malformed"},
		{"MD5", askMD5 + admitted + ready, LoginOptions{Credential: password}, ""},
		{"a huge message", "S\x7f\xff\xff\xff", LoginOptions{}, "too long"},
		{"a negative length", "S\xff\xff\xff\xff", LoginOptions{}, "too long"},
		{"a short length", "S\x00\x00\x00\x03", LoginOptions{}, "too early"},
		{"HTTP", "HTTP/1.1 400 Bad Request\r\n\r\n", LoginOptions{}, "too long"},
		{"endless notices", strings.Repeat(string(AppendNotice(nil, &Error{Message: "x"})), maxReplies+1), LoginOptions{}, "without end"},
		{"nothing", "", LoginOptions{}, "EOF"},
		{"half a message", admitted + "Z\x00\x00", LoginOptions{}, "EOF"},
		{"too many parameters", "", LoginOptions{Params: []Param{{"options", strings.Repeat("x", maxStartup)}}}, "too long"},
	} {
		s, err := fakeServer(t, c.o, func(conn net.Conn) {
			if startupOf(conn) != "" {
				_, _ = io.WriteString(conn, c.answer)
			}
			_ = conn.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, conn)
		})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if s != nil {
			s.Conn.Close()
		}
	}
}

func TestLoginLeavesWhatFollows(t *testing.T) {
	notice := string(AppendNotice(nil, &Error{Message: "later"}))
	s, err := fakeServer(t, LoginOptions{}, func(conn net.Conn) {
		startupOf(conn)
		_, _ = io.WriteString(conn, admitted+ready+notice)
	})
	pgtest.Must(t, err)
	wantBytes(t, s.Conn, notice)
}

func TestLoginIsBoundedInTime(t *testing.T) {
	near, far := pair(t)
	go func() {
		startupOf(far)
		for range 100 { // slowly, but it never stops
			if _, err := far.Write(AppendNotice(nil, &Error{Message: "x"})); err != nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 150*time.Millisecond)
	defer cancel()
	if _, err := Login(ctx, near, LoginOptions{User: "u"}); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v", err)
	}
}

func TestTLSAtFakeServers(t *testing.T) {
	ca := pgtest.NewAuthority(t)
	commonName := &tls.Config{Certificates: []tls.Certificate{ca.Issue("db.example")}}
	trusting := &tls.Config{RootCAs: ca.Pool}
	for _, c := range []struct {
		name, answer string
		o            LoginOptions
		want         string
	}{
		{"no TLS, required", "N", LoginOptions{SSLMode: SSLRequire}, ErrNoTLS.Error()},
		{"no TLS, preferred", "N", LoginOptions{SSLMode: SSLPrefer}, ""},
		{"an error", "E", LoginOptions{SSLMode: SSLPrefer}, "answers a request for TLS"},
		{"plain bytes behind the answer", "S" + admitted + ready, LoginOptions{SSLMode: SSLRequire}, "TLS handshake"},
		{"only a common name", "S", LoginOptions{SSLMode: SSLVerifyFull, TLS: trusting, Host: "DB.example"}, ""},
		{"another common name", "S", LoginOptions{SSLMode: SSLVerifyFull, TLS: trusting, Host: "db2.example"}, "certificate"},
	} {
		s, err := fakeServer(t, c.o, func(conn net.Conn) {
			var ask [8]byte
			_, _ = io.ReadFull(conn, ask[:])
			_, _ = io.WriteString(conn, c.answer)
			if c.answer == "S" {
				conn = tls.Server(conn, commonName)
			}
			if c.answer == "S" || c.answer == "N" {
				startupOf(conn)
				_, _ = io.WriteString(conn, admitted+ready)
			}
		})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if s != nil {
			s.Conn.Close()
		}
	}
}

func TestStartupPacketOfALogin(t *testing.T) {
	packet := make(chan string, 1)
	s, err := fakeServer(t, LoginOptions{User: "u", Database: "d", Params: []Param{{"client_encoding", "UTF8"}}, Version: Version32}, func(conn net.Conn) {
		packet <- startupOf(conn)
		_, _ = io.WriteString(conn, admitted+string(AppendParameterStatus(AppendParameterStatus(AppendParameterStatus(nil, "a", "1"), "b", "2"), "a", "3"))+ready)
	})
	pgtest.Must(t, err)
	defer s.Conn.Close()
	if want := "user\x00u\x00database\x00d\x00client_encoding\x00UTF8\x00\x00"; <-packet != want {
		t.Errorf("want %q", want)
	}
	if len(s.Params) != 2 || s.Params[0] != (Param{"a", "3"}) {
		t.Errorf("%v", s.Params)
	}
}

func TestErrors(t *testing.T) {
	e := &Error{Severity: "ERROR", Code: "42601", Message: "syntax error", Detail: "d", Hint: "h", Other: []Field{{'P', "15"}}}
	again, err := ParseError(AppendErrorResponse(nil, e)[5:])
	if err != nil || again.Error() != "ERROR: syntax error (SQLSTATE 42601)" || again.Detail != "d" || again.Hint != "h" || len(again.Other) != 1 {
		t.Errorf("%+v, %v", again, err)
	}
	german, err := ParseError([]byte("SFEHLER\x00VERROR\x00C42601\x00\x00"))
	if err != nil || german.Severity != "ERROR" {
		t.Errorf("%+v, %v", german, err)
	}
	if _, err := ParseError([]byte("SERROR")); err == nil {
		t.Error("half an error")
	}
	if got := string(AppendErrorResponse(nil, &Error{Code: "1\x002", Message: "m"})); got != "E\x00\x00\x00\x19SFATAL\x00VFATAL\x00C1\x00Mm\x00\x00" {
		t.Errorf("%q", got)
	}
}
