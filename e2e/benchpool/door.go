package main

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/pgwire"
	"github.com/havenha/haven/internal/proxy/pooled"
)

// door is Haven's pooler alone, in front of one server.
func door(ctx context.Context, what string) error {
	fields := strings.Split(what, ",")
	if len(fields) != 4 {
		return fmt.Errorf("-door %s: want LISTEN,SERVER,USERS,SIZE", what)
	}
	size, err := strconv.Atoi(fields[3])
	if err != nil {
		return err
	}
	users, err := pgwire.OpenUserFile(fields[2])
	if err != nil {
		return err
	}
	auth, err := pgwire.NewAuthenticator(pgwire.AuthOptions{Method: pgwire.SCRAM, Secrets: users})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", fields[0])
	if err != nil {
		return err
	}
	d := pooled.New(pooled.Options{Cluster: single(fields[1]), Mode: pooled.Transaction,
		Pool: config.Pool{DefaultPoolSize: size, MaxClientConn: 5000, MaxPreparedStatements: 200, ClientLoginTimeout: time.Minute,
			QueryWaitTimeout: 2 * time.Minute, ServerLifetime: time.Hour, ServerIdleTimeout: 10 * time.Minute, ServerLoginRetry: time.Second},
		Accept: pgwire.AcceptOptions{Auth: auth}, HoldTimeout: 30 * time.Second, ConnectTimeout: 5 * time.Second,
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	context.AfterFunc(ctx, func() { l.Close() })
	var serving sync.WaitGroup
	for {
		conn, err := l.Accept()
		if err != nil {
			break // the end
		}
		serving.Go(func() { d.Serve(conn) })
	}
	d.Close()
	serving.Wait()
	return nil
}

// single is a cluster of one server, which is always the primary.
type single string

func (s single) Why() string { return "" }

func (s single) Connect(ctx context.Context, _ func()) (pooled.Seat, error) {
	conn, err := s.Dial(ctx)
	return seat{s, conn}, err
}

func (s single) Dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", string(s))
}

type seat struct {
	single
	conn net.Conn
}

func (s seat) Conn() net.Conn     { return s.conn }
func (s seat) Server() string     { return string(s.single) }
func (s seat) Primary() bool      { return true }
func (s seat) Valid() bool        { return true }
func (s seat) Failed(string)      {}
func (s seat) Leave(int64, int64) {}
