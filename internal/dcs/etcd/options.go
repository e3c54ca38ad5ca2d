package etcd

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"
)

// Options say which etcd is used, and for which cluster.
type Options struct {
	// Endpoints are URLs or host:port, the preferred one first. Without a scheme: https if TLS is set, else http.
	Endpoints []string
	TLS       *tls.Config
	// Username and Password are etcd's own (etcd manual, role-based access control); empty: none.
	Username, Password string
	// Namespace and Scope make the prefix /namespace/scope/. An empty namespace is Patroni's default, service.
	Namespace, Scope string
	// SRV is the domain whose SRV records name the endpoints, in place of Endpoints; empty: none. SRVSuffix is what the
	// names of its services end with. LookupSRV asks for the records; nil: the system's resolver.
	SRV, SRVSuffix string
	LookupSRV      SRVLookup
	// Discover adds the client addresses of etcd's member list to the endpoints.
	Discover bool
	// RetryTimeout bounds one call with all its tries; zero means 10 s.
	RetryTimeout time.Duration
	Log          *slog.Logger
}

func (o Options) normalised() (Options, error) {
	if o.Scope == "" {
		return o, errors.New("open etcd: scope is empty: it names the cluster's keys; set scope")
	}
	if o.Namespace == "" {
		o.Namespace = "service"
	}
	if o.RetryTimeout <= 0 {
		o.RetryTimeout = 10 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	var endpoints []string
	for _, e := range o.Endpoints {
		u, err := endpointURL(e, o.TLS != nil)
		if err != nil {
			return o, err
		}
		endpoints = append(endpoints, u)
	}
	if o.LookupSRV == nil {
		o.LookupSRV = net.DefaultResolver.LookupSRV
	}
	if len(endpoints) == 0 && o.SRV == "" {
		return o, errors.New("open etcd: no endpoint is given: set etcd.hosts, etcd.srv or etcd.members")
	}
	o.Endpoints = endpoints
	return o, nil
}

func endpointURL(e string, secure bool) (string, error) {
	e = strings.TrimSpace(e)
	if !strings.Contains(e, "://") {
		scheme := "http://"
		if secure {
			scheme = "https://"
		}
		e = scheme + e
	}
	u, err := url.Parse(e)
	if err != nil || u.Host == "" {
		return "", fmt.Errorf("open etcd: endpoint %q is not an address: write host:port or a URL", e)
	}
	if u.Port() == "" {
		u.Host += ":2379"
	}
	return u.Scheme + "://" + u.Host, nil
}

// prefix is the base path of one cluster's keys, runs of slashes collapsed (dcs-layout, 1).
func prefix(namespace, scope string) string {
	parts := strings.FieldsFunc(namespace+"/"+scope, func(r rune) bool { return r == '/' })
	return "/" + strings.Join(parts, "/") + "/"
}
