// Package session speaks SQL with one server: statements on a session, a session that is watched all the time, and the
// quoting of names, values and connection strings.
//
// Nothing here blocks longer than its context, and no error text holds a statement. How to connect, and as whom, is the
// caller's.
package session

import (
	"context"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Query runs statements on a session and returns all rows as text; a null is empty.
func Query(ctx context.Context, conn *pgconn.PgConn, sql string) ([][]string, error) {
	results, err := conn.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	var rows [][]string
	for _, r := range results {
		for _, row := range r.Rows {
			text := make([]string, len(row))
			for n, v := range row {
				text[n] = string(v)
			}
			rows = append(rows, text)
		}
	}
	return rows, nil
}

// Close ends a session within a second.
func Close(conn *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx) // nothing depends on an orderly goodbye
}

// QuoteIdent quotes a name.
func QuoteIdent(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }

// QuoteLiteral quotes for standard_conforming_strings in either setting.
func QuoteLiteral(s string) string {
	s = strings.ReplaceAll(s, "'", "''")
	if strings.Contains(s, `\`) {
		return " E'" + strings.ReplaceAll(s, `\`, `\\`) + "'"
	}
	return "'" + s + "'"
}
