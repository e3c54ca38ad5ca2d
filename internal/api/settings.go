package api

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/havenha/haven/internal/config"
)

// settings are the section restapi with what was read from its files.
type settings struct {
	node *config.RESTAPI
	tls  *tls.Config // nil: plain
}

func newSettings(r *config.RESTAPI, log *slog.Logger) (*settings, error) {
	s := &settings{node: r}
	if r.CertFile == "" {
		return s, nil
	}
	pair, err := Certificate(r.CertFile, r.KeyFile, r.KeyPassword)
	if err != nil {
		return nil, fmt.Errorf("restapi: %w", err)
	}
	s.tls = &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair},
		ClientAuth: clientAuth(r.VerifyClient), CipherSuites: cipherSuites(r.Ciphers, log),
	}
	if r.CAFile != "" {
		if s.tls.ClientCAs, err = authorities(r.CAFile); err != nil {
			return nil, fmt.Errorf("restapi: %w", err)
		}
	}
	return s, nil
}

func clientAuth(verify string) tls.ClientAuthType {
	switch verify {
	case "required":
		return tls.RequireAndVerifyClientCert
	case "optional":
		return tls.VerifyClientCertIfGiven
	}
	return tls.NoClientCert
}

func authorities(file string) (*x509.CertPool, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the certificate authority: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content) {
		return nil, fmt.Errorf("%s holds no certificate in PEM form", file)
	}
	return pool, nil
}

// Certificate reads a certificate and its key, which may be encrypted with a password; the key may stand in the certificate's file.
func Certificate(certFile, keyFile, password string) (tls.Certificate, error) {
	if keyFile == "" {
		keyFile = certFile
	}
	cert, err := os.ReadFile(certFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("read the certificate: %w", err)
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("read the certificate's key: %w", err)
	}
	if key, err = decrypted(key, password); err != nil {
		return tls.Certificate{}, fmt.Errorf("read the key %s: %w", keyFile, err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("use the certificate %s with the key %s: %w", certFile, keyFile, err)
	}
	return pair, nil
}

// decrypted is the key in the clear. Go's library decrypts the traditional form of PEM (RFC 1421) only.
func decrypted(key []byte, password string) ([]byte, error) {
	for rest := key; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return key, nil
		}
		if block.Type == "ENCRYPTED PRIVATE KEY" {
			return nil, errors.New("it is encrypted in PKCS #8 form, which is not supported: decrypt it with `openssl pkey`, and protect the file by its mode")
		}
		if !x509.IsEncryptedPEMBlock(block) { //nolint:staticcheck // operators have such keys
			continue
		}
		plain, err := x509.DecryptPEMBlock(block, []byte(password)) //nolint:staticcheck // as above
		if err != nil {
			return nil, fmt.Errorf("decrypt it with keyfile_password: %w", err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: plain}), nil
	}
}

// cipherSuites reads a list in OpenSSL's names. It concerns TLS 1.2 only; 1.3 has no choice. What is not known or not
// secure is left out; if nothing remains, the choice is Go's.
func cipherSuites(list string, log *slog.Logger) []uint16 {
	known := map[string]uint16{}
	for _, c := range tls.CipherSuites() {
		known[c.Name], known[opensslName(c.Name)] = c.ID, c.ID
	}
	var out []uint16
	for _, name := range strings.FieldsFunc(list, func(r rune) bool { return r == ':' || r == ',' || r == ' ' }) {
		if id, ok := known[name]; ok {
			out = append(out, id)
		} else {
			log.Warn("restapi.ciphers names what is not available", "cipher", name)
		}
	}
	return out
}

// opensslName turns TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 into ECDHE-RSA-AES128-GCM-SHA256.
func opensslName(name string) string {
	return strings.NewReplacer("TLS_", "", "WITH_", "", "AES_128", "AES128", "AES_256", "AES256",
		"POLY1305_SHA256", "POLY1305", "_", "-").Replace(name)
}
