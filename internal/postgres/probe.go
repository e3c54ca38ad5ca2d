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
	// ReceiverEnd is how far the primary's WAL went when the receiver heard of it last (pg_stat_wal_receiver.latest_end_lsn).
	ReceiverEnd cluster.LSN
	Restores    bool // a standby may read WAL from an archive: restore_command is set
	// Received is how far the present receiver has come; ReceiveLSN may be what an earlier one had.
	Received cluster.LSN
	// Waiting: the replay of a standby has come to the end of all WAL that there is. (Not: it is paused, delayed, or held up.)
	Waiting              bool
	ReceiverSlot         string
	ReceiverConninfoHost string
	ReceiverConninfoPort string
	SyncNames            string
	Standbys             []Walsender
	Slots                []Slot
	StartTime            time.Time
	Version              int // server_version_num of the running server, for instance 150018
	PendingReason        map[string]cluster.PendingChange
	PendingRestart       bool // of parameters other than those of recovery, which a primary only carries along
}

// Walsender is one connection of a standby, from pg_stat_replication.
type Walsender struct {
	PID                  int
	Name, User, Addr     string
	State, SyncState     string
	SyncPriority         int
	Write, Flush, Replay cluster.LSN
	Slot                 string
	// Sent is how far the primary has sent. The lags are how long the last acknowledged WAL took to be written, flushed
	// and replayed there; nil: PostgreSQL tells none, as after a while without writes.
	Sent                          cluster.LSN
	WriteLag, FlushLag, ReplayLag *time.Duration
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
 'waiting', (SELECT COALESCE(bool_or(wait_event IN ('RecoveryRetrieveRetryInterval', 'RecoveryWalStream', 'RecoveryWalAll')), false) FROM pg_stat_activity WHERE backend_type = 'startup'),
 'replay_time', extract(epoch FROM pg_last_xact_replay_timestamp()),
 'start_time', extract(epoch FROM pg_postmaster_start_time()),
 'version', current_setting('server_version_num')::int,
 'sync_names', current_setting('synchronous_standby_names'),
 'restores', current_setting('restore_command') <> '',
 'pending', (SELECT json_object_agg(s.name, json_build_array(current_setting(s.name),
    (SELECT f.setting FROM pg_file_settings f WHERE f.name = s.name ORDER BY f.seqno DESC LIMIT 1)))
    FROM pg_settings s WHERE pending_restart AND name !~ '^recovery_'
    AND name NOT IN ('hot_standby', 'primary_conninfo', 'primary_slot_name', 'restore_command', 'archive_cleanup_command')),
 'receiver', (SELECT row_to_json(r) FROM (SELECT pid, status, received_tli, written_lsn, latest_end_lsn, slot_name, sender_host, sender_port, extract(epoch FROM last_msg_receipt_time) AS heard FROM pg_stat_wal_receiver LIMIT 1) r),
 'standbys', (SELECT json_agg(s) FROM (SELECT w.pid, w.application_name, w.usename, host(w.client_addr) AS addr, w.state, w.sync_state, w.sync_priority,
    w.sent_lsn, w.write_lsn, w.flush_lsn, w.replay_lsn, extract(epoch FROM w.write_lag) AS write_lag,
    extract(epoch FROM w.flush_lag) AS flush_lag, extract(epoch FROM w.replay_lag) AS replay_lag, l.slot_name FROM pg_stat_replication w LEFT JOIN pg_replication_slots l ON l.active_pid = w.pid ORDER BY w.pid) s),
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
	Waiting    bool     `json:"waiting"`
	Paused     bool     `json:"paused"`
	ReplayTime *float64 `json:"replay_time"`
	StartTime  float64  `json:"start_time"`
	SyncNames  string   `json:"sync_names"`
	Version    int      `json:"version"`
	// Pending maps a parameter to its value in force and that of the files, which may lack it.
	Pending  map[string][2]*string `json:"pending"`
	Restores bool                  `json:"restores"`
	Receiver *struct {
		PID     int     `json:"pid"`
		Status  string  `json:"status"`
		TLI     uint32  `json:"received_tli"`
		Written pgLSN   `json:"written_lsn"`
		End     pgLSN   `json:"latest_end_lsn"`
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

		Sent      pgLSN    `json:"sent_lsn"`
		WriteLag  *float64 `json:"write_lag"`
		FlushLag  *float64 `json:"flush_lag"`
		ReplayLag *float64 `json:"replay_lag"`
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
		ReplayPaused: a.Paused, Waiting: a.Waiting, SyncNames: a.SyncNames, StartTime: epoch(a.StartTime), PendingRestart: len(a.Pending) > 0,
		Version: a.Version, Restores: a.Restores,
	}
	for name, v := range a.Pending {
		if p.PendingReason == nil {
			p.PendingReason = map[string]cluster.PendingChange{}
		}
		p.PendingReason[name] = cluster.PendingChange{Old: orDefault(v[0]), New: orDefault(v[1])}
	}
	if a.ReplayTime != nil {
		t := epoch(*a.ReplayTime)
		p.ReplayTimestamp = &t
	}
	if r := a.Receiver; r != nil {
		p.ReceiverPID, p.ReceiverStatus, p.ReceiverSlot, p.ReceiverConninfoHost = r.PID, r.Status, r.Slot, r.Host
		p.ReceiverEnd = cluster.LSN(r.End)
		if r.Heard > 0 {
			p.ReceiverHeard = epoch(r.Heard)
		}
		if r.Port != 0 {
			p.ReceiverConninfoPort = fmt.Sprint(r.Port)
		}
		p.ReceiveLSN = max(p.ReceiveLSN, cluster.LSN(r.Written))
		p.Received = p.ReceiveLSN
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
			Replay: cluster.LSN(s.Replay), Slot: s.Slot, Sent: cluster.LSN(s.Sent),
			WriteLag: interval(s.WriteLag), FlushLag: interval(s.FlushLag), ReplayLag: interval(s.ReplayLag)})
	}
	for _, s := range a.Slots {
		p.Slots = append(p.Slots, Slot{Name: s.Name, Type: s.Type, Active: s.Active, Temporary: s.Temporary,
			RestartLSN: cluster.LSN(s.Restart), ConfirmedFlushLSN: cluster.LSN(s.Confirmed), Plugin: s.Plugin,
			Database: s.Database, Xmin: s.Xmin, CatalogXmin: s.Catalog, WalStatus: s.WalStatus})
	}
	return p, nil
}

// orDefault is a value of a parameter; one that no file sets goes back to its default.
func orDefault(v *string) string {
	if v == nil {
		return "default"
	}
	return *v
}

func epoch(seconds float64) time.Time {
	return time.UnixMicro(int64(seconds * 1e6))
}

// interval is a time in seconds that may not be told.
func interval(seconds *float64) *time.Duration {
	if seconds == nil {
		return nil
	}
	d := time.Duration(*seconds * float64(time.Second))
	return &d
}
