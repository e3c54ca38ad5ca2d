package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"time"

	"github.com/havenha/haven/internal/api"
	"github.com/havenha/haven/internal/config"
)

// checkCertificates refuses to start with a certificate that has ended: every connection would fail, and say less.
func (n *Node) checkCertificates(context.Context) error {
	c := n.opt.Node
	for _, f := range []struct{ key, path string }{
		{"etcd.cert", c.Etcd.Cert}, {"etcd.cacert", c.Etcd.CACert}, {"haven.tls.certfile", c.Etcd.PeerTLS.CertFile},
		{"restapi.certfile", c.RESTAPI.CertFile}, {"ctl.certfile", c.CTL.CertFile},
	} {
		if f.path == "" {
			continue
		}
		if err := checkCertificate(f.path); err != nil {
			return &PreconditionError{fmt.Errorf("`%s`: %w", f.key, err)}
		}
	}
	if err := verifiable(c); err != nil {
		n.log.Warn("other members will not believe this node's REST API: sign `restapi.certfile` by the authority in `ctl.cacert` or `restapi.cafile`, on all nodes", "error", err)
	}
	return nil
}

// verifiable tells whether members that verify each other (see peerTransport) would take this node's own certificate.
func verifiable(c *config.Node) error {
	t, err := peerTransport(c)
	if err != nil || t.TLSClientConfig.VerifyConnection == nil || c.RESTAPI.CertFile == "" {
		return err
	}
	own, err := api.Certificate(c.RESTAPI.CertFile, c.RESTAPI.KeyFile, c.RESTAPI.KeyPassword)
	if err != nil {
		return err
	}
	var certs []*x509.Certificate
	for _, raw := range own.Certificate {
		cert, err := x509.ParseCertificate(raw)
		if err != nil {
			return err
		}
		certs = append(certs, cert)
	}
	return t.TLSClientConfig.VerifyConnection(tls.ConnectionState{PeerCertificates: certs})
}

func checkCertificate(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("the certificate cannot be read: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return fmt.Errorf("%s holds no certificate in PEM form: check that it is the right file", path)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return fmt.Errorf("%s holds no certificate that can be read: %w", path, err)
	}
	if now := time.Now(); now.After(cert.NotAfter) {
		return fmt.Errorf("the certificate %s (%s) expired on %s: renew it", path, cert.Subject.CommonName, cert.NotAfter.UTC().Format("2006-01-02 15:04 MST"))
	}
	return nil
}
