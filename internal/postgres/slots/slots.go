// Package slots brings the replication slots of one server in order by statements on a session that the caller has opened,
// and carries logical slots from a primary to a standby by their state files, as PostgreSQL before 17 has no other way to.
//
// A slot that somebody uses is never touched, and a slot is never moved backwards, nor past what the server has replayed:
// whoever reads on from it after a promotion misses nothing. Which slots there are to be is the caller's to say, and that no
// server runs while state files are put in place.
package slots

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/postgres/session"
	"github.com/jackc/pgx/v5/pgconn"
)

// Slot is one row of pg_replication_slots.
type Slot struct {
	Name, Type        string // Type: physical or logical
	Database, Plugin  string
	Active, Temporary bool
	Restart           cluster.LSN // 0: it reserves no WAL
	Confirmed         cluster.LSN // of a logical one: what its reader has confirmed
	Xmin, CatalogXmin uint32      // 0: none
	Lost              bool        // what it needs is gone (wal_status lost, or invalidated by a conflict with recovery)
	// Native: PostgreSQL itself keeps it on standbys (failover, synced: PostgreSQL 17).
	Native bool
}

// Logical is a logical slot that is to be there.
type Logical struct{ Name, Database, Plugin string }

// Plan is what the slots of a server are to be.
type Plan struct {
	Physical []string  // made where they are missing, reserving WAL at once
	Logical  []Logical // made where they are missing; a primary's only
	// Advance says how far slots are moved that nobody uses: a standby's copies. Physical ones that hold an xmin there, from
	// the server's time as primary, are made anew: by hot_standby_feedback they would hold back vacuum on the primary.
	Advance map[string]cluster.LSN
	// Drop says which of the slots that nobody uses are removed; nil: none. What is wanted is not asked for.
	Drop func(Slot) bool
}

// Dial opens a session on a database of the server.
type Dial func(ctx context.Context, database string) (*pgconn.PgConn, error)

// The columns of later versions are read from the row as JSON; a null is not true.
const listSQL = `SELECT slot_name, slot_type, coalesce(database, ''), coalesce(plugin, ''), active, temporary,
 coalesce(restart_lsn::text, '0/0'), coalesce(confirmed_flush_lsn::text, '0/0'), coalesce(xmin::text, '0'), coalesce(catalog_xmin::text, '0'),
 coalesce(wal_status = 'lost', false) OR coalesce((to_jsonb(s) ->> 'conflicting')::bool, false) OR (to_jsonb(s) ->> 'invalidation_reason') IS NOT NULL,
 coalesce((to_jsonb(s) ->> 'failover')::bool, false) OR coalesce((to_jsonb(s) ->> 'synced')::bool, false)
 FROM pg_catalog.pg_replication_slots s ORDER BY 1`

// List reads all slots of a server, sorted by name.
func List(ctx context.Context, conn *pgconn.PgConn) ([]Slot, error) {
	rows, err := session.Query(ctx, conn, listSQL)
	if err != nil {
		return nil, fmt.Errorf("list the replication slots: %w", err)
	}
	out := make([]Slot, len(rows))
	for n, r := range rows {
		restart, err1 := cluster.ParseLSN(r[6])
		confirmed, err2 := cluster.ParseLSN(r[7])
		xmin, err3 := strconv.ParseUint(r[8], 10, 32)
		catalog, err4 := strconv.ParseUint(r[9], 10, 32)
		if err := errors.Join(err1, err2, err3, err4); err != nil {
			return nil, fmt.Errorf("list the replication slots: %s: %w", r[0], err)
		}
		out[n] = Slot{Name: r[0], Type: r[1], Database: r[2], Plugin: r[3], Active: r[4] == "t", Temporary: r[5] == "t",
			Restart: restart, Confirmed: confirmed, Xmin: uint32(xmin), CatalogXmin: uint32(catalog), Lost: r[10] == "t", Native: r[11] == "t"}
	}
	return out, nil
}

// Logger is told what was done, by slot.
type Logger func(what, slot string)

// Apply carries out a plan. One slot that cannot be brought in order does not keep the others from it; the errors of all
// are joined. It may take as long as the WAL that logical slots are moved over takes to be read.
func Apply(ctx context.Context, dial Dial, p Plan, log Logger) error {
	conn, err := dial(ctx, "")
	if err != nil {
		return fmt.Errorf("replication slots: %w", err)
	}
	defer session.Close(conn)
	have, err := List(ctx, conn)
	if err != nil {
		return err
	}
	k := keeper{conn: conn, dial: dial, log: log}
	var errs []error
	have, err = k.drop(ctx, have, p)
	errs = append(errs, err, k.create(ctx, have, p))
	if len(p.Advance) > 0 {
		errs = append(errs, k.advance(ctx, have, p.Advance))
	}
	return errors.Join(errs...)
}

type keeper struct {
	conn *pgconn.PgConn
	dial Dial
	log  Logger
}

// run carries out one function on one slot, and says what it was.
func (k keeper) run(ctx context.Context, conn *pgconn.PgConn, what, slot, function string, args ...string) error {
	quoted := []string{session.QuoteLiteral(slot)}
	for _, a := range args {
		quoted = append(quoted, session.QuoteLiteral(a))
	}
	if _, err := session.Query(ctx, conn, "SELECT pg_catalog."+function+"("+strings.Join(quoted, ", ")+")"); err != nil {
		return fmt.Errorf("replication slot %s cannot be %s: %w", slot, what, err)
	}
	if what != "" && k.log != nil {
		k.log(what, slot)
	}
	return nil
}

func (p Plan) wants(name string) bool {
	return slices.Contains(p.Physical, name) || slices.ContainsFunc(p.Logical, func(l Logical) bool { return l.Name == name })
}

// drop returns what is left.
func (k keeper) drop(ctx context.Context, have []Slot, p Plan) ([]Slot, error) {
	var left []Slot
	var errs []error
	for _, s := range have {
		position, copied := p.Advance[s.Name]
		stuck := copied && s.Type == "physical" && s.Xmin|s.CatalogXmin != 0 && position != 0
		unwanted := p.Drop != nil && !p.wants(s.Name) && p.Drop(s)
		if s.Active || s.Temporary || !stuck && !unwanted {
			left = append(left, s)
			continue
		}
		if err := k.run(ctx, k.conn, "dropped", s.Name, "pg_drop_replication_slot"); err != nil {
			errs, left = append(errs, err), append(left, s)
		}
	}
	return left, errors.Join(errs...)
}

func (k keeper) create(ctx context.Context, have []Slot, p Plan) error {
	var errs []error
	there := func(name string) bool { return slices.ContainsFunc(have, func(s Slot) bool { return s.Name == name }) }
	for _, name := range p.Physical {
		if !there(name) {
			errs = append(errs, k.run(ctx, k.conn, "created", name, "pg_create_physical_replication_slot", "true"))
		}
	}
	for _, l := range p.Logical {
		if !there(l.Name) {
			errs = append(errs, k.in(ctx, l.Database, func(conn *pgconn.PgConn) error {
				return k.run(ctx, conn, "created", l.Name, "pg_create_logical_replication_slot", l.Plugin)
			}))
		}
	}
	return errors.Join(errs...)
}

// in opens a session on a database for the time of one call: a logical slot is its database's.
func (k keeper) in(ctx context.Context, database string, f func(*pgconn.PgConn) error) error {
	conn, err := k.dial(ctx, database)
	if err != nil {
		return fmt.Errorf("database %s: %w", database, err)
	}
	defer session.Close(conn)
	return f(conn)
}

// advance moves copies forward, never past what was replayed: pg_replication_slot_advance refuses to go back.
func (k keeper) advance(ctx context.Context, have []Slot, to map[string]cluster.LSN) error {
	rows, err := session.Query(ctx, k.conn, "SELECT coalesce(pg_catalog.pg_last_wal_replay_lsn(), pg_catalog.pg_current_wal_flush_lsn())::text")
	if err != nil {
		return fmt.Errorf("advance slots: %w", err)
	}
	replayed, err := cluster.ParseLSN(rows[0][0])
	if err != nil {
		return fmt.Errorf("advance slots: %w", err)
	}
	var errs []error
	for _, s := range have {
		target := min(to[s.Name], replayed)
		at := s.Restart
		if s.Type == "logical" {
			at = s.Confirmed
		}
		if at == 0 || at >= target || s.Active || s.Temporary || s.Lost || s.Native {
			continue
		}
		move := func(conn *pgconn.PgConn) error {
			return k.run(ctx, conn, "", s.Name, "pg_replication_slot_advance", target.String())
		}
		if s.Type == "logical" {
			errs = append(errs, k.in(ctx, s.Database, move))
		} else {
			errs = append(errs, move(k.conn))
		}
	}
	return errors.Join(errs...)
}
