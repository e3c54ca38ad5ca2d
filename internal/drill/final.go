package drill

import (
	"context"
	"errors"
	"fmt"

	"github.com/havenha/haven/internal/check"
	"github.com/jackc/pgx/v5"
)

// part is how many rows one final line of a history holds.
const part = 1000

// errStandby means that the server that was to be read back is in recovery.
var errStandby = errors.New("the server is in recovery: read the primary back, once all has healed")

// Final reads the database back by dsn, which must lead to the primary, and adds what it finds to the history. Call it
// after Stop, once all faults are undone and all members follow. It also returns the first error of writing the history
// file.
func (r *Run) Final(ctx context.Context, dsn string) error {
	s, err := r.open(ctx, dsn)
	if err != nil {
		return fmt.Errorf("read the database back: %w", err)
	}
	defer s.close()
	tx, err := s.conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly})
	if err != nil {
		return fmt.Errorf("read the database back: %w", err)
	}
	parts, err := r.readBack(ctx, tx)
	if err != nil {
		return fmt.Errorf("read the database back: %w", err)
	}
	for _, p := range parts {
		r.append(check.Line{Final: &p})
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.problem != nil {
		return fmt.Errorf("the history file is not whole: %w", r.problem)
	}
	return nil
}

// readBack reads all tables in one snapshot.
func (r *Run) readBack(ctx context.Context, tx pgx.Tx) ([]check.Final, error) {
	var standby bool
	if err := tx.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&standby); err != nil {
		return nil, err
	}
	if standby {
		return nil, errStandby
	}
	var out parts
	read := func(query string, visit func(*check.Final), dest ...any) error {
		rows, err := tx.Query(ctx, query)
		if err != nil {
			return err
		}
		_, err = pgx.ForEachRow(rows, dest, func() error {
			visit(out.next())
			return nil
		})
		return err
	}
	var id, value int64
	var key string
	var list []int64
	var number int
	var moved check.Moved
	t := r.tables
	err := errors.Join(
		read("SELECT id FROM "+t.ledger+" ORDER BY id", func(f *check.Final) { f.Ledger = append(f.Ledger, id) }, &id),
		read("SELECT key, value FROM "+t.register, func(f *check.Final) { put(&f.Registers, key, value) }, &key, &value),
		read("SELECT key, value FROM "+t.list, func(f *check.Final) { put(&f.Lists, key, append([]int64(nil), list...)) }, &key, &list),
		read("SELECT key, value FROM "+t.session, func(f *check.Final) { put(&f.Sessions, key, value) }, &key, &value),
		read("SELECT id, balance FROM "+t.account, func(f *check.Final) { put(&f.Balances, number, value) }, &number, &value),
		read("SELECT id, source, target, amount FROM "+t.transfer+" ORDER BY id", func(f *check.Final) { f.Transfers = append(f.Transfers, moved) },
			&moved.ID, &moved.From, &moved.To, &moved.Amount),
	)
	if err != nil {
		return nil, err
	}
	out.next()
	out.all[len(out.all)-1].Complete = true
	return out.all, nil
}

// parts are final lines of a bounded length.
type parts struct {
	all  []check.Final
	rows int
}

// next is the line that the next row belongs to.
func (p *parts) next() *check.Final {
	if p.rows%part == 0 {
		p.all = append(p.all, check.Final{})
	}
	p.rows++
	return &p.all[len(p.all)-1]
}

func put[K comparable, V any](m *map[K]V, key K, value V) {
	if *m == nil {
		*m = map[K]V{}
	}
	(*m)[key] = value
}
