package api

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
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
