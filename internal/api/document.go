package api

import (
	"encoding/json"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// Document is the status document of health checks and of GET /patroni. Fields that are not known are absent.
type Document struct {
	State           string                           `json:"state"`
	StartTime       string                           `json:"postmaster_start_time,omitempty"`
	Role            cluster.Role                     `json:"role"`
	ServerVersion   int                              `json:"server_version,omitempty"`
	Xlog            any                              `json:"xlog,omitempty"`
	SyncStandby     bool                             `json:"sync_standby,omitempty"`
	QuorumStandby   bool                             `json:"quorum_standby,omitempty"`
	Timeline        *cluster.Timeline                `json:"timeline,omitempty"`
	Replication     []Sender                         `json:"replication,omitempty"`
	ReplicationText string                           `json:"replication_state,omitempty"`
	Pause           bool                             `json:"pause,omitempty"`
	Unlocked        bool                             `json:"cluster_unlocked,omitempty"`
	LastSeen        int64                            `json:"dcs_last_seen"` // seconds since 1970; 0: never
	Tags            map[string]any                   `json:"tags,omitempty"`
	SystemID        string                           `json:"database_system_identifier,omitempty"`
	PendingRestart  bool                             `json:"pending_restart,omitempty"`
	PendingReason   map[string]cluster.PendingChange `json:"pending_restart_reason,omitempty"`
	Patroni         Program                          `json:"patroni"`
	WatchdogFailed  bool                             `json:"watchdog_failed,omitempty"`
	Failsafe        bool                             `json:"failsafe_mode_is_active,omitempty"`
	Scheduled       json.RawMessage                  `json:"scheduled_restart,omitempty"`
}

// Program names the program that answers, and the member and cluster that it looks after.
type Program struct {
	Version string `json:"version"`
	Scope   string `json:"scope"`
	Name    string `json:"name"`
}

// Sender is one connection of a standby.
type Sender struct {
	User         string  `json:"usename"`
	Name         string  `json:"application_name"`
	Addr         *string `json:"client_addr"` // null: a local socket
	State        string  `json:"state"`
	SyncState    string  `json:"sync_state"`
	SyncPriority int     `json:"sync_priority"`
}

type primaryXlog struct {
	Location cluster.LSN `json:"location"`
}

type standbyXlog struct {
	Received  cluster.LSN `json:"received_location"`
	Replayed  cluster.LSN `json:"replayed_location"`
	Timestamp *string     `json:"replayed_timestamp"`
	Paused    bool        `json:"paused"`
}

// pythonTime is how Python prints a time with its zone, which clients of Patroni parse.
const pythonTime = "2006-01-02 15:04:05.000000-07:00"

func (l Local) document() Document {
	d := Document{
		State: l.state(), Role: l.role(), ReplicationText: l.replicationState(),
		Pause: l.Dynamic.Pause, Failsafe: l.Failsafe, Unlocked: !l.sees() || l.Snapshot.Leader == nil, Tags: l.Tags, SystemID: l.SystemID,
		PendingRestart: l.Member.PendingRestart, PendingReason: l.Member.PendingRestartReason,
		Patroni: Program{Version: l.Member.Version, Scope: l.Scope, Name: l.Name}, Scheduled: l.Member.ScheduledRestart,
		WatchdogFailed: l.WatchdogFailed,
	}
	if d.Patroni.Version == "" {
		d.Patroni.Version = l.Version
	}
	if !l.SeenAt.IsZero() {
		d.LastSeen = l.SeenAt.Unix()
	}
	if l.Probe != nil {
		l.describe(&d)
	}
	return d
}

// state is the member's state; a server that should be running and does not answer is in an unknown one.
func (l Local) state() string {
	switch {
	case !l.HasServer:
		return string(cluster.StateRunning)
	case l.Member.State == "" || l.Member.State == cluster.StateRunning && l.Probe == nil:
		return "unknown"
	}
	return string(l.Member.State)
}

// describe adds what the server itself says.
func (l Local) describe(d *Document) {
	p := l.Probe
	d.ServerVersion = l.ServerVersion
	if !p.StartTime.IsZero() {
		d.StartTime = p.StartTime.UTC().Format(pythonTime)
	}
	if p.Timeline != 0 {
		d.Timeline = &p.Timeline
	}
	if p.InRecovery {
		d.Xlog = standbyXlog{Received: max(p.ReceiveLSN, p.ReplayLSN), Replayed: p.ReplayLSN, Timestamp: pythonText(p.ReplayTimestamp), Paused: p.ReplayPaused}
		named, quorum := l.synchronous()
		d.SyncStandby, d.QuorumStandby = named && !quorum, named && quorum
	} else {
		d.Xlog = primaryXlog{p.WalLSN}
	}
	for _, s := range p.Standbys {
		sender := Sender{User: s.User, Name: s.Name, State: s.State, SyncState: s.SyncState, SyncPriority: s.SyncPriority}
		if s.Addr != "" {
			sender.Addr = &s.Addr
		}
		d.Replication = append(d.Replication, sender)
	}
}

func pythonText(t *time.Time) *string {
	if t == nil {
		return nil
	}
	s := t.UTC().Format(pythonTime)
	return &s
}
