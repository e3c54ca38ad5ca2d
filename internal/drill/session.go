package drill

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// errGivenUp answers the cancel request that pgx would send for a connection that it gives up.
var errGivenUp = errors.New("the connection was given up")

// session is one connection to a server.
//
// An answer that does not come in time ends the connection, and nothing else: no cancel request is sent. A cancel ends a
// commit's wait for its standby, after which the commit is there and visible without being replicated (PostgreSQL
// manual, synchronous replication), and the load would make the very anomalies that it looks for.
type session struct {
	conn *pgx.Conn

	mu       sync.Mutex
	sockets  []net.Conn
	settled  bool // connected: who dials now wants to cancel
	unfaith  bool // the server warned that a commit is not replicated
	finished bool
}

// open connects, and asks for the load's durability. All within ctx.
func (r *Run) open(ctx context.Context, dsn string) (*session, error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	s := &session{}
	if r.load.Dial != nil {
		cfg.DialFunc = r.load.Dial
	}
	cfg.DialFunc = s.dial(cfg.DialFunc)
	cfg.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) { s.notice(n) }
	// One round trip for a statement, and no prepared statements that a pooler would have to know.
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	if s.conn, err = pgx.ConnectConfig(ctx, cfg); err != nil {
		s.drop()
		return nil, err
	}
	s.mu.Lock()
	s.settled = true
	s.mu.Unlock()
	set := "SET client_min_messages = warning" // the notice above must arrive
	if sc := r.load.SynchronousCommit; sc != "" {
		set += "; SET synchronous_commit = '" + strings.ReplaceAll(sc, "'", "''") + "'"
	}
	if err := s.conn.PgConn().Exec(ctx, set).Close(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func (s *session) dial(dial pgconn.DialFunc) pgconn.DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		s.mu.Lock()
		settled := s.settled || s.finished
		s.mu.Unlock()
		if settled {
			return nil, errGivenUp
		}
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.finished {
			return nil, errors.Join(errGivenUp, c.Close())
		}
		s.sockets = append(s.sockets, c)
		return c, nil
	}
}

// notice looks for the warnings of SyncRepWaitForLSN (PostgreSQL source, syncrep.c): a cancelled wait has 01000, one
// that was ended with its server 57P01. The text is translated and cannot be relied on.
func (s *session) notice(n *pgconn.Notice) {
	if n.SeverityUnlocalized == "WARNING" && (n.Code == "01000" || n.Code == "57P01") {
		s.mu.Lock()
		s.unfaith = true
		s.mu.Unlock()
	}
}

func (s *session) unfaithful() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unfaith
}

// close ends the connection at once and waits until pgx has let go of it.
func (s *session) close() {
	s.drop()
	if s.conn != nil {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.conn.Close(ctx) // the socket is closed already: this ends pgx's part
		<-s.conn.PgConn().CleanupDone()
	}
}

// drop closes the sockets.
func (s *session) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finished = true
	for _, c := range s.sockets {
		_ = c.Close() // what was sent is on its way or lost
	}
}
