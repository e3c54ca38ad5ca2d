package pooled

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/havenha/haven/internal/pgwire"
)

// open opens one more connection for a lane, as the books have asked.
func (d *Door) open(l *lane) {
	s, refusal := d.connect(l)
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if s == nil {
		if errors.Is(refusal, errOutdated) {
			d.book.Abandoned(l.pool, now)
		} else {
			d.book.Failed(l.pool, refusal, now)
		}
		d.carry()
		return
	}
	d.servers[s] = struct{}{}
	l.welcomes(s)
	s.account = d.book.Opened(l.pool, s, now)
	d.tasks.Go(s.run)
	if d.closed {
		s.in.end()
	}
	d.carry()
}

// welcomes notes what a new session of a server reports. If that differs, for its settings have been changed or it is another server, what
// was known of the old ones holds no more. The door is locked.
func (l *lane) welcomes(s *server) {
	l.welcome = s.reported
	if l.base != s.base {
		l.base = s.base
		clear(l.known)
	}
}

// fuse is a connection that may be cut before there is a server for it.
type fuse struct {
	mu    sync.Mutex
	blown bool
	cut   func()
}

func (f *fuse) blow() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.blown = true
	if f.cut != nil {
		f.cut()
	}
}

func (f *fuse) guard(cut func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cut = cut; f.blown {
		cut()
	}
}

// errOutdated: the server is not to be used any more, and there may be another one already.
var errOutdated = errors.New("the server is not the one to be used any more")

// connect opens and logs in. Without a server, refusal is what everybody who waits is to be told, or errOutdated; nil: try again later.
func (d *Door) connect(l *lane) (_ *server, refusal error) {
	f := &fuse{}
	seat, err := d.opt.Cluster.Connect(d.ctx, f.blow)
	if err != nil {
		return nil, nil
	}
	f.guard(func() { seat.Conn().Close() })
	login, err := d.login(l, seat, tapped(seat.Conn()))
	if err == nil && seat.Primary() {
		err = d.writable(login)
	}
	if err != nil {
		seat.Conn().Close()
		seat.Leave(0, 0)
		return nil, d.judge(l, seat, err)
	}
	s := newServer(d, l, seat, login)
	f.guard(s.cut)
	return s, nil
}

func (d *Door) login(l *lane, seat Seat, conn net.Conn) (*pgwire.Server, error) {
	d.mu.Lock()
	o := d.terms.Load().ServerTLS
	o.User, o.Database, o.Credential = l.key.User, l.key.Database, l.credential
	d.mu.Unlock()
	o.Host = d.host(seat)
	ctx, cancel := context.WithTimeout(d.ctx, d.patience())
	defer cancel()
	return pgwire.Login(ctx, conn, o)
}

// host is the name that the certificate of a server has to have.
func (d *Door) host(seat Seat) string {
	if d.opt.HostOf == nil {
		return ""
	}
	return d.opt.HostOf(seat)
}

func (d *Door) patience() time.Duration { return Patience(d.terms.Load().ConnectTimeout) }

// Patience is how long a server may take to answer, by connect_timeout: without a limit, as long as by PgBouncer's default.
func Patience(connectTimeout time.Duration) time.Duration {
	if connectTimeout > 0 {
		return connectTimeout
	}
	return 15 * time.Second
}

var errStandby = errors.New("it is in recovery")

// writable asks a server once whether it is a primary. PostgreSQL 14 and later say so by themselves.
func (d *Door) writable(login *pgwire.Server) error {
	for _, p := range login.Params {
		if p.Name == "in_hot_standby" {
			if p.Value != "off" {
				return errStandby
			}
			return nil
		}
	}
	login.Conn.SetDeadline(time.Now().Add(d.patience()))
	defer login.Conn.SetDeadline(time.Time{})
	got, err := ask(login.Conn, "SELECT pg_catalog.pg_is_in_recovery()")
	if err == nil && got != "f" {
		err = errStandby
	}
	return err
}

// judge tells a failed login to whom it concerns: the cluster if the server is not what it was taken for, the clients if
// they will not get in anyway. Without either, it is tried again.
func (d *Door) judge(l *lane, seat Seat, err error) error {
	if d.ctx.Err() != nil {
		return nil
	}
	if !seat.Valid() {
		return errOutdated
	}
	d.opt.Log.Info("a server connection could not be opened", "server", seat.Server(), "user", l.key.User, "database", l.key.Database, "error", err)
	var said *pgwire.Error
	switch {
	case errors.As(err, &said) && passes(said.Code):
	case errors.As(err, &said) && strings.HasPrefix(said.Code, "28"): // what the proxy has of the user is not what the server wants
		return &pgwire.Error{Code: "08P01", Message: "server login failed: " + said.Message}
	case errors.As(err, &said) && !down(said.Code):
		return said
	case !seat.Primary() && isOneOf(err, pgwire.ErrNoTLS, pgwire.ErrCertificate, pgwire.ErrOwnCertificate): // another replica may do
		seat.Failed(err.Error())
	case isOneOf(err, pgwire.ErrNoTLS, pgwire.ErrCertificate, pgwire.ErrOwnCertificate, pgwire.ErrCredential, pgwire.ErrImposter):
		return &pgwire.Error{Code: "08P01", Message: fmt.Sprintf("server login failed: %s", err)}
	case said != nil, errors.Is(err, errStandby):
		seat.Failed(err.Error())
	default:
		seat.Doubted(d.ctx, err.Error())
	}
	return nil
}

func isOneOf(err error, targets ...error) bool {
	return slices.ContainsFunc(targets, func(target error) bool { return errors.Is(err, target) })
}

// down tells whether a server says by that SQLSTATE that none of it can be used: it starts, recovers or shuts down (57P03), or ends
// all its processes since one has crashed (57P02).
func down(code string) bool { return code == "57P02" || code == "57P03" }

// passes tells whether a SQLSTATE is of a trouble that passes, and that may be one database's, one user's, or this one login's: a limit, no
// memory or no room (53), or an end that somebody has ordered for this process (57P).
func passes(code string) bool {
	return strings.HasPrefix(code, "53") || strings.HasPrefix(code, "57P") && !down(code)
}
