package pgwire

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
)

// offered is the configuration of TLS for that client; nil: none.
func (a *acceptance) offered() *tls.Config {
	if !a.o.SSLMode.offers() || a.local {
		return nil
	}
	return a.o.TLS
}

// answerSSL answers an SSLRequest. Nothing was read beyond it: what a client, or somebody in between, has sent in plain right behind it
// would have to be a TLS handshake to get any further.
func (a *acceptance) answerSSL() error {
	config := a.offered()
	if config == nil {
		_, err := a.client.Conn.Write([]byte{'N'})
		return err
	}
	if _, err := a.client.Conn.Write([]byte{'S'}); err != nil {
		return err
	}
	return a.encrypt(a.raw, config)
}

// encryptDirectly is for a client that begins with TLS (sslnegotiation=direct). It has to name the protocol (ALPN), so
// that bytes which were meant for a server of another protocol get nowhere.
func (a *acceptance) encryptDirectly(first byte) error {
	config := a.offered()
	if config == nil {
		return errors.New("the client begins with TLS, and there is none here")
	}
	if err := a.encrypt(&unread{Conn: a.raw, first: []byte{first}}, config); err != nil {
		return err
	}
	if a.client.TLS.NegotiatedProtocol != alpn {
		return errors.New("the client begins with TLS and does not name the protocol (ALPN)")
	}
	return nil
}

// unread is a connection of which a byte was read too early.
type unread struct {
	net.Conn
	first []byte
}

func (u *unread) Read(p []byte) (int, error) {
	if len(u.first) > 0 && len(p) > 0 {
		n := copy(p, u.first)
		u.first = u.first[n:]
		return n, nil
	}
	return u.Conn.Read(p)
}

// NetConn is the connection itself.
func (u *unread) NetConn() net.Conn { return u.Conn }

// encrypt makes the connection a TLS one.
func (a *acceptance) encrypt(conn net.Conn, config *tls.Config) error {
	t := tls.Server(conn, a.configuration(config))
	if err := t.Handshake(); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	state := t.ConnectionState()
	a.client.Conn, a.client.TLS = t, &state
	a.client.Certificate = vouched(state, config.ClientCAs)
	return nil
}

// configuration is the listener's with what the protocol wants of it. Sessions are not resumed, as with PostgreSQL:
// each then has a certificate to bind the channel to.
func (a *acceptance) configuration(config *tls.Config) *tls.Config {
	c := config.Clone()
	c.NextProtos = []string{alpn}
	c.SessionTicketsDisabled = true
	switch {
	case a.o.SSLMode.verifies():
		c.ClientAuth = tls.RequireAndVerifyClientCert
	case c.ClientCAs != nil:
		c.ClientAuth = tls.RequestClientCert
	default:
		c.ClientAuth = tls.NoClientCert
	}
	c.Certificates, c.GetConfigForClient = nil, nil
	c.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := choose(config, hello)
		if err == nil {
			a.leaf, err = leafOf(cert)
		}
		return cert, err
	}
	return c
}

// choose is the certificate that crypto/tls would choose, which does not tell which one it was.
func choose(config *tls.Config, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if config.GetCertificate != nil && (len(config.Certificates) == 0 || hello.ServerName != "") {
		if cert, err := config.GetCertificate(hello); cert != nil || err != nil {
			return cert, err
		}
	}
	for i := range config.Certificates {
		if hello.SupportsCertificate(&config.Certificates[i]) == nil {
			return &config.Certificates[i], nil
		}
	}
	if len(config.Certificates) == 0 {
		return nil, errors.New("no certificate")
	}
	return &config.Certificates[0], nil
}

func leafOf(cert *tls.Certificate) (*x509.Certificate, error) {
	if cert.Leaf != nil {
		return cert.Leaf, nil
	}
	if len(cert.Certificate) == 0 {
		return nil, errors.New("empty certificate")
	}
	return x509.ParseCertificate(cert.Certificate[0])
}

// vouched is the client's certificate if one of the authorities vouches for it. In the modes that do not verify, a client with
// another one is let in as if it had none.
func vouched(state tls.ConnectionState, authorities *x509.CertPool) *x509.Certificate {
	if len(state.PeerCertificates) == 0 || authorities == nil {
		return nil
	}
	between := x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		between.AddCert(c)
	}
	_, err := state.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: authorities, Intermediates: between,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if err != nil {
		return nil
	}
	return state.PeerCertificates[0]
}
