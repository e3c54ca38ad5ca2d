package app

import (
	"maps"
	"slices"
	"strings"

	"github.com/havenha/haven/internal/agent"
	"github.com/havenha/haven/internal/api"
	"github.com/havenha/haven/internal/bootclock"
	"github.com/havenha/haven/internal/disk"
)

// agentSamples are the metrics of a member's agent. What is not known has no sample.
func agentSamples(st agent.Status) []api.Sample {
	f := st.Figures
	out := []api.Sample{
		{Name: "haven_decisions_total", Value: float64(f.Decisions)},
		{Name: "haven_renewals_total", Labels: []api.Label{{Name: "outcome", Value: "done"}}, Value: float64(f.Renewed)},
		{Name: "haven_renewals_total", Labels: []api.Label{{Name: "outcome", Value: "failed"}}, Value: float64(f.NotRenewed)},
		{Name: "haven_renewal_seconds_total", Value: f.RenewalTime.Seconds()},
		{Name: "haven_renewal_last_seconds", Value: f.LastRenewal.Seconds()},
		{Name: "haven_journal_dropped_total", Value: float64(f.JournalDropped)},
		{Name: "haven_clones_total", Value: float64(f.Clones)},
		{Name: "haven_problems", Value: float64(len(st.Problems))},
	}
	if st.Holds {
		out = append(out, api.Sample{Name: "haven_leader_deadline_seconds", Value: st.Deadline.Sub(bootclock.Now()).Seconds()})
	}
	if st.Guarded != nil {
		armed := 0.0
		if *st.Guarded {
			armed = 1
		}
		out = append(out, api.Sample{Name: "haven_guard_armed", Value: armed})
	}
	if st.UnprotectedSince != nil {
		out = append(out, api.Sample{Name: "haven_unprotected_since_timestamp_seconds", Value: float64(st.UnprotectedSince.UnixMicro()) / 1e6})
	}
	for _, k := range slices.Sorted(maps.Keys(f.Actions)) {
		a, action := f.Actions[k], api.Label{Name: "action", Value: k}
		out = append(out,
			api.Sample{Name: "haven_actions_total", Labels: []api.Label{action, {Name: "outcome", Value: "done"}}, Value: float64(a.Done)},
			api.Sample{Name: "haven_actions_total", Labels: []api.Label{action, {Name: "outcome", Value: "failed"}}, Value: float64(a.Failed)},
			api.Sample{Name: "haven_action_seconds_total", Labels: []api.Label{action}, Value: a.Time.Seconds()})
	}
	return out
}

// diskSamples are the metrics of the file systems.
func diskSamples(report []disk.FileSystem) []api.Sample {
	var out []api.Sample
	for _, f := range report {
		labels := []api.Label{{Name: "path", Value: f.Path}, {Name: "use", Value: strings.Join(f.Uses, ",")}}
		add := func(name string, value float64) {
			out = append(out, api.Sample{Name: name, Labels: labels, Value: value})
		}
		if f.Total != 0 {
			add("haven_disk_free_bytes", float64(f.Free))
			add("haven_disk_size_bytes", float64(f.Total))
		}
		if f.FullIn != nil {
			add("haven_disk_full_in_seconds", f.FullIn.Seconds())
		}
		problem := 0.0
		if f.Problem() != "" {
			problem = 1
		}
		add("haven_disk_problem", problem)
	}
	return out
}
