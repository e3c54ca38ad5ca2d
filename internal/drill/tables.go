package drill

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5"
)

// tables are the qualified names of the tables of a load.
type tables struct{ schema, ledger, register, list, account, transfer, session string }

func tablesIn(schema string) tables {
	name := func(t string) string { return pgx.Identifier{schema, t}.Sanitize() }
	return tables{
		schema: pgx.Identifier{schema}.Sanitize(), ledger: name("ledger"), register: name("register"), list: name("list"),
		account: name("account"), transfer: name("transfer"), session: name("session"),
	}
}

// makeTables makes the schema anew. No table has a unique key over operations: a row that came twice must be seen.
func (r *Run) makeTables(ctx context.Context, dsn string) error {
	s, err := r.open(ctx, dsn)
	if err != nil {
		return err
	}
	defer s.close()
	t := r.tables
	script := fmt.Sprintf(`SET client_min_messages = warning;
BEGIN;
DROP SCHEMA IF EXISTS %[1]s CASCADE;
CREATE SCHEMA %[1]s;
CREATE TABLE %[2]s (id bigint NOT NULL, client int NOT NULL);
CREATE TABLE %[3]s (key text PRIMARY KEY, value bigint NOT NULL);
CREATE TABLE %[4]s (key text PRIMARY KEY, value bigint[] NOT NULL);
CREATE TABLE %[5]s (id int PRIMARY KEY, balance bigint NOT NULL);
CREATE TABLE %[6]s (id bigint NOT NULL, source int NOT NULL, target int NOT NULL, amount bigint NOT NULL);
CREATE TABLE %[7]s (key text PRIMARY KEY, value bigint NOT NULL);
INSERT INTO %[3]s SELECT 'r' || n, 0 FROM generate_series(0, %[8]d - 1) n;
INSERT INTO %[5]s SELECT n, %[10]d FROM generate_series(0, %[9]d - 1) n;
COMMIT`, t.schema, t.ledger, t.register, t.list, t.account, t.transfer, t.session, r.load.Registers, r.load.Accounts, openingBalance)
	return s.conn.PgConn().Exec(ctx, script).Close()
}

// awaitTables waits, no longer than an operation may take, until every route shows the tables: a standby replays them a
// moment later. A route that does not is no error here; its operations will tell.
func (r *Run) awaitTables(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, r.load.Timeout)
	defer cancel()
	all := maps.Clone(r.load.Routes)
	maps.Copy(all, r.load.ReadRoutes)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		for ctx.Err() == nil && r.sees(ctx, all[name]) != nil {
			pause(ctx, r.load.Pause)
		}
	}
}

// errOldTables means that the tables of an earlier load are still shown.
var errOldTables = errors.New("the tables are not empty")

func (r *Run) sees(ctx context.Context, dsn string) error {
	s, err := r.open(ctx, dsn)
	if err != nil {
		return err
	}
	defer s.close()
	var rows, accounts int
	query := "SELECT (SELECT count(*) FROM " + r.tables.ledger + "), (SELECT count(*) FROM " + r.tables.account + ")"
	if err := s.conn.QueryRow(ctx, query).Scan(&rows, &accounts); err != nil {
		return err
	}
	if rows > 0 || accounts != r.load.Accounts {
		return errOldTables
	}
	return nil
}
