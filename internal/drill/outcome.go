package drill

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"

	"github.com/havenha/haven/internal/check"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// stage is how far an operation had come when it ended.
type stage int

const (
	connecting stage = iota // no statement was sent
	open                    // in a transaction, COMMIT not sent
	committing              // a statement that commits by itself, or COMMIT, may have been sent
)

// errUnconfirmed means that the server acknowledged a commit and warned that it is not replicated.
var errUnconfirmed = errors.New("acknowledged with a warning that it may not be replicated")

// errNoRow means that a read found nothing to lock, and so was not confirmed by a commit.
var errNoRow = errors.New("the row is not there")

// judge says what an error proves.
//
// Without a connection nothing was asked. A transaction whose COMMIT was never sent is rolled back whatever happens to
// it. After that only an ERROR of the server itself proves that it was not done: PostgreSQL cannot report one once the
// commit record is written (it would have to abort a committed transaction, which is a PANIC). A FATAL proves nothing:
// 57P01 to 57P05 end a backend also in the wait after its commit, and poolers answer with 08xxx in the server's place.
// 40003 and 08007 say themselves that they do not know. pgconn.SafeToRetry is not asked: it was seen to call a COMMIT
// safe to retry that had been sent, and was done, when the connection broke before the answer.
func judge(err error, at stage) check.Outcome {
	var pg *pgconn.PgError
	switch {
	case err == nil:
		return check.OK
	case errors.Is(err, errUnconfirmed), errors.Is(err, errNoRow):
		return check.Unknown
	case at != committing:
		return check.Failed
	case errors.Is(err, pgx.ErrTxCommitRollback):
		return check.Failed
	case errors.As(err, &pg) && proves(pg):
		return check.Failed
	}
	return check.Unknown
}

func proves(e *pgconn.PgError) bool {
	severity := e.SeverityUnlocalized
	if severity == "" {
		severity = e.Severity // servers before 9.6 and some poolers send no other
	}
	return severity == "ERROR" && e.Code != "40003" && !strings.HasPrefix(e.Code, "08") && !strings.HasPrefix(e.Code, "57P")
}

// describe is the SQLSTATE of an error and a short text: the server's message, or what happened to the connection. The
// second kind is from a small fixed set, so that it can be counted.
func describe(err error, at stage) (sqlstate, text string) {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code, pg.Message
	}
	where := ""
	if at == connecting {
		where = "connect: "
	}
	var timeout net.Error
	switch {
	case errors.Is(err, errUnconfirmed), errors.Is(err, errNoRow), errors.Is(err, pgx.ErrTxCommitRollback):
		return "", err.Error()
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "", where + "no answer in time"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "", where + "refused"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "", where + "unreachable"
	}
	return "", where + "connection lost"
}
