package api

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/havenha/haven/internal/config"
)

// Metric describes one of Haven's own metrics. Labels are those beside scope and name.
type Metric struct{ Name, Kind, Labels, Help string }

// Sample is one value of a metric.
type Sample struct {
	Name   string
	Labels []Label
	Value  float64
}

// Label is one label of a sample.
type Label struct{ Name, Value string }

// OwnMetrics are Haven's own metrics, in the order of GET /metrics. What is not known has no sample.
func OwnMetrics() []Metric {
	return []Metric{
		{"haven_leader", "gauge", "", "1 if leadership is proven, the server is a primary and its term is promoted."},
		{"haven_leader_deadline_seconds", "gauge", "", "Time left until the leadership that was proven last ends; below zero it has. Only on the leader."},
		{"haven_term", "gauge", "", "Number of the present term, 0 if none is known."},
		{"haven_synchronous_mode", "gauge", "", "1 if commits wait for standbys."},
		{"haven_synchronous_needed", "gauge", "", "How many standbys a commit waits for. Only on the primary."},
		{"haven_synchronous_in_step", "gauge", "", "How many standbys stream that commits wait for. Only on the primary."},
		{"haven_unprotected_since_timestamp_seconds", "gauge", "", "Since when commits have been acknowledged without a standby though synchronous mode is on. Absent: they are not."},
		{"haven_lag_bytes", "gauge", "member, part", "How far a standby is behind the leader, by part (sent, write, flush, replay). Only on the leader."},
		{"haven_lag_seconds", "gauge", "member, part", "The same as a time, where PostgreSQL tells it."},
		{"haven_slot_retained_bytes", "gauge", "slot, active", "WAL that a replication slot holds back."},
		{"haven_decisions_total", "counter", "", "Turns of the agent's loop."},
		{"haven_actions_total", "counter", "action, outcome", "Actions of the agent that have ended."},
		{"haven_action_seconds_total", "counter", "action", "Time that actions took."},
		{"haven_clones_total", "counter", "", "Copies of the database that this member has made of another."},
		{"haven_renewals_total", "counter", "outcome", "Proofs of leadership."},
		{"haven_renewal_seconds_total", "counter", "", "Time that proofs of leadership took."},
		{"haven_renewal_last_seconds", "gauge", "", "Time that the last one took."},
		{"haven_journal_dropped_total", "counter", "", "Decisions that could not be recorded."},
		{"haven_problems", "gauge", "", "Number of problems that haven status shows of this node."},
		{"haven_disk_free_bytes", "gauge", "path, use", "Room that is left in a file system that the node writes to."},
		{"haven_disk_size_bytes", "gauge", "path, use", "Its size, as df counts it."},
		{"haven_disk_full_in_seconds", "gauge", "path, use", "When it will be full at the rate of the last hour. Absent: it does not fill, or that is not known."},
		{"haven_disk_problem", "gauge", "path, use", "1 if it will be full within 4 hours, has less than 10 % left, or does not answer."},
		{"haven_guard_armed", "gauge", "", "1 if a living guard would end the server at the deadline of its leadership. Absent: there is no guard."},
	}
}

// ownMetrics renders them; base is the labels that all samples bear.
func (l Local) ownMetrics(b *strings.Builder, base string) {
	samples := append(l.ownSamples(), l.Samples...)
	for _, m := range OwnMetrics() {
		if !slices.ContainsFunc(samples, func(s Sample) bool { return s.Name == m.Name }) {
			continue
		}
		fmt.Fprintf(b, "# HELP %s %s\n# TYPE %s %s\n", m.Name, m.Help, m.Name, m.Kind)
		for _, s := range samples {
			if s.Name == m.Name {
				fmt.Fprintf(b, "%s{%s%s} %s\n", s.Name, base, labelText(s.Labels), strconv.FormatFloat(s.Value, 'f', -1, 64))
			}
		}
	}
}

func labelText(labels []Label) string {
	var b strings.Builder
	for _, l := range labels {
		fmt.Fprintf(&b, `,%s="%s"`, l.Name, escapeLabel(l.Value))
	}
	return b.String()
}

// escapeLabel writes a label's value as the text format wants it (Prometheus, exposition formats).
func escapeLabel(s string) string {
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s)
}

// ownSamples are those that the rest of Local tells.
func (l Local) ownSamples() []Sample {
	mode := l.Dynamic.SynchronousMode
	out := []Sample{
		{Name: "haven_leader", Value: one(l.isLeader())},
		{Name: "haven_term", Value: float64(termNumber(l.Snapshot.Term))},
		{Name: "haven_synchronous_mode", Value: one(mode == config.SyncOn || mode == config.SyncQuorum)},
	}
	if s := l.syncHealth(); s.Setting != nil {
		out = append(out, Sample{Name: "haven_synchronous_needed", Value: float64(s.Needed)}, Sample{Name: "haven_synchronous_in_step", Value: float64(len(s.InStep))})
	}
	if l.isLeader() {
		out = append(out, l.lagSamples()...)
	}
	if p := l.Probe; p != nil {
		at := max(p.WalLSN, p.ReplayLSN)
		for _, s := range p.Slots {
			if s.RestartLSN != 0 {
				out = append(out, Sample{"haven_slot_retained_bytes", []Label{{"slot", s.Name}, {"active", fmt.Sprint(s.Active)}}, float64(s.RestartLSN.Behind(at))})
			}
		}
	}
	return out
}

func (l Local) lagSamples() []Sample {
	var out []Sample
	for _, m := range Describe(l.Scope, l.Snapshot, l.Dynamic).Members {
		lag := l.memberHealth(m).Lag
		if lag == nil {
			continue
		}
		for _, p := range lag.parts() {
			labels := []Label{{"member", m.Name}, {"part", p.name}}
			if p.Bytes != nil {
				out = append(out, Sample{"haven_lag_bytes", labels, float64(*p.Bytes)})
			}
			if p.Seconds != nil {
				out = append(out, Sample{"haven_lag_seconds", labels, *p.Seconds})
			}
		}
	}
	return out
}

type namedPart struct {
	name string
	LagPart
}

func (l Lag) parts() []namedPart {
	return []namedPart{{"sent", l.Sent}, {"write", l.Write}, {"flush", l.Flush}, {"replay", l.Replay}}
}
