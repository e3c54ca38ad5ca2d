// Package login makes of the configuration how clients of pooled listeners prove who they are, and how servers are logged in
// to in their name.
package login

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"time"

	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/pgwire"
	"github.com/havenha/haven/internal/proxy/pooled"
)

// Options are what a listener lets clients in by.
type Options struct {
	Proxy *config.Proxy
	// Cluster is asked for secrets that no file has.
	Cluster pooled.Cluster
	// HostOf names the host of a server, for the verification of its certificate.
	HostOf func(pooled.Seat) string
	// ConnectTimeout bounds a lookup of a secret at a server, once there is a connection to it.
	ConnectTimeout time.Duration
}

// Read reads all files that the configuration names. An error names the key; then there are no options.
func Read(o Options) (accept pgwire.AcceptOptions, server pgwire.LoginOptions, err error) {
	if server, err = serverTLS(o.Proxy.Auth, o.Proxy.ServerTLS); err != nil {
		return accept, server, err
	}
	accept, err = acceptOptions(o, server)
	return accept, server, err
}

func acceptOptions(in Options, server pgwire.LoginOptions) (pgwire.AcceptOptions, error) {
	a := in.Proxy.Auth
	o := pgwire.AcceptOptions{SSLMode: pgwire.SSLMode(a.ClientMode)}
	var auth pgwire.AuthOptions
	var err error
	if a.Type == "hba" {
		text, err := os.ReadFile(a.HBAFile)
		if err != nil {
			return o, fmt.Errorf("auth_hba_file: %w", err)
		}
		if auth.Rules, err = pgwire.ParseRules(a.HBAFile, string(text)); err != nil {
			return o, err
		}
	} else if auth.Method, err = pgwire.ParseMethod(a.Type); err != nil {
		return o, err
	}
	if auth.Secrets, err = secrets(in, server); err != nil {
		return o, err
	}
	if o.Auth, err = pgwire.NewAuthenticator(auth); err != nil {
		return o, err
	}
	if o.TLS, err = clientTLS(a, in.Proxy.TLS); err != nil {
		return o, err
	}
	err = o.Validate()
	return o, err
}

// secrets are those of the file, then those that the server knows.
func secrets(o Options, server pgwire.LoginOptions) (pgwire.Secrets, error) {
	a := o.Proxy.Auth
	if a.File == "" {
		return noSecrets{}, nil
	}
	file, err := pgwire.OpenUserFile(a.File)
	if err != nil {
		return nil, fmt.Errorf("auth_file: %w", err)
	}
	if a.User == "" {
		return file, nil
	}
	own, err := file.Secret(context.Background(), a.User)
	if err != nil {
		return nil, fmt.Errorf("auth_user %s is not in auth_file: %w", a.User, err)
	}
	server.User, server.Database, server.Credential = a.User, a.Database, own.Credential()
	return pgwire.First(file, &asker{
		cluster: o.Cluster, hostOf: o.HostOf, login: server, query: a.Query, patience: pooled.Patience(o.ConnectTimeout), asking: make(chan struct{}, maxAsking),
	}), nil
}

type noSecrets struct{}

func (noSecrets) Secret(context.Context, string) (pgwire.Secret, error) {
	return pgwire.Secret{}, pgwire.ErrUnknownUser
}

func clientTLS(a config.ProxyAuth, t config.TLS) (*tls.Config, error) {
	if !t.On() || a.ClientMode == "disable" {
		return nil, nil
	}
	own, err := certificate("proxy.tls", t)
	if err != nil {
		return nil, err
	}
	roots, err := authorities("proxy.tls.cafile", t.CAFile)
	return &tls.Config{Certificates: own, ClientCAs: roots, MinVersion: tls.VersionTLS12}, err
}

func serverTLS(a config.ProxyAuth, t config.TLS) (pgwire.LoginOptions, error) {
	o := pgwire.LoginOptions{SSLMode: pgwire.SSLMode(a.ServerMode)}
	own, err := certificate("proxy.server_tls_cert_file", t)
	if err != nil {
		return o, err
	}
	roots, err := authorities("proxy.server_tls_ca_file", t.CAFile)
	o.TLS = &tls.Config{Certificates: own, RootCAs: roots, MinVersion: tls.VersionTLS12}
	return o, err
}

// certificate reads the one that is shown; none without a file. Errors name the key of the configuration.
func certificate(key string, t config.TLS) ([]tls.Certificate, error) {
	if !t.On() {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return []tls.Certificate{pair}, nil
}

// authorities reads certificates; nil without a file. Errors name the key of the configuration.
func authorities(key, file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s: %s holds no certificate", key, file)
	}
	return roots, nil
}
