package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// Probe is what one query to the running server told. Positions are zero where the server gave none.
type Probe struct {
	InRecovery bool
	SystemID   string
	// Timeline of a primary is the one it writes; of a standby the one it receives, else the one its control file
	// holds, which may be older than what it has replayed.
	Timeline cluster.Timeline
	// WalLSN is the flush position of a primary; ReceiveLSN and ReplayLSN are those of a standby.
	// ReceiveLSN is zero after a restart until something is received (then only EndOfWAL or replay tells).
	WalLSN, ReceiveLSN, ReplayLSN cluster.LSN
	ReplayPaused                  bool
	ReplayTimestamp               *time.Time
	ReceiverStatus                string // "streaming", …; empty: there is no receiver
	ReceiverPID                   int
	ReceiverHeard                 time.Time // when the receiver last got a message from the primary; zero: never
	ReceiverSlot                  string
	ReceiverConninfoHost          string
	ReceiverConninfoPort          string
	SyncNames                     string
	Standbys                      []Walsender
	Slots                         []Slot
	StartTime                     time.Time
	PendingRestart                bool // of parameters other than those of recovery, which a primary only carries along
}

// Walsender is one connection of a standby, from pg_stat_replication.
type Walsender struct {
	PID                  int
	Name, User, Addr     string
	State, SyncState     string
	SyncPriority         int
	Write, Flush, Replay cluster.LSN
	Slot                 string
}

// Slot is one replication slot.
type Slot struct {
	Name, Type        string
	Active, Temporary bool
	RestartLSN        cluster.LSN
	ConfirmedFlushLSN cluster.LSN
	Plugin, Database  string
	Xmin, CatalogXmin string
	WalStatus         string
}

// probeSQL is one statement, so that all figures are of one moment. The expressions that are errors on the wrong side of
// a promotion stand behind pg_is_in_recovery(), which only ever turns from true to false.
const probeSQL = `SELECT json_build_object(
 'in_recovery', pg_is_in_recovery(),
 'system_id', (SELECT system_identifier::text FROM pg_control_system()),
 'wal_file', CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_walfile_name(pg_current_wal_lsn()) END,
 'control_tli', GREATEST((SELECT timeline_id FROM pg_control_checkpoint()), (SELECT min_recovery_end_timeline FROM pg_control_recovery())),
 'wal_lsn', CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_flush_lsn() END,
 'receive_lsn', pg_last_wal_receive_lsn(),
 'replay_lsn', pg_last_wal_replay_lsn(),
 'paused', CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END,
 'replay_time', extract(epoch FROM pg_last_xact_replay_timestamp()),
 'start_time', extract(epoch FROM pg_postmaster_start_time()),
 'sync_names', current_setting('synchronous_standby_names'),
 'pending', (SELECT COALESCE(bool_or(pending_restart), false) FROM pg_settings WHERE name !~ '^recovery_'
    AND name NOT IN ('hot_standby', 'primary_conninfo', 'primary_slot_name', 'restore_command', 'archive_cleanup_command')),
 'receiver', (SELECT row_to_json(r) FROM (SELECT pid, status, received_tli, written_lsn, slot_name, sender_host, sender_port, extract(epoch FROM last_msg_receipt_time) AS heard FROM pg_stat_wal_receiver LIMIT 1) r),
 'standbys', (SELECT json_agg(s) FROM (SELECT w.pid, w.application_name, w.usename, host(w.client_addr) AS addr, w.state, w.sync_state, w.sync_priority,
    w.write_lsn, w.flush_lsn, w.replay_lsn, l.slot_name FROM pg_stat_replication w LEFT JOIN pg_replication_slots l ON l.active_pid = w.pid ORDER BY w.pid) s),
 'slots', (SELECT json_agg(s) FROM (SELECT slot_name, slot_type, active, temporary, restart_lsn, confirmed_flush_lsn, plugin, database,
    xmin::text AS xmin, catalog_xmin::text AS catalog_xmin, wal_status FROM pg_replication_slots ORDER BY slot_name) s))`

// Probe asks the server for its state, by one statement on a session that is kept open. It never blocks longer than ctx;
// a statement is given up by the server after two seconds. An error means unknown, not "down".
func (i *Instance) Probe(ctx context.Context) (Probe, error) {
	rows, err := i.heartQuery(ctx, probeSQL)
	if err != nil {
		return Probe{}, fmt.Errorf("probe: %w", err)
	}
	if len(rows) != 1 || len(rows[0]) != 1 {
		return Probe{}, fmt.Errorf("probe: the server answered with %d rows", len(rows))
	}
	var a probeAnswer
	if err := json.Unmarshal([]byte(rows[0][0]), &a); err != nil {
		return Probe{}, fmt.Errorf("probe: read the answer: %w", err)
	}
	return a.probe()
}

// pgLSN reads a pg_lsn from JSON text; null is zero.
type pgLSN cluster.LSN

func (l *pgLSN) UnmarshalJSON(b []byte) error {
	s := strings.Trim(string(b), `"`)
	if s == "null" {
		return nil
	}
	v, err := cluster.ParseLSN(s)
	*l = pgLSN(v)
	return err
}

type probeAnswer struct {
	InRecovery bool     `json:"in_recovery"`
	SystemID   string   `json:"system_id"`
	WalFile    string   `json:"wal_file"`
	ControlTLI uint32   `json:"control_tli"`
	WalLSN     pgLSN    `json:"wal_lsn"`
	ReceiveLSN pgLSN    `json:"receive_lsn"`
	ReplayLSN  pgLSN    `json:"replay_lsn"`
	Paused     bool     `json:"paused"`
	ReplayTime *float64 `json:"replay_time"`
	StartTime  float64  `json:"start_time"`
	SyncNames  string   `json:"sync_names"`
	Pending    bool     `json:"pending"`
	Receiver   *struct {
		PID     int     `json:"pid"`
		Status  string  `json:"status"`
		TLI     uint32  `json:"received_tli"`
		Written pgLSN   `json:"written_lsn"`
		Slot    string  `json:"slot_name"`
		Host    string  `json:"sender_host"`
		Port    int     `json:"sender_port"`
		Heard   float64 `json:"heard"`
	} `json:"receiver"`
	Standbys []struct {
		PID          int    `json:"pid"`
		Name         string `json:"application_name"`
		User         string `json:"usename"`
		Addr         string `json:"addr"`
		State        string `json:"state"`
		SyncState    string `json:"sync_state"`
		SyncPriority int    `json:"sync_priority"`
		Write        pgLSN  `json:"write_lsn"`
		Flush        pgLSN  `json:"flush_lsn"`
		Replay       pgLSN  `json:"replay_lsn"`
		Slot         string `json:"slot_name"`
	} `json:"standbys"`
	Slots []struct {
		Name      string `json:"slot_name"`
		Type      string `json:"slot_type"`
		Active    bool   `json:"active"`
		Temporary bool   `json:"temporary"`
		Restart   pgLSN  `json:"restart_lsn"`
		Confirmed pgLSN  `json:"confirmed_flush_lsn"`
		Plugin    string `json:"plugin"`
		Database  string `json:"database"`
		Xmin      string `json:"xmin"`
		Catalog   string `json:"catalog_xmin"`
		WalStatus string `json:"wal_status"`
	} `json:"slots"`
}

func (a probeAnswer) probe() (Probe, error) {
	p := Probe{
		InRecovery: a.InRecovery, SystemID: a.SystemID, Timeline: cluster.Timeline(a.ControlTLI),
		WalLSN: cluster.LSN(a.WalLSN), ReceiveLSN: cluster.LSN(a.ReceiveLSN), ReplayLSN: cluster.LSN(a.ReplayLSN),
		ReplayPaused: a.Paused, SyncNames: a.SyncNames, StartTime: epoch(a.StartTime), PendingRestart: a.Pending,
	}
	if a.ReplayTime != nil {
		t := epoch(*a.ReplayTime)
		p.ReplayTimestamp = &t
	}
	if r := a.Receiver; r != nil {
		p.ReceiverPID, p.ReceiverStatus, p.ReceiverSlot, p.ReceiverConninfoHost = r.PID, r.Status, r.Slot, r.Host
		if r.Heard > 0 {
			p.ReceiverHeard = epoch(r.Heard)
		}
		if r.Port != 0 {
			p.ReceiverConninfoPort = fmt.Sprint(r.Port)
		}
		p.ReceiveLSN = max(p.ReceiveLSN, cluster.LSN(r.Written))
		p.Timeline = max(p.Timeline, cluster.Timeline(r.TLI))
	}
	if !a.InRecovery {
		if _, err := fmt.Sscanf(a.WalFile, "%08X", &p.Timeline); err != nil {
			return p, fmt.Errorf("probe: the name %q of the current WAL file cannot be understood", a.WalFile)
		}
	}
	for _, s := range a.Standbys {
		p.Standbys = append(p.Standbys, Walsender{PID: s.PID, Name: s.Name, User: s.User, Addr: s.Addr, State: s.State,
			SyncState: s.SyncState, SyncPriority: s.SyncPriority, Write: cluster.LSN(s.Write), Flush: cluster.LSN(s.Flush),
			Replay: cluster.LSN(s.Replay), Slot: s.Slot})
	}
	for _, s := range a.Slots {
		p.Slots = append(p.Slots, Slot{Name: s.Name, Type: s.Type, Active: s.Active, Temporary: s.Temporary,
			RestartLSN: cluster.LSN(s.Restart), ConfirmedFlushLSN: cluster.LSN(s.Confirmed), Plugin: s.Plugin,
			Database: s.Database, Xmin: s.Xmin, CatalogXmin: s.Catalog, WalStatus: s.WalStatus})
	}
	return p, nil
}

func epoch(seconds float64) time.Time {
	return time.UnixMicro(int64(seconds * 1e6))
}
