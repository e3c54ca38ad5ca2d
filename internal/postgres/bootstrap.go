package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/havenha/haven/internal/postgres/session"
	"github.com/jackc/pgx/v5/pgconn"
)

// Bootstrap is what a new cluster gets besides its roles.
type Bootstrap struct {
	Databases []Database
	// PostCommand is a command of the operator's (see Hook) with the connection string of the new server as its last argument.
	PostCommand string
}

// Database is a database to be created, with its owner. An owner that does not exist is created with the password.
type Database struct{ Name, Owner, Password string }

// PostBootstrap makes the roles and databases of a new cluster: passwords are stored as SCRAM-SHA-256, the replication
// role gets LOGIN REPLICATION, the rewind role, if it is another one than the superuser, the functions that pg_rewind
// calls (PostgreSQL manual, pg_rewind). It may be repeated. Statement logging is off in its session, so that no password
// reaches the server's log.
func (i *Instance) PostBootstrap(ctx context.Context, b Bootstrap) error {
	conn, err := i.connect(ctx, "", quietParams())
	if err != nil {
		return fmt.Errorf("post-bootstrap: %w", err)
	}
	defer session.Close(conn)
	if err := i.makeRoles(ctx, conn); err != nil {
		return fmt.Errorf("post-bootstrap: %w", err)
	}
	if b.PostCommand != "" {
		if err := i.runPostCommand(ctx, b.PostCommand); err != nil {
			return fmt.Errorf("post-bootstrap: post_init script %s returned non-zero code: %w", b.PostCommand, err)
		}
	}
	for _, d := range b.Databases {
		if err := makeDatabase(ctx, conn, d); err != nil {
			return fmt.Errorf("post-bootstrap: database %s: %w", d.Name, err)
		}
	}
	return nil
}

func quietParams() map[string]string {
	return map[string]string{
		"log_statement": "none", "log_min_duration_statement": "-1", "log_min_error_statement": "panic",
		"log_min_duration_sample": "-1", "log_transaction_sample_rate": "0",
		"password_encryption": "scram-sha-256", "pg_stat_statements.track_utility": "off", "pgaudit.log": "none",
	}
}

func (i *Instance) makeRoles(ctx context.Context, conn *pgconn.PgConn) error {
	l := i.logins()
	if err := makeRole(ctx, conn, l.Superuser, "SUPERUSER LOGIN"); err != nil {
		return err
	}
	if l.Replication.Username != l.Superuser.Username {
		if err := makeRole(ctx, conn, l.Replication, "LOGIN REPLICATION"); err != nil {
			return err
		}
	}
	rewind := l.Rewind
	if rewind.Username == l.Superuser.Username {
		return nil
	}
	options := "LOGIN"
	if rewind.Username == l.Replication.Username {
		options = "LOGIN REPLICATION"
	}
	if err := makeRole(ctx, conn, rewind, options); err != nil {
		return err
	}
	for _, f := range []string{"pg_ls_dir(text, boolean, boolean)", "pg_stat_file(text, boolean)", "pg_read_binary_file(text)",
		"pg_read_binary_file(text, bigint, bigint, boolean)"} {
		sql := "GRANT EXECUTE ON FUNCTION pg_catalog." + f + " TO " + session.QuoteIdent(rewind.Username)
		if _, err := session.Query(ctx, conn, sql); err != nil {
			return fmt.Errorf("rewind role %s: %w", rewind.Username, err)
		}
	}
	return nil
}

// makeRole creates or alters a role. No error text of it can hold the password: the statement is not part of it.
func makeRole(ctx context.Context, conn *pgconn.PgConn, c Credentials, options string) error {
	rows, err := session.Query(ctx, conn, "SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = "+session.QuoteLiteral(c.Username))
	if err != nil {
		return fmt.Errorf("role %s: %w", c.Username, err)
	}
	verb := "CREATE"
	if len(rows) > 0 {
		verb = "ALTER"
	}
	sql := verb + " ROLE " + session.QuoteIdent(c.Username) + " WITH " + options
	if c.Password != "" {
		sql += " PASSWORD " + session.QuoteLiteral(c.Password)
	}
	if _, err := session.Query(ctx, conn, sql); err != nil {
		return fmt.Errorf("role %s: %w", c.Username, err)
	}
	return nil
}

func makeDatabase(ctx context.Context, conn *pgconn.PgConn, d Database) error {
	if d.Owner != "" {
		rows, err := session.Query(ctx, conn, "SELECT 1 FROM pg_catalog.pg_roles WHERE rolname = "+session.QuoteLiteral(d.Owner))
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			if err := makeRole(ctx, conn, Credentials{Username: d.Owner, Password: d.Password}, "LOGIN"); err != nil {
				return err
			}
		}
	}
	rows, err := session.Query(ctx, conn, "SELECT 1 FROM pg_catalog.pg_database WHERE datname = "+session.QuoteLiteral(d.Name))
	if err != nil || len(rows) > 0 {
		return err
	}
	sql := "CREATE DATABASE " + session.QuoteIdent(d.Name)
	if d.Owner != "" {
		sql += " OWNER " + session.QuoteIdent(d.Owner)
	}
	_, err = session.Query(ctx, conn, sql)
	return err
}

func (i *Instance) runPostCommand(ctx context.Context, command string) error {
	if err := i.writePgPass(nil); err != nil {
		return err
	}
	return i.RunHook(ctx, Hook{What: "bootstrap.post_bootstrap", Line: command, Args: []string{i.localURL()}, Grace: 10 * time.Second,
		Env: []string{"PGPASSFILE=" + i.opt.PgPass, "PGOPTIONS=-c synchronous_commit=local -c statement_timeout=0"}})
}

func (i *Instance) localURL() string {
	u := url.URL{Scheme: "postgresql", User: url.User(i.logins().Superuser.Username), Path: "/" + i.opt.Database}
	if host := i.localHost(); strings.HasPrefix(host, "/") {
		u.RawQuery = url.Values{"host": {host}, "port": {strconv.Itoa(i.opt.Port)}}.Encode()
	} else {
		u.Host = net.JoinHostPort(host, strconv.Itoa(i.opt.Port))
	}
	return u.String()
}

// Errors of PostgreSQL that mean that the server is there but does not serve yet or any more.
const (
	codeCannotConnectNow = "57P03"
	codeAdminShutdown    = "57P01"
	codeCrashShutdown    = "57P02"
)

// Refused tells whether err is the server's own answer that it is starting, stopping or recovering: it is there, but
// serves nobody at the moment.
func Refused(err error) bool {
	var pe *pgconn.PgError
	if !errors.As(err, &pe) {
		return false
	}
	return pe.Code == codeCannotConnectNow || pe.Code == codeAdminShutdown || pe.Code == codeCrashShutdown
}
