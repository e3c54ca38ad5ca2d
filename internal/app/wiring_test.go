package app

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/havenha/haven/internal/config"
)

// selfSigned is a certificate (DER) that its own key has signed.
func selfSigned(t *testing.T, template x509.Certificate) ([]byte, *ecdsa.PrivateKey) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.CreateCertificate(rand.Reader, &template, &template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	return cert, private
}

func TestStoreOptionsOfSRVRecords(t *testing.T) {
	o, err := StoreOptions(&config.Node{Scope: "shop", Etcd: config.Etcd{SRV: "example.com", SRVSuffix: "main", Scheme: "http"}}, slog.New(slog.DiscardHandler))
	if err != nil || o.SRV != "example.com" || o.SRVSuffix != "main" || len(o.Endpoints) != 0 || !o.Discover {
		t.Errorf("%+v, %v", o, err)
	}
}

// What needs the cluster's keys fails on a node without a store, and says why.
func TestNoStore(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	updates := (&Node{}).keys().Watch(ctx)
	if u := <-updates; !errors.Is(u.Err, errNoStore) {
		t.Errorf("the watch tells %+v", u)
	}
	cancel()
	if _, open := <-updates; open {
		t.Error("the watch goes on after its end")
	}
	if _, err := (&Node{}).keys().Snapshot(t.Context()); !errors.Is(err, errNoStore) {
		t.Errorf("a read: %v", err)
	}
}

// Members verify each other where they have a certificate to show (Patroni), whatever the host names in it.
func TestMembersVerifyEachOther(t *testing.T) {
	dir := t.TempDir()
	member, stranger := httptest.NewTLSServer(http.NotFoundHandler()), httptest.NewUnstartedServer(http.NotFoundHandler())
	t.Cleanup(member.Close)
	t.Cleanup(stranger.Close)
	cert, private := selfSigned(t, x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"db2"}})
	stranger.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert}, PrivateKey: private}}}
	stranger.StartTLS()
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	own, ca := filepath.Join(dir, "own.pem"), filepath.Join(dir, "ca.pem")
	for file, blocks := range map[string][]*pem.Block{
		own: {{Type: "CERTIFICATE", Bytes: cert}, {Type: "PRIVATE KEY", Bytes: key}},
		ca:  {{Type: "CERTIFICATE", Bytes: member.Certificate().Raw}},
	} {
		var text []byte
		for _, b := range blocks {
			text = append(text, pem.EncodeToMemory(b)...)
		}
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name  string
		ctl   config.CTL
		knows bool // a stranger from a member
	}{
		{"with a certificate", config.CTL{CertFile: own}, true},
		{"with an authority of the commands'", config.CTL{CertFile: own, CACert: own}, false},
		{"without", config.CTL{}, false},
		{"insecure", config.CTL{CertFile: own, Insecure: true}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			transport, err := peerTransport(&config.Node{RESTAPI: &config.RESTAPI{CAFile: ca}, CTL: tt.ctl})
			if err != nil {
				t.Fatal(err)
			}
			client := &http.Client{Transport: transport}
			if tt.ctl.CACert == "" {
				if _, err := client.Get(member.URL); err != nil {
					t.Errorf("the member: %v", err)
				}
			} else if _, err := client.Get(member.URL); err == nil {
				t.Error("ctl.cacert does not take precedence")
			}
			if _, err := client.Get(stranger.URL); (err != nil) != tt.knows {
				t.Errorf("the stranger: %v", err)
			}
		})
	}
}

// TestOwnCertificateIsVerifiable tells of a certificate that other members would refuse.
func TestOwnCertificateIsVerifiable(t *testing.T) {
	server := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(server.Close)
	dir := t.TempDir()
	key, err := x509.MarshalPKCS8PrivateKey(server.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	own, other := filepath.Join(dir, "own.pem"), filepath.Join(dir, "other.pem")
	text := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	stranger, _ := selfSigned(t, x509.Certificate{SerialNumber: big.NewInt(2)})
	if err := errors.Join(os.WriteFile(own, text, 0o600), os.WriteFile(other, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: stranger}), 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		authority string
		ctl       config.CTL
		good      bool
	}{{own, config.CTL{CertFile: own}, true}, {other, config.CTL{CertFile: own}, false}, {other, config.CTL{}, true}} {
		if err := verifiable(&config.Node{RESTAPI: &config.RESTAPI{CertFile: own, CAFile: tt.authority}, CTL: tt.ctl}); (err == nil) != tt.good {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

// TestKeysWithAPassword: the clients of the store and of other members decrypt their key, which may stand in the certificate's file.
func TestKeysWithAPassword(t *testing.T) {
	cert, private := selfSigned(t, x509.Certificate{SerialNumber: big.NewInt(1)})
	key, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block, err := x509.EncryptPEMBlock(rand.Reader, "EC PRIVATE KEY", key, []byte("secret"), x509.PEMCipherAES256) //nolint:staticcheck // operators have such keys
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "both.pem")
	both := append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), pem.EncodeToMemory(block)...)
	if err := os.WriteFile(file, both, 0o600); err != nil {
		t.Fatal(err)
	}
	o, err := StoreOptions(&config.Node{Etcd: config.Etcd{Scheme: "https", Cert: file, KeyPassword: "secret"}}, slog.New(slog.DiscardHandler))
	if err != nil || len(o.TLS.Certificates) != 1 {
		t.Errorf("the store's: %v", err)
	}
	if _, err := peerTransport(&config.Node{RESTAPI: &config.RESTAPI{}, CTL: config.CTL{CertFile: file, KeyPassword: "secret"}}); err != nil {
		t.Errorf("the members': %v", err)
	}
	if _, err := peerTransport(&config.Node{RESTAPI: &config.RESTAPI{}, CTL: config.CTL{CertFile: file, KeyPassword: "wrong"}}); err == nil {
		t.Error("a wrong password does")
	}
}
