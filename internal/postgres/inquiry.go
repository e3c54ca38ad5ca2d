package postgres

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/havenha/haven/internal/postgres/session"
	"github.com/jackc/pgx/v5/pgconn"
)

// ShowSettings are settings of the running server, as pg_settings shows them. Names that it does not know are left out.
func (i *Instance) ShowSettings(ctx context.Context, names []string) (map[string]string, error) {
	quoted := make([]string, len(names))
	for n, name := range names {
		quoted[n] = "'" + strings.ReplaceAll(name, "'", "''") + "'"
	}
	// A session without parameters of its own: what every client gets.
	cfg, err := i.localConfig(i.opt.Database, "Haven")
	if err != nil {
		return nil, err
	}
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("show settings: %w", err)
	}
	defer session.Close(conn)
	rows, err := session.Query(ctx, conn, "SELECT name, setting FROM pg_catalog.pg_settings WHERE name IN ("+strings.Join(quoted, ", ")+")")
	if err != nil {
		return nil, fmt.Errorf("show settings: %w", err)
	}
	out := map[string]string{}
	for _, r := range rows {
		out[r[0]] = r[1]
	}
	return out, nil
}

// Conflicts counts the queries on a standby that were cancelled since they were in the way of replay
// (pg_stat_database_conflicts).
func (i *Instance) Conflicts(ctx context.Context) (int64, error) {
	rows, err := i.query(ctx, "SELECT coalesce(sum(conflicts), 0)::bigint FROM pg_stat_database")
	if err != nil || len(rows) != 1 {
		return 0, fmt.Errorf("count conflicts: %w", err)
	}
	return strconv.ParseInt(rows[0][0], 10, 64)
}
