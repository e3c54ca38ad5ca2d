package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// stopTime bounds Stop. etcd waits several seconds for open streams before it closes them.
const stopTime = 2 * time.Second

// Server is an etcd member inside this process.
type Server struct {
	opt     ServerOptions
	secure  *tls.Config
	web     *http.Client
	greeter *greeter

	ready   chan struct{}
	err     chan error
	stopped chan struct{}
	cancel  context.CancelFunc

	mu   sync.Mutex
	etcd *embed.Etcd
}

// StartServer begins to run a member. It returns at once; forming or joining a cluster goes on beside the caller until
// Ready, or until an error is sent to Err. The server ends with ctx or Stop.
//
// A member with data starts with them. One without asks the others: where one of them serves a living cluster, it
// joins that, in place of its dead predecessor if there is one; where all others have no data either, they form the
// cluster together. As long as neither is certain it waits: a member that has lost its disk would otherwise be taken,
// under its old identity, for one that still holds what it once acknowledged (etcd manual, disaster recovery).
func StartServer(ctx context.Context, o ServerOptions) (*Server, error) {
	o, err := o.checked()
	if err != nil {
		return nil, err
	}
	secure, err := o.tls()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("embedded etcd: create data directory: %w", err)
	}
	// etcd refuses directories that others may read.
	if err := os.Chmod(o.DataDir, 0o700); err != nil {
		return nil, fmt.Errorf("embedded etcd: %w", err)
	}
	m, err := readMarker(o.DataDir)
	if err != nil {
		return nil, fmt.Errorf("embedded etcd: read marker: %w", err)
	}
	if m.Token != "" && m.Token != o.Token {
		return nil, fmt.Errorf("embedded etcd: %s holds data of cluster %q, this member is configured for %q: correct etcd.token, or choose another directory", o.DataDir, m.Token, o.Token)
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &Server{
		opt: o, secure: secure, cancel: cancel,
		web:     &http.Client{Transport: &http.Transport{TLSClientConfig: secure, DisableKeepAlives: true}},
		greeter: &greeter{now: greeting{Name: o.Name, Token: o.Token, Phase: m.Phase}},
		ready:   make(chan struct{}), err: make(chan error, 1), stopped: make(chan struct{}),
	}
	go func() {
		defer close(s.stopped)
		defer cancel()
		if err := s.run(ctx, m); err != nil && ctx.Err() == nil {
			s.err <- err
		}
	}()
	return s, nil
}

// Ready is closed when the member is a voter of a cluster that works.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Err gives at most one error, after which the server has ended. It is silent where Stop or the context ended it.
func (s *Server) Err() <-chan error { return s.err }

// Stopped is closed when everything is closed, which may be several seconds after Stop has returned.
func (s *Server) Stopped() <-chan struct{} { return s.stopped }

// Endpoint is the URL for clients.
func (s *Server) Endpoint() string { return s.opt.scheme() + "://" + s.opt.self().Client }

// Stop gives etcd's leadership away and ends the server; it waits for at most two seconds. Clients should be closed
// first: open watches are what it would have to wait for.
func (s *Server) Stop() {
	s.cancel()
	t := time.NewTimer(stopTime)
	defer t.Stop()
	select {
	case <-s.stopped:
	case <-t.C:
	}
}

func (s *Server) running() *embed.Etcd {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.etcd
}

// IsLeader tells whether this member is etcd's leader.
func (s *Server) IsLeader() bool {
	e := s.running()
	return e != nil && e.Server.Leader() == e.Server.MemberID()
}

// MoveLeader gives etcd's leadership to another voter, trying one after the other. It is no error if this member is
// not the leader.
func (s *Server) MoveLeader(ctx context.Context) error {
	e := s.running()
	if e == nil || !s.IsLeader() {
		return nil
	}
	err := errors.New("there is no other voter")
	for _, m := range e.Server.Cluster().Members() {
		if m.IsLearner || m.ID == e.Server.MemberID() {
			continue
		}
		try, cancel := context.WithTimeout(ctx, s.opt.ElectionTimeout)
		err = e.Server.MoveLeader(try, uint64(e.Server.MemberID()), uint64(m.ID))
		cancel()
		if err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("embedded etcd: move leadership: %w", err)
	}
	return nil
}

// run is the life of the member.
func (s *Server) run(ctx context.Context, m marker) error {
	e, err := s.start(ctx, m)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.etcd = e
	s.mu.Unlock()
	defer s.shut(e)
	bound, unbound := context.WithCancel(ctx)
	var streams sync.WaitGroup
	streams.Go(func() { s.boundStreams(bound) })
	defer streams.Wait()
	defer unbound()
	s.greeter.set(phaseStarted, true)
	if err := (marker{Token: s.opt.Token, Phase: phaseStarted}).write(s.opt.DataDir); err != nil {
		return fmt.Errorf("embedded etcd: %w", err)
	}
	if err := s.becomeReady(ctx, e); err != nil {
		return err
	}
	close(s.ready)
	s.opt.Log.Info("embedded etcd ready", "member", s.opt.Name)
	return s.wait(ctx, e, nil)
}

// wait returns nil when done is closed or ctx ends, and an error when etcd ends by itself.
func (s *Server) wait(ctx context.Context, e *embed.Etcd, done <-chan struct{}) error {
	select {
	case <-ctx.Done():
		return nil
	case <-done:
		return nil
	case err := <-e.Err():
		return fmt.Errorf("embedded etcd: serving failed: %w", err)
	case <-e.Server.StopNotify():
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("embedded etcd: member %s has stopped: its cluster may have removed it, then its data in %s are of no use: move that directory away and start again, and it joins anew", s.opt.Name, s.opt.DataDir)
	}
}

// shut ends etcd. Leadership is handed on first, since closing waits for clients, and meanwhile nobody would lead. Raft
// is stopped before the listeners: etcd's Close alone hangs where the member has never become ready.
func (s *Server) shut(e *embed.Etcd) {
	ctx, cancel := context.WithTimeout(context.Background(), stopTime/4)
	defer cancel()
	if err := s.MoveLeader(ctx); err != nil {
		s.opt.Log.Debug("etcd leadership not moved", "error", err)
	}
	e.Server.HardStop()
	e.Close()
}
