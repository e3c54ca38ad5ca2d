package postgres

import (
	"context"
	"fmt"
	"slices"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/postgres/session"
)

const slotsSQL = `SELECT slot_name, slot_type, active, temporary, coalesce(restart_lsn::text, '') FROM pg_catalog.pg_replication_slots`

// EnsureSlots creates the physical slots that are wanted and missing, reserving WAL at once. Other physical ones that are
// neither active nor temporary are removed where drop says so; nil: none. Logical slots are never touched.
func (i *Instance) EnsureSlots(ctx context.Context, want []string, drop func(name string) bool) error {
	conn, err := i.connect(ctx, "", nil)
	if err != nil {
		return fmt.Errorf("replication slots: %w", err)
	}
	defer session.Close(conn)
	rows, err := session.Query(ctx, conn, slotsSQL)
	if err != nil {
		return fmt.Errorf("replication slots: list: %w", err)
	}
	have := map[string]bool{}
	for _, r := range rows {
		name, kind, active, temporary := r[0], r[1], r[2] == "t", r[3] == "t"
		have[name] = true
		if kind == "physical" && !temporary && !active && !slices.Contains(want, name) && drop != nil && drop(name) {
			if _, err := session.Query(ctx, conn, "SELECT pg_catalog.pg_drop_replication_slot("+session.QuoteLiteral(name)+")"); err != nil {
				return fmt.Errorf("replication slots: drop %s: %w", name, err)
			}
			i.log.Info("replication slot dropped", "slot", name)
		}
	}
	for _, name := range want {
		if have[name] {
			continue
		}
		if _, err := session.Query(ctx, conn, "SELECT pg_catalog.pg_create_physical_replication_slot("+session.QuoteLiteral(name)+", true)"); err != nil {
			return fmt.Errorf("replication slots: create %s: %w", name, err)
		}
		i.log.Info("replication slot created", "slot", name)
	}
	return nil
}

// AdvanceSlots moves inactive physical slots forward to the positions given, so that copies of another member's slots do
// not hold back WAL for ever. Slots that are active, absent or further already are left alone.
func (i *Instance) AdvanceSlots(ctx context.Context, to map[string]cluster.LSN) error {
	conn, err := i.connect(ctx, "", nil)
	if err != nil {
		return fmt.Errorf("advance slots: %w", err)
	}
	defer session.Close(conn)
	rows, err := session.Query(ctx, conn, slotsSQL)
	if err != nil {
		return fmt.Errorf("advance slots: list: %w", err)
	}
	for _, r := range rows {
		target, wanted := to[r[0]]
		at, err := cluster.ParseLSN(r[4])
		if !wanted || err != nil || at >= target || r[1] != "physical" || r[2] == "t" {
			continue
		}
		sql := "SELECT pg_catalog.pg_replication_slot_advance(" + session.QuoteLiteral(r[0]) + ", " + session.QuoteLiteral(target.String()) + ")"
		if _, err := session.Query(ctx, conn, sql); err != nil {
			return fmt.Errorf("advance slot %s to %s: %w", r[0], target, err)
		}
	}
	return nil
}

// TerminateWalsender ends the replication connection that process pid serves; another kind of process is left alone.
func (i *Instance) TerminateWalsender(ctx context.Context, pid int) error {
	sql := fmt.Sprintf("SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_replication WHERE pid = %d", pid)
	if _, err := i.query(ctx, sql); err != nil {
		return fmt.Errorf("terminate walsender %d: %w", pid, err)
	}
	return nil
}
