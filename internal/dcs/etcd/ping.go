package etcd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// pingTry bounds the question to one endpoint; a wrong certificate shows only after the handshake.
const pingTry = 2 * time.Second

// Ping asks all endpoints at once and returns nil if one of them answers linearizably. Otherwise its error says of each
// endpoint what is wrong and what to do: unreachable, wrong password, certificate missing, expired or of an unknown CA.
func (c *Client) Ping(ctx context.Context) error {
	ctx, cancel := c.bound(ctx)
	defer cancel()
	began := time.Now()
	nodes, err := c.nodes(ctx, c.calls)
	if err != nil {
		return wrap("ping", err)
	}
	errs := make([]error, len(nodes))
	var asked sync.WaitGroup
	for i, n := range nodes {
		asked.Go(func() { errs[i] = c.pingOne(ctx, n) })
	}
	asked.Wait()
	failed := &Unreachable{}
	for i, err := range errs {
		if err == nil {
			c.calls.good(nodes[i])
			return nil
		}
		failed.note(nodes[i].endpoint, err)
	}
	var r refusal
	if errors.As(failed, &r) {
		return wrap("ping", r)
	}
	failed.Within = time.Since(began)
	return wrap("ping", failed)
}

func (c *Client) pingOne(ctx context.Context, n *node) error {
	err := c.try(ctx, n, pingTry, func(ctx context.Context, l *link) error {
		_, err := l.kv.Get(ctx, c.key(keyLeader), clientv3.WithKeysOnly())
		return err
	})
	if err == nil || final(err) {
		return err
	}
	if cause := c.handshake(ctx, n.endpoint); cause != nil {
		return cause
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return errors.New("it accepts connections but does not answer: it hangs, or its cluster has no quorum")
	}
	return err
}

// handshake connects without gRPC, whose errors hide the cause. It returns nil where it finds nothing wrong.
func (c *Client) handshake(ctx context.Context, endpoint string) error {
	u, err := url.Parse(endpoint)
	if err != nil {
		return err
	}
	conn, err := dial(ctx, u.Host)
	if err != nil {
		return fmt.Errorf("cannot connect: %w", err)
	}
	defer func() { _ = conn.Close() }()
	if u.Scheme != "https" {
		return nil
	}
	return c.tlsHandshake(ctx, conn, u.Hostname())
}

func (c *Client) tlsHandshake(ctx context.Context, conn net.Conn, host string) error {
	config := &tls.Config{}
	if c.opt.TLS != nil {
		config = c.opt.TLS.Clone()
	}
	if config.ServerName == "" {
		config.ServerName = host
	}
	config.NextProtos = []string{"h2"}
	secure := tls.Client(conn, config)
	limited, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	if err := secure.HandshakeContext(limited); err != nil {
		if ends(err) && answersPlain(ctx, conn.RemoteAddr().String()) {
			return speaksPlain(err)
		}
		return explainTLS(err, len(config.Certificates) > 0)
	}
	// In TLS 1.3 a server refuses the client's certificate only after the client's side of the handshake.
	_ = secure.SetReadDeadline(time.Now().Add(dialTimeout / 2))
	if _, err := secure.Read(make([]byte, 1)); err != nil && strings.Contains(err.Error(), "tls:") {
		return explainTLS(err, len(config.Certificates) > 0)
	}
	return nil
}

// ends tells whether a handshake failed because the other side closed the connection, or reset it: a server that speaks no TLS may do
// either before its answer, which would tell, is read.
func ends(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) }

// answersPlain tells whether a server answers a request without TLS.
func answersPlain(ctx context.Context, address string) bool {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := dial(ctx, address)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	if _, err := io.WriteString(conn, "GET /version HTTP/1.0\r\n\r\n"); err != nil {
		return false
	}
	const answer = "HTTP/1."
	b := make([]byte, len(answer))
	_, err = io.ReadFull(conn, b)
	return err == nil && string(b) == answer
}

func speaksPlain(err error) error {
	return fmt.Errorf("etcd speaks plain HTTP here: use http, or turn on TLS in etcd: %w", err)
}

// explainTLS says what a failed handshake means and what to do about it (RFC 8446, 6.2; crypto/x509). A certificate that
// is not of a CA that the server names is not even shown, so shown tells whether there was one to show.
func explainTLS(err error, shown bool) error {
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	var record tls.RecordHeaderError
	text := err.Error()
	switch {
	case errors.As(err, &unknown):
		return fmt.Errorf("etcd's certificate is not signed by the CA in etcd.cacert: give the CA that signed it: %w", err)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Errorf("etcd's certificate has expired or is not valid yet: renew it, or set the clock: %w", err)
	case errors.As(err, &name):
		return fmt.Errorf("etcd's certificate is for another host: reissue it with this address: %w", err)
	case errors.As(err, &record):
		return speaksPlain(err)
	case strings.Contains(text, "certificate required") && shown:
		return fmt.Errorf("etcd refuses our client certificate: it is not signed by a CA that etcd trusts: %w", err)
	case strings.Contains(text, "certificate required"):
		return fmt.Errorf("etcd asks for a client certificate: set etcd.cert and etcd.key: %w", err)
	case strings.Contains(text, "expired certificate"):
		return fmt.Errorf("etcd refuses our client certificate: it has expired: renew etcd.cert: %w", err)
	case strings.Contains(text, "unknown certificate authority"), strings.Contains(text, "bad certificate"):
		return fmt.Errorf("etcd refuses our client certificate: it is not signed by a CA that etcd trusts: %w", err)
	}
	return fmt.Errorf("TLS handshake: %w", err)
}
