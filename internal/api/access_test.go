package api

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/dcs/dcstest"
)

func TestAccess(t *testing.T) {
	withAPI := leader(t)
	withAPI.Snapshot.Members = []cluster.Member{{Name: "db2", APIURL: "http://127.0.0.1:8008/patroni"}}
	tests := []struct {
		name       string
		change     func(*config.RESTAPI)
		user, pass string
		code       int
		text       string
	}{
		{"open", nil, "", "", 202, "reload scheduled"},
		{"no header", func(r *config.RESTAPI) { r.Username, r.Password = "haven", "s3cret" }, "", "", 401, "no auth header received"},
		{"wrong password", func(r *config.RESTAPI) { r.Username, r.Password = "haven", "s3cret" }, "haven", "no", 401, "not authenticated"},
		{"right password", func(r *config.RESTAPI) { r.Username, r.Password = "haven", "s3cret" }, "haven", "s3cret", 202, "reload scheduled"},
		{"on the list", func(r *config.RESTAPI) { r.AllowList = []string{"10.0.0.0/8", "127.0.0.0/8"} }, "", "", 202, "reload scheduled"},
		{"on the list by name", func(r *config.RESTAPI) { r.AllowList = []string{"localhost"} }, "", "", 202, "reload scheduled"},
		{"not on the list", func(r *config.RESTAPI) { r.AllowList = []string{"10.0.0.1"} }, "", "", 403, "Access is denied"},
		{"a member", func(r *config.RESTAPI) { r.AllowList, r.AllowListIncludeMembers = []string{"10.0.0.1"}, true }, "", "", 202, "reload scheduled"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t, withAPI, nil, tt.change)
			req, err := http.NewRequest("POST", "http://"+b.server.Addr().String()+"/reload", nil)
			if err != nil {
				t.Fatal(err)
			}
			if tt.user != "" {
				req.SetBasicAuth(tt.user, tt.pass)
			}
			resp, err := b.http.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body := make([]byte, 100)
			n, _ := resp.Body.Read(body)
			if resp.StatusCode != tt.code || string(body[:n]) != tt.text {
				t.Errorf("%d %q, want %d %q", resp.StatusCode, body[:n], tt.code, tt.text)
			}
			if tt.code == 401 && resp.Header.Get("WWW-Authenticate") != `Basic realm="Patroni"` {
				t.Errorf("the answer does not ask for a login: %v", resp.Header)
			}
			if tt.code == 202 {
				<-b.wakes
			}
			if code, _, _ := b.do("GET", "/primary", ""); code != 200 {
				t.Errorf("a health check was refused: %d", code)
			}
		})
	}
}

// POST /failsafe is asked when nothing else works: the members' addresses do not keep it out, a list of the operator's does.
func TestFailsafeIsNotForMembersAddressesOnly(t *testing.T) {
	l := leader(t)
	for _, tt := range []struct {
		list             []string
		member           string
		failsafe, reload bool
	}{
		{nil, "10.0.0.1", true, false},
		{[]string{"10.0.0.2"}, "10.0.0.1", false, false},
		{[]string{"10.0.0.2"}, "127.0.0.1", true, true},
	} {
		l.Snapshot.Members = []cluster.Member{{Name: "db2", APIURL: "http://" + tt.member + ":8008/patroni"}}
		b := newBench(t, l, nil, func(r *config.RESTAPI) { r.AllowList, r.AllowListIncludeMembers = tt.list, true })
		if code, body, _ := b.do("POST", "/failsafe", `{}`); (code != 403) != tt.failsafe {
			t.Errorf("failsafe with %+v: %d %s", tt, code, body)
		}
		if code, _, _ := b.do("POST", "/reload", ""); (code != 403) != tt.reload {
			t.Errorf("reload with %+v: %d", tt, code)
		}
	}
}

// No error of the client has the login of the address that was asked.
func TestErrorsHaveNoPassword(t *testing.T) {
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()
	client, err := NewClient(config.CTL{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, base := range []string{strings.Replace(other.URL, "http://", "http://haven:s3cret@", 1), "http://haven:s3cret@[::1", "haven:s3cret@db1:8008", "http://haven:s3cret@127.0.0.1:1"} {
		if _, err := client.Status(t.Context(), base); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", base, err)
		}
	}
}

func TestUnknownActionsAndBodies(t *testing.T) {
	b := newBench(t, leader(t), nil, func(r *config.RESTAPI) {
		r.ServerTokens, r.HTTPExtraHeaders = "minimal", map[string]string{"X-Zone": "a"}
	})
	for _, c := range []struct {
		method, path, body string
		want               int
	}{
		{"POST", "/nothing", "", 501}, {"DELETE", "/config", "", 501}, {"PATCH", "/config", "", 400}, {"PATCH", "/config", "{}", 400},
		{"PATCH", "/config", "no", 400}, {"PUT", "/config", "[1]", 400}, {"POST", "/switchover", "{", 400}, {"POST", "/switchover", "{} {}", 400},
	} {
		code, body, h := b.do(c.method, c.path, c.body)
		if code != c.want || !strings.Contains(body, "Error code: ") || !strings.HasPrefix(h.Get("Content-Type"), "text/html") {
			t.Errorf("%s %s %q: %d %s, want an error page with %d", c.method, c.path, c.body, code, body, c.want)
		}
		if h.Get("Server") != "Patroni/4.1.4" || h.Get("X-Zone") != "a" {
			t.Errorf("headers %v", h)
		}
	}
}

func TestPortInUse(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, err = New(Options{Node: &config.RESTAPI{Listen: ln.Addr().String()}, Source: &fixed{}})
	if err == nil || !strings.Contains(err.Error(), "cannot listen on "+ln.Addr().String()) || !strings.Contains(err.Error(), "set restapi.listen") {
		t.Errorf("the error does not help: %v", err)
	}
}

// pairFiles writes a self-signed certificate for 127.0.0.1, which is its own authority.
func pairFiles(t *testing.T, serial int64) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "haven"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "EC PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

func TestTLS(t *testing.T) {
	cert, key := pairFiles(t, 1)
	b := newBench(t, leader(t), nil, func(r *config.RESTAPI) {
		r.CertFile, r.KeyFile, r.CAFile, r.VerifyClient = cert, key, cert, "optional"
		r.HTTPSExtraHeaders = map[string]string{"Strict-Transport-Security": "max-age=1"}
	})
	serial := func(c *Client) int64 {
		t.Helper()
		resp, err := c.http.Get("https://" + b.server.Addr().String() + "/primary")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != 200 || resp.Header.Get("Strict-Transport-Security") != "max-age=1" {
			t.Errorf("%d %v", resp.StatusCode, resp.Header)
		}
		return resp.TLS.PeerCertificates[0].SerialNumber.Int64()
	}
	base := "https://" + b.server.Addr().String()
	plain, err := NewClient(config.CTL{CACert: cert}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := serial(plain); got != 1 {
		t.Errorf("serial %d", got)
	}
	if a, err := plain.Do(t.Context(), "POST", base, "/reload", nil); err != nil || a.Code != 403 || a.Text() != "client certificate required" {
		t.Errorf("an action without a client's certificate: %+v %v", a, err)
	}
	sure, err := NewClient(config.CTL{CACert: cert, CertFile: cert, KeyFile: key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := sure.Do(t.Context(), "POST", base, "/reload", nil); err != nil || a.Code != 202 {
		t.Errorf("an action with a client's certificate: %+v %v", a, err)
	}

	next, nextKey := pairFiles(t, 2)
	if err := b.server.Reload(&config.RESTAPI{Listen: "127.0.0.1:0", CertFile: next, KeyFile: next}); err == nil {
		t.Error("a certificate without a key was taken into use")
	}
	reloaded := *b.server.current().node
	reloaded.CertFile, reloaded.KeyFile = next, nextKey
	if err := b.server.Reload(&reloaded); err != nil {
		t.Fatal(err)
	}
	insecure, err := NewClient(config.CTL{Insecure: true}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := serial(insecure); got != 2 {
		t.Errorf("after the reload the certificate has serial %d", got)
	}
}

// With verify_client required nobody gets past the handshake without a certificate, not even for reading.
func TestClientCertificateIsRequired(t *testing.T) {
	cert, key := pairFiles(t, 1)
	b := newBench(t, leader(t), nil, func(r *config.RESTAPI) {
		r.CertFile, r.KeyFile, r.CAFile, r.VerifyClient = cert, key, cert, "required"
	})
	base := "https://" + b.server.Addr().String()
	for name, c := range map[string]struct {
		ctl config.CTL
		ok  bool
	}{
		"no certificate": {config.CTL{CACert: cert}, false},
		"one of ours":    {config.CTL{CACert: cert, CertFile: cert, KeyFile: key}, true},
	} {
		client, err := NewClient(c.ctl, nil)
		if err != nil {
			t.Fatal(err)
		}
		if a, err := client.Do(t.Context(), "GET", base, "/primary", nil); (err == nil) != c.ok || c.ok && a.Code != 200 {
			t.Errorf("%s: %d %v", name, a.Code, err)
		}
	}
	strange, strangeKey := pairFiles(t, 2)
	client, err := NewClient(config.CTL{CACert: cert, CertFile: strange, KeyFile: strangeKey}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if a, err := client.Do(t.Context(), "GET", base, "/primary", nil); err == nil {
		t.Errorf("a certificate of somebody else's was taken: %d", a.Code)
	}
}

func TestReloadMovesTheListener(t *testing.T) {
	b := newBench(t, leader(t), nil, nil)
	former := b.server.Addr().String()
	moved := *b.server.current().node
	moved.Listen = "localhost:0"
	if err := b.server.Reload(&moved); err != nil {
		t.Fatal(err)
	}
	if b.server.Addr().String() == former {
		t.Error("the address is the former one")
	}
	if code, _, _ := b.do("GET", "/primary", ""); code != 200 {
		t.Errorf("the new address answers %d", code)
	}
	if _, err := net.DialTimeout("tcp", former, time.Second); err == nil {
		t.Error("the former address is still open")
	}
}

// An address that holds the other, on the same port, cannot be listened on beside it.
func TestReloadNarrowsTheListener(t *testing.T) {
	_, port, _ := net.SplitHostPort(dcstest.FreeAddress(t))
	b := newBench(t, leader(t), nil, func(r *config.RESTAPI) { r.Listen = "0.0.0.0:" + port })
	for _, address := range []string{"0.0.0.0:" + port, "127.0.0.1:" + port, "*:" + port} {
		moved := *b.server.current().node
		moved.Listen = address
		if err := b.server.Reload(&moved); err != nil {
			t.Errorf("%s: %v", address, err)
		}
		if code, _, _ := b.do("GET", "/primary", ""); code != 200 {
			t.Errorf("%s answers %d", address, code)
		}
	}
	moved := *b.server.current().node
	moved.Listen = "192.0.2.1:" + port // nobody's (RFC 5737)
	if err := b.server.Reload(&moved); err == nil {
		t.Error("an address that is none of ours was taken")
	}
	if code, _, _ := b.do("GET", "/primary", ""); code != 200 {
		t.Errorf("after an address that is none of ours: %d", code)
	}
}

func TestOpenSSLNames(t *testing.T) {
	for in, want := range map[string]string{
		tls.CipherSuiteName(tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256):         "ECDHE-RSA-AES128-GCM-SHA256",
		tls.CipherSuiteName(tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256): "ECDHE-ECDSA-CHACHA20-POLY1305",
	} {
		if got := opensslName(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// TestTLSIsRequiredOfOldConnections: a connection from before TLS was switched on is answered no more, or it would get around the
// client's certificate.
func TestTLSIsRequiredOfOldConnections(t *testing.T) {
	b := newBench(t, leader(t), nil, nil)
	conn, err := net.Dial("tcp", b.server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answers := bufio.NewReader(conn)
	ask := func() *http.Response {
		t.Helper()
		if _, err := conn.Write([]byte("POST /reload HTTP/1.1\r\nHost: a\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp
	}
	if resp := ask(); resp.StatusCode != 202 {
		t.Fatalf("before: %s", resp.Status)
	}
	secured := *b.server.current().node
	secured.CertFile, secured.KeyFile = pairFiles(t, 1)
	secured.CAFile, secured.VerifyClient = secured.CertFile, "required"
	if err := b.server.Reload(&secured); err != nil {
		t.Fatal(err)
	}
	if resp := ask(); resp.StatusCode != 403 || !resp.Close {
		t.Errorf("after: %s, close %v", resp.Status, resp.Close)
	}
}

// TestABodyThatNeverComes: it holds its connection for a bounded time. What is done with a body that came may take longer.
func TestABodyThatNeverComes(t *testing.T) {
	const limit = 200 * time.Millisecond
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		boundBody(w, r, limit)
		if r.Method == http.MethodPost {
			_, _ = io.Copy(io.Discard, r.Body)
			select {
			case <-r.Context().Done():
				w.WriteHeader(http.StatusInternalServerError)
			case <-time.After(5 * limit):
			}
		}
	}))
	defer server.Close()
	resp, err := http.Post(server.URL, "text/plain", strings.NewReader("all of it"))
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%v, %v", resp, err)
	}
	resp.Body.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("GET /primary HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Errorf("the connection is held: %v", err)
	}
}
