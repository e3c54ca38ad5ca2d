package etcd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
)

// quota is above anything that a few hundred kilobytes of keys with an hour of history need.
const quota = 2 << 30

// plan is with which members etcd starts where it has no data, and whether they form a new cluster.
type plan struct {
	state   string
	initial string
}

// start runs etcd on the data that are there, or finds out by the others how to begin without.
func (s *Server) start(ctx context.Context, m marker) (*embed.Etcd, error) {
	data, err := hasData(s.opt.DataDir)
	if err != nil {
		return nil, err
	}
	if data {
		return s.launch(ctx, plan{state: embed.ClusterStateFlagExisting, initial: s.initialNew()})
	}
	if m.Phase == phaseStarted {
		s.opt.Log.Warn("etcd data are missing", "member", s.opt.Name, "dir", s.opt.DataDir)
		m.Phase = phaseEmpty
	}
	for ctx.Err() == nil {
		if err := clearRemains(s.opt.DataDir); err != nil {
			return nil, err
		}
		p, err := s.decide(ctx, &m)
		if err != nil {
			return nil, err
		}
		e, err := s.launch(ctx, p)
		if err == nil || errors.Is(err, syscall.EADDRINUSE) {
			return e, err
		}
		s.opt.Log.Warn("etcd start failed", "member", s.opt.Name, "error", err)
		sleep(ctx, time.Second)
	}
	return nil, ctx.Err()
}

func (s *Server) launch(ctx context.Context, p plan) (*embed.Etcd, error) {
	cfg, err := s.config(ctx, p)
	if err != nil {
		return nil, err
	}
	e, err := embed.StartEtcd(cfg)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("embedded etcd: member %s cannot listen on %s and %s: another program uses one of them: %w",
			s.opt.Name, s.opt.self().Client, s.opt.self().Peer, err)
	}
	if err != nil {
		return nil, fmt.Errorf("embedded etcd: start in %s: %w", s.opt.DataDir, err)
	}
	return e, nil
}

func (s *Server) config(ctx context.Context, p plan) (*embed.Config, error) {
	self := s.opt.self()
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = self.Name, s.opt.DataDir
	cfg.TickMs = uint(s.opt.ElectionTimeout.Milliseconds() / 10)
	cfg.ElectionMs = uint(s.opt.ElectionTimeout.Milliseconds())
	cfg.InitialCluster, cfg.ClusterState, cfg.InitialClusterToken = p.initial, p.state, s.opt.Token
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModePeriodic, "1h"
	cfg.QuotaBackendBytes = quota
	// Other Patroni tools speak to the JSON gateway.
	cfg.EnableGRPCGateway = true
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(zapLogger(s.opt.Log, "server"))
	cfg.UserHandlers = map[string]http.Handler{greetingPath: s.greeter}
	if s.secure != nil {
		info := transport.TLSInfo{CertFile: s.opt.Cert, KeyFile: s.opt.Key, TrustedCAFile: s.opt.CACert, ClientCertAuth: true}
		cfg.ClientTLSInfo, cfg.PeerTLSInfo = info, info
	}
	var err error
	if cfg.ListenClientUrls, cfg.AdvertiseClientUrls, err = s.urls(ctx, self.Client); err != nil {
		return nil, err
	}
	if cfg.ListenPeerUrls, cfg.AdvertisePeerUrls, err = s.urls(ctx, self.Peer); err != nil {
		return nil, err
	}
	return cfg, nil
}

// urls are those to listen on and to advertise. etcd listens only on numeric addresses, so a name is looked up.
func (s *Server) urls(ctx context.Context, address string) (listen, advertise []url.URL, err error) {
	numeric, err := numericAddress(ctx, address)
	if err != nil {
		return nil, nil, err
	}
	scheme := s.opt.scheme()
	return []url.URL{{Scheme: scheme, Host: numeric}}, []url.URL{{Scheme: scheme, Host: address}}, nil
}

func numericAddress(ctx context.Context, address string) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", err
	}
	if net.ParseIP(host) != nil {
		return address, nil
	}
	ips, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		return "", fmt.Errorf("embedded etcd: look up %s: %w", host, err)
	}
	return net.JoinHostPort(ips[0], port), nil
}
