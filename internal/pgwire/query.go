package pgwire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
)

// DefaultAuthQuery finds no password that has expired (rolvaliduntil), as PgBouncer's does from 1.24.1 on (CVE-2025-2291).
const DefaultAuthQuery = "SELECT rolname, CASE WHEN rolvaliduntil < pg_catalog.now() THEN NULL ELSE rolpassword END FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin"

// QuerySecret runs PgBouncer's auth_query with the name as its only parameter: the second column of the first row is the
// secret, null means none. ErrUnknownUser: the query found no row. After that, or an *Error of severity ERROR, the
// session can be used again; after any other error it cannot, and the caller closes it.
func QuerySecret(ctx context.Context, s *Server, query, user string) (Secret, error) {
	q := secretQuery{server: s}
	err := bounded(ctx, s.Conn, func() error {
		if _, err := s.Conn.Write(appendQuery(nil, query, user)); err != nil {
			return err
		}
		for range maxReplies {
			ready, err := q.step()
			if ready || err != nil {
				return err
			}
		}
		return errors.New("the server sends messages without end")
	})
	switch {
	case err == nil:
		err = q.failed
	case q.failed != nil:
		err = fmt.Errorf("%w, then %w", q.failed, err)
	}
	switch {
	case err != nil:
		return Secret{}, fmt.Errorf("auth_query: %w", err)
	case !q.found:
		return Secret{}, ErrUnknownUser
	}
	return ParseSecret(q.text), nil
}

// appendQuery appends the extended protocol's messages for a query with one parameter, of which the first row is wanted.
// The parameter's type is the server's to infer.
func appendQuery(b []byte, query, parameter string) []byte {
	parameter = string(text(nil, parameter))
	parameter = parameter[:len(parameter)-1]
	b = finish(b, func(b []byte) []byte { return append(text(text(b, ""), query), 0, 0) }, 'P')
	b = finish(b, func(b []byte) []byte {
		b = append(text(text(b, ""), ""), 0, 0, 0, 1) // no formats: text; one parameter
		b = binary.BigEndian.AppendUint32(b, uint32(len(parameter)))
		return append(append(b, parameter...), 0, 0)
	}, 'B')
	b = finish(b, func(b []byte) []byte { return binary.BigEndian.AppendUint32(text(b, ""), 1) }, 'E')
	return append(b, 'S', 0, 0, 0, 4)
}

// secretQuery is an auth_query that runs.
type secretQuery struct {
	server *Server
	found  bool
	text   string
	failed error // what was wrong, while the session goes on to the end of the query
}

func (q *secretQuery) step() (ready bool, err error) {
	kind, body, err := readMessage(q.server.Conn, maxReply)
	if err != nil {
		return false, err
	}
	switch kind {
	case 'D':
		if !q.found && q.failed == nil {
			q.found = true
			q.text, q.failed = secondColumn(body)
		}
	case 'E':
		e, err := ParseError(body)
		if err != nil {
			return false, err
		}
		if e.Severity != "ERROR" {
			return false, e
		}
		q.failed = e
	case 'S':
		return false, q.server.report(body)
	case 'Z':
		return true, nil
	case '1', '2', 'C', 's', 'N', 'A', 'I': // completions, notices, notifications
	default:
		return false, fmt.Errorf("the server sends message %q", kind)
	}
	return false, nil
}

// secondColumn reads a DataRow; null is the empty text.
func secondColumn(body []byte) (string, error) {
	r := reader{b: body}
	if n := r.uint16(); n < 2 {
		return "", &Error{Severity: "ERROR", Code: "42601", Message: fmt.Sprintf("auth_query gives %d columns: the name and the secret are needed", n)}
	}
	var column []byte
	for range 2 {
		column = nil
		if n := int32(r.uint32()); n >= 0 {
			column = r.take(int(n))
		}
	}
	if r.failed {
		return "", errTooShort
	}
	return string(column), nil
}
