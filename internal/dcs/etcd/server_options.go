package etcd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"time"
)

// ServerMember is one member of an embedded etcd cluster: a name, and host:port for clients and for peers.
type ServerMember struct {
	Name, Client, Peer string
}

// ServerOptions say which member this is, of which cluster. Members is the same list on every member, Token too.
type ServerOptions struct {
	Name    string
	DataDir string
	// Token tells clusters apart: a member with another one is refused.
	Token   string
	Members []ServerMember
	// ElectionTimeout is etcd's; its heartbeat is a tenth of it. Zero means 1 s.
	ElectionTimeout time.Duration
	// CACert, Cert and Key are files: TLS for peers and clients, who must show a certificate of that CA. The
	// certificate serves for both sides of a connection. All three or none.
	CACert, Cert, Key string
	Log               *slog.Logger
}

func (o ServerOptions) checked() (ServerOptions, error) {
	if o.ElectionTimeout == 0 {
		o.ElectionTimeout = time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	given := 0
	for _, f := range []string{o.CACert, o.Cert, o.Key} {
		if f != "" {
			given++
		}
	}
	switch {
	case o.DataDir == "" || o.Token == "":
		return o, errors.New("embedded etcd: a data directory and a token are needed")
	case o.ElectionTimeout < 100*time.Millisecond || o.ElectionTimeout > 50*time.Second:
		return o, fmt.Errorf("embedded etcd: election timeout %s is outside 100ms to 50s (etcd's limits)", o.ElectionTimeout)
	case given != 0 && given != 3:
		return o, errors.New("embedded etcd: TLS needs the CA's certificate, a certificate and its key: give all three")
	case !slices.ContainsFunc(o.Members, func(m ServerMember) bool { return m.Name == o.Name }):
		return o, fmt.Errorf("embedded etcd: this member, %q, is not in the list of members: add it there", o.Name)
	}
	for _, m := range o.Members {
		for _, a := range []string{m.Client, m.Peer} {
			if _, _, err := net.SplitHostPort(a); err != nil {
				return o, fmt.Errorf("embedded etcd: member %s: address %q is not host:port: %w", m.Name, a, err)
			}
		}
	}
	return o, nil
}

func (o ServerOptions) self() ServerMember {
	i := slices.IndexFunc(o.Members, func(m ServerMember) bool { return m.Name == o.Name })
	return o.Members[i]
}

func (o ServerOptions) others() []ServerMember {
	return slices.DeleteFunc(slices.Clone(o.Members), func(m ServerMember) bool { return m.Name == o.Name })
}

func (o ServerOptions) scheme() string {
	if o.Cert != "" {
		return "https"
	}
	return "http"
}

// tls is what this member shows and expects, as a client and as a server; nil without certificates.
func (o ServerOptions) tls() (*tls.Config, error) {
	if o.Cert == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(o.Cert, o.Key)
	if err != nil {
		return nil, fmt.Errorf("embedded etcd: read certificate and key: %w", err)
	}
	ca, err := os.ReadFile(o.CACert)
	if err != nil {
		return nil, fmt.Errorf("embedded etcd: read the CA's certificate: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("embedded etcd: %s holds no certificate in PEM form", o.CACert)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, RootCAs: roots,
		ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert,
	}, nil
}
