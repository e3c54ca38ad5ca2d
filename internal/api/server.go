package api

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/havenha/haven/internal/config"
)

// Bounds of one connection. A switchover answers late, so writing has no bound of its own.
const (
	headerTimeout   = 10 * time.Second
	bodyTimeout     = 30 * time.Second
	idleTimeout     = 30 * time.Second
	keepAlive       = 10 * time.Second
	shutdownTimeout = 2 * time.Second
	maxBody         = 4 << 20
)

// Server serves the REST interface of one node. Make it with New, serve with Run.
type Server struct {
	opt     Options
	log     *slog.Logger
	http    *http.Server
	started time.Time

	mu       sync.Mutex
	settings *settings
	listener net.Listener
	serving  bool
	closed   bool

	owned sync.WaitGroup // goroutines that serve, and handlers
	fail  chan error
}

// New binds the address and reads the certificate. Requests are answered once Run runs. An error says which address or
// file is at fault.
func New(o Options) (*Server, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{opt: o, log: o.Log, started: time.Now(), fail: make(chan error, 1)}
	var err error
	if s.settings, err = newSettings(o.Node, o.Log); err != nil {
		return nil, err
	}
	if s.listener, err = s.listen(s.settings); err != nil {
		return nil, err
	}
	s.http = &http.Server{
		Handler: http.HandlerFunc(s.serve), ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout,
		ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
		// A certificate for HTTP/2 changes nothing here: every known client speaks HTTP/1.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
	return s, nil
}

// Addr is the address that the server listens on.
func (s *Server) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listener.Addr()
}

// enter counts a handler, so that Run waits for it; false once Run is ending.
func (s *Server) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.owned.Add(1)
	}
	return !s.closed
}

func (s *Server) current() *settings {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.settings
}

// listen binds the address of the settings. With TLS, the handshake takes place in the connection's own goroutine.
func (s *Server) listen(set *settings) (net.Listener, error) {
	host, port, err := net.SplitHostPort(set.node.Listen)
	if err != nil {
		return nil, fmt.Errorf("restapi.listen %q is not host:port: %w", set.node.Listen, err)
	}
	if host == "*" {
		host = ""
	}
	lc := net.ListenConfig{KeepAlive: keepAlive}
	ln, err := lc.Listen(context.Background(), "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return nil, fmt.Errorf("restapi: cannot listen on %s: %w: stop what uses it, or set restapi.listen", set.node.Listen, err)
	}
	if set.tls == nil {
		return ln, nil
	}
	return tls.NewListener(ln, &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return s.current().tls, nil },
	}), nil
}

// Run serves until ctx ends, then ends all requests and waits for them. It may be called once.
func (s *Server) Run(ctx context.Context) error {
	requests, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	s.http.BaseContext = func(net.Listener) context.Context { return requests }
	s.serving = true
	s.start(s.listener)
	s.log.Info("rest api listens", "address", s.listener.Addr().String())
	s.mu.Unlock()
	var err error
	select {
	case <-ctx.Done():
	case err = <-s.fail:
	}
	cancel()
	s.shut()
	s.owned.Wait()
	return err
}

// start serves a listener; s.mu is held.
func (s *Server) start(ln net.Listener) {
	s.owned.Add(1)
	go func() {
		defer s.owned.Done()
		err := s.http.Serve(ln)
		if err == nil || errors.Is(err, http.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
			return
		}
		select {
		case s.fail <- fmt.Errorf("restapi: serve: %w", err):
		default:
		}
	}()
}

func (s *Server) shut() {
	s.mu.Lock()
	s.closed = true
	_ = s.listener.Close() // it may be closed already
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), shutdownTimeout)
	defer cancel()
	if err := s.http.Shutdown(ctx); err != nil {
		_ = s.http.Close() // what remains is a connection that does not read
	}
}

// Reload takes other settings into use. Certificates are read again; the listener is made anew only if its address, or
// whether it speaks TLS, changed. With an error the former settings stay in force.
func (s *Server) Reload(r *config.RESTAPI) error {
	next, err := newSettings(r, s.log)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	former := s.settings
	if former.node.Listen == next.node.Listen && (former.tls == nil) == (next.tls == nil) || s.closed {
		s.settings = next
		return nil
	}
	return s.move(former, next)
}

func portOf(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

// move changes listeners. On one and the same port the old one has to go first.
func (s *Server) move(former, next *settings) error {
	same := portOf(former.node.Listen) == portOf(next.node.Listen) // also where one of the addresses is a part of the other
	if same {
		_ = s.listener.Close()
	}
	ln, err := s.listen(next)
	if err != nil && same {
		var back error
		ln, back = s.listen(former)
		err = errors.Join(err, back)
	}
	if ln == nil {
		return err
	}
	if err == nil {
		s.settings = next
	}
	if !same {
		_ = s.listener.Close()
	}
	s.listener = ln
	if s.serving {
		s.start(ln)
	}
	s.log.Info("rest api listens", "address", ln.Addr().String())
	return err
}
