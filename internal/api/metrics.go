package api

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/havenha/haven/internal/cluster"
)

// states numbers a member's states as Patroni's metrics do.
func states() []cluster.State {
	return []cluster.State{
		cluster.StateInitdb, cluster.StateInitdbFailed, cluster.StateBootstrap, cluster.StateBootstrapFailed,
		cluster.StateCreatingReplica, cluster.StateRunning, cluster.StateStarting, cluster.StateStartingCustom,
		cluster.StateStartFailed, cluster.StateRestarting, cluster.StateRestartFailed, cluster.StateStopping,
		cluster.StateStopped, cluster.StateStopFailed, cluster.StateCrashed,
	}
}

// metric is one sample.
type metric struct {
	name, kind, help string
	value            float64
}

const stateValues = "# Values: 0=initdb, 1=initdb_failed, 2=custom_bootstrap, 3=custom_bootstrap_failed, 4=creating_replica, 5=running, " +
	"6=starting, 7=bootstrap_starting, 8=start_failed, 9=restarting, 10=restart_failed, 11=stopping, 12=stopped, 13=stop_failed, 14=crashed\n"

func (s *Server) getMetrics(w http.ResponseWriter, r *http.Request) {
	l := s.fresh(r)
	base := fmt.Sprintf(`scope="%s",name="%s"`, escapeLabel(l.Scope), escapeLabel(l.Name))
	labels := "{" + base + "}"
	var b strings.Builder
	for _, m := range l.metrics() {
		fmt.Fprintf(&b, "# HELP %s %s\n", m.name, m.help)
		if m.name == "patroni_postgres_state" {
			b.WriteString(stateValues)
		}
		fmt.Fprintf(&b, "# TYPE %s %s\n%s%s %s\n", m.name, m.kind, m.name, labels, strconv.FormatFloat(m.value, 'f', -1, 64))
	}
	l.ownMetrics(&b, base)
	w.Header().Set("Content-Type", "text/plain")
	_, _ = w.Write([]byte(b.String())) // a client that is gone cannot be told
}

func (l Local) metrics() []metric {
	d := l.document()
	role := l.role()
	failsafeMember := l.Snapshot.Failsafe[l.Name] != ""
	out := []metric{
		{"patroni_version", "gauge", "Patroni semver without periods.", versionNumber(d.Patroni.Version)},
		{"patroni_postgres_running", "gauge", "Value is 1 if Postgres is running, 0 otherwise.", one(l.HasServer && l.running())},
	}
	out = append(out, l.positions()...)
	return append(out,
		metric{"patroni_primary", "gauge", "Value is 1 if this node is the leader, 0 otherwise.", one(role == cluster.RolePrimary)},
		metric{"patroni_standby_leader", "gauge", "Value is 1 if this node is the standby_leader, 0 otherwise.", one(role == cluster.RoleStandbyLeader)},
		metric{"patroni_replica", "gauge", "Value is 1 if this node is a replica, 0 otherwise.", one(role == cluster.RoleReplica)},
		metric{"patroni_sync_standby", "gauge", "Value is 1 if this node is a sync standby, 0 otherwise.", one(d.SyncStandby)},
		metric{"patroni_quorum_standby", "gauge", "Value is 1 if this node is a quorum standby, 0 otherwise.", one(d.QuorumStandby)},
		metric{"patroni_cluster_unlocked", "gauge", "Value is 1 if the cluster is unlocked, 0 if locked.", one(d.Unlocked)},
		metric{"patroni_failsafe_mode_is_active", "gauge", "Value is 1 if failsafe mode is active, 0 if inactive.", one(l.Failsafe)},
		metric{"patroni_failsafe_mode_enabled", "gauge", "Value is 1 if failsafe mode is enabled, 0 if disabled.", one(l.Dynamic.FailsafeMode)},
		metric{"patroni_failsafe_member", "gauge", "Value is 1 if the member is listed in the failsafe key.", one(failsafeMember)},
		metric{"patroni_dcs_last_seen", "gauge", "Epoch timestamp when DCS was last contacted successfully.", float64(d.LastSeen)},
		metric{"patroni_pending_restart", "gauge", "Value is 1 if the node needs a restart, 0 otherwise.", one(d.PendingRestart)},
		metric{"patroni_is_paused", "gauge", "Value is 1 if auto failover is disabled, 0 otherwise.", one(d.Pause)},
		metric{"patroni_postgres_state", "gauge", "Numeric representation of Postgres state.", l.stateNumber()},
		metric{"patroni_failover_priority", "gauge", "Failover priority of the member.", l.priority()},
	)
}

// positions are the samples that only the server can tell; zero where it does not answer (Patroni).
func (l Local) positions() []metric {
	var started, location, received, replayed, stamp, paused, timeline, streaming, archive float64
	if p := l.Probe; p != nil {
		started, timeline = float64(p.StartTime.UnixMicro())/1e6, float64(p.Timeline)
		if p.InRecovery {
			received, replayed, paused = float64(max(p.ReceiveLSN, p.ReplayLSN)), float64(p.ReplayLSN), one(p.ReplayPaused)
			streaming, archive = one(l.replicationState() == "streaming"), one(l.replicationState() == "in archive recovery")
		} else {
			location = float64(p.WalLSN)
		}
		if p.ReplayTimestamp != nil {
			stamp = float64(p.ReplayTimestamp.UnixMicro()) / 1e6
		}
	}
	out := []metric{
		{"patroni_postmaster_start_time", "gauge", "Epoch seconds since Postgres started.", started},
		{"patroni_postgres_timeline", "gauge", "Postgres timeline of this node (if running), 0 otherwise.", timeline},
		{"patroni_xlog_location", "counter", "Current location of the Postgres transaction log, 0 if this node is not the leader.", location},
		{"patroni_xlog_received_location", "counter", "Current location of the received Postgres transaction log, 0 if this node is not a replica.", received},
		{"patroni_xlog_replayed_location", "counter", "Current location of the replayed Postgres transaction log, 0 if this node is not a replica.", replayed},
		{"patroni_xlog_replayed_timestamp", "gauge", "Current timestamp of the replayed Postgres transaction log, 0 if null.", stamp},
		{"patroni_xlog_paused", "gauge", "Value is 1 if the Postgres xlog is paused, 0 otherwise.", paused},
		{"patroni_postgres_streaming", "gauge", "Value is 1 if Postgres is streaming, 0 otherwise.", streaming},
		{"patroni_postgres_in_archive_recovery", "gauge", "Value is 1 if Postgres is replicating from archive, 0 otherwise.", archive},
	}
	if l.ServerVersion != 0 {
		out = append(out, metric{"patroni_postgres_server_version", "gauge", "Version of Postgres (if running), 0 otherwise.", float64(l.ServerVersion)})
	}
	return out
}

// priority is the failover priority; a node without a database cannot take over.
func (l Local) priority() float64 {
	if !l.HasServer {
		return 0
	}
	return float64(cluster.Member{Tags: l.Tags}.Priority())
}

func (l Local) stateNumber() float64 {
	if l.state() == "unknown" {
		return -1
	}
	return float64(slices.Index(states(), l.Member.State))
}

func termNumber(t *cluster.Term) uint64 {
	if t == nil {
		return 0
	}
	return t.Number
}

// versionNumber turns 4.1.4 into 40104; zero where the version is of another form.
func versionNumber(v string) float64 {
	n := 0
	parts := strings.Split(v, ".")
	for i := range 3 {
		n *= 100
		if i < len(parts) {
			p, err := strconv.Atoi(parts[i])
			if err != nil {
				return 0
			}
			n += p
		}
	}
	return float64(n)
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
