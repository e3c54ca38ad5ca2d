package pgwire

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
)

// encryptToServer asks the server for TLS, if the mode wants it and the connection is not a Unix socket; nil: it stays plain.
// Of the answer exactly one byte is read: what follows belongs to the handshake.
func encryptToServer(conn net.Conn, mode SSLMode, config *tls.Config, host string) (*tls.Conn, error) {
	if _, local := conn.RemoteAddr().(*net.UnixAddr); local || !mode.offers() {
		return nil, nil
	}
	if _, err := conn.Write(appendRequest(nil, codeSSL)); err != nil {
		return nil, err
	}
	var answer [1]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return nil, cut(err)
	}
	switch {
	case answer[0] == 'S':
	case answer[0] == 'N' && mode.requires():
		return nil, ErrNoTLS
	case answer[0] == 'N':
		return nil, nil
	default:
		// An error message here would not be the server's for sure; libpq does not show it either.
		return nil, fmt.Errorf("the server answers a request for TLS with %q", answer[0])
	}
	t := tls.Client(conn, towards(mode, config, host))
	if err := t.Handshake(); err != nil {
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return t, nil
}

// towards is the configuration for a server: what it verifies is the mode's business.
func towards(mode SSLMode, config *tls.Config, host string) *tls.Config {
	c := &tls.Config{}
	if config != nil {
		c = config.Clone()
	}
	c.ServerName = host
	c.NextProtos = []string{alpn}
	c.InsecureSkipVerify = true // VerifyConnection does it
	c.VerifyConnection = nil
	if mode.verifies() {
		c.VerifyConnection = func(s tls.ConnectionState) error {
			if err := verifyServer(s, c.RootCAs, mode, host); err != nil {
				return fmt.Errorf("%w: %w", ErrCertificate, err)
			}
			return nil
		}
	}
	return c
}

// verifyServer checks the server's certificate as verify-ca or verify-full want it.
func verifyServer(s tls.ConnectionState, roots *x509.CertPool, mode SSLMode, host string) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("the server has no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range s.PeerCertificates[1:] {
		between.AddCert(c)
	}
	leaf := s.PeerCertificates[0]
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between}); err != nil {
		return err
	}
	if mode != SSLVerifyFull || named(leaf, host) {
		return nil
	}
	return leaf.VerifyHostname(host)
}

// named tells whether a certificate without alternative names has the host as its common name. libpq takes that, and older
// certificates of databases are such.
func named(c *x509.Certificate, host string) bool {
	names := len(c.DNSNames) + len(c.IPAddresses) + len(c.EmailAddresses) + len(c.URIs)
	return names == 0 && host != "" && strings.EqualFold(c.Subject.CommonName, host)
}

// refusesCertificate tells whether the server has ended the connection for our certificate. In TLS 1.3 it says so only after the handshake
// (RFC 8446, 4.4.2.4 and 6.2); package tls has no type for what the other side says.
func refusesCertificate(err error) bool {
	var alert *net.OpError
	return errors.As(err, &alert) && alert.Op == "remote error" && strings.Contains(alert.Err.Error(), "certificate")
}
