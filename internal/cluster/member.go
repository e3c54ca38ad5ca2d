package cluster

import (
	"encoding/json"
	"net/url"
	"strings"
)

// Role is what a member's server does, in the words of the store's member keys.
type Role string

// The roles that a member key may hold. RoleMaster is only read: releases of Patroni before 4.0 write it.
const (
	RolePrimary       Role = "primary"
	RoleMaster        Role = "master"
	RoleStandbyLeader Role = "standby_leader"
	RoleReplica       Role = "replica"
	RoleDemoted       Role = "demoted"
	RoleUninitialized Role = "uninitialized"
	RolePromoted      Role = "promoted"
)

// State is the state of a member's server, in the words of the store's member keys.
type State string

// The states of a member, in the order that Patroni's metrics number them.
const (
	StateInitdb          State = "initializing new cluster"
	StateInitdbFailed    State = "initdb failed"
	StateBootstrap       State = "running custom bootstrap script"
	StateBootstrapFailed State = "custom bootstrap failed"
	StateCreatingReplica State = "creating replica"
	StateRunning         State = "running"
	StateStarting        State = "starting"
	StateStartingCustom  State = "starting after custom bootstrap"
	StateStartFailed     State = "start failed"
	StateRestarting      State = "restarting"
	StateRestartFailed   State = "restart failed"
	StateStopping        State = "stopping"
	StateStopped         State = "stopped"
	StateStopFailed      State = "stop failed"
	StateCrashed         State = "crashed"
)

// Member is the value of a key members/<name>, with its name and what etcd knows about the key.
type Member struct {
	Name string `json:"-"`
	// Lease is the etcd lease that the key hangs on; zero when the key has none.
	Lease  int64 `json:"-"`
	ModRev int64 `json:"-"`

	ConnURL                string                   `json:"conn_url"`
	APIURL                 string                   `json:"api_url"`
	State                  State                    `json:"state"`
	Role                   Role                     `json:"role"`
	Version                string                   `json:"version"`
	ProxyURL               string                   `json:"proxy_url,omitempty"`
	CheckpointAfterPromote *bool                    `json:"checkpoint_after_promote,omitempty"`
	Tags                   map[string]any           `json:"tags,omitempty"`
	PendingRestart         bool                     `json:"pending_restart,omitempty"`
	PendingRestartReason   map[string]PendingChange `json:"pending_restart_reason,omitempty"`
	XlogLocation           LSN                      `json:"xlog_location,omitempty"`
	ReceiveLSN             LSN                      `json:"receive_lsn,omitempty"`
	ReplayLSN              LSN                      `json:"replay_lsn,omitempty"`
	ReplicationState       string                   `json:"replication_state,omitempty"`
	Timeline               Timeline                 `json:"timeline,omitempty"`
	ScheduledRestart       json.RawMessage          `json:"scheduled_restart,omitempty"`
	Pause                  bool                     `json:"pause,omitempty"`
	Haven                  *HavenField              `json:"haven,omitempty"`
}

// HavenField marks a member key as written by Haven. Patroni ignores it.
type HavenField struct {
	Version string `json:"version"`
	// Fence is the highest version of the fencing protocol that this member understands.
	Fence int `json:"fence"`
	// Progress tells how far a copy of the database has come, in words; empty: none is being made.
	Progress string `json:"progress,omitempty"`
	// Health tells how the member's server is: ok, hung or disk_full; empty: it is not told.
	Health string `json:"health,omitempty"`
}

// PendingChange is one parameter that waits for a restart.
type PendingChange struct {
	Old string `json:"old_value"`
	New string `json:"new_value"`
}

// Is tells whether the member's role is r; master counts as primary.
func (m Member) Is(r Role) bool {
	return m.Role == r || (r == RolePrimary && m.Role == RoleMaster)
}

// Position is the member's WAL position as far as its key tells: the receive or replay position of a standby,
// the flush position of a primary.
func (m Member) Position() LSN {
	return max(m.XlogLocation, m.ReceiveLSN, m.ReplayLSN)
}

// Address is host:port of the member's server, from conn_url; empty when the URL cannot be read.
func (m Member) Address() string {
	u, err := url.Parse(m.ConnURL)
	if err != nil || u.Host == "" {
		return ""
	}
	if u.Port() == "" {
		return u.Host + ":5432"
	}
	return u.Host
}

// APIBase is scheme and host of the member's REST API, without a path; empty when api_url cannot be read.
func (m Member) APIBase() string {
	u, err := url.Parse(m.APIURL)
	if err != nil || u.Host == "" {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// Tag tells whether the boolean tag of that name is set to a true value.
func (m Member) Tag(name string) bool { return truth(m.Tags[name]) }

func truth(v any) bool {
	switch v := v.(type) {
	case bool:
		return v
	case string:
		switch strings.ToLower(v) {
		case "true", "on", "yes", "1":
			return true
		}
	case int:
		return v != 0
	case float64:
		return v != 0
	}
	return false
}

// MayLead tells whether tags allow the member to become leader. A given nofailover wins over failover_priority
// (Patroni, tags).
func (m Member) MayLead() bool { return m.Priority() > 0 }

// Priority is the effective failover_priority; zero means that the member may not lead.
func (m Member) Priority() int {
	if v, ok := m.Tags["nofailover"]; ok && v != nil {
		if truth(v) {
			return 0
		}
		return max(1, number(m.Tags["failover_priority"], 1))
	}
	return max(0, number(m.Tags["failover_priority"], 1))
}

// MaySync tells whether tags allow the member to be a synchronous standby (nosync, sync_priority).
func (m Member) MaySync() bool {
	if v, ok := m.Tags["nosync"]; ok && v != nil {
		return !truth(v)
	}
	return number(m.Tags["sync_priority"], 1) > 0
}

// SyncPriority is the effective sync_priority of the member: the higher, the sooner it is chosen.
func (m Member) SyncPriority() int {
	if !m.MaySync() {
		return 0
	}
	return max(1, number(m.Tags["sync_priority"], 1))
}

func number(v any, otherwise int) int {
	switch v := v.(type) {
	case int:
		return v
	case float64:
		return int(v)
	}
	return otherwise
}
