package main

import (
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/drill/hosts"
)

// TestTableSaysWhatWasMeasured: medians with their spread, ratios, what never became healthy, and what the checker found.
func TestTableSaysWhatWasMeasured(t *testing.T) {
	all := variants()
	ours, theirs := all[1], all[3]
	r := results{Begun: time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC), Machine: machine{Cores: 2, Versions: map[string]string{"Haven": "1", "etcd": ""}}}
	r.Variants = []variantResult{
		{Name: ours.Name, Settings: ours.Settings, Boots: []float64{3}, Faults: []faultResult{
			{Fault: "host cut", Outage: 4, Errors: 1, Healthy: 2, Verdict: "pass"}, {Fault: "host cut", Outage: 6, Errors: 3, Healthy: 4, Verdict: "pass"},
			{Fault: "host cut", Outage: 5, Errors: 2, Healthy: 3, Verdict: "pass"},
		}, Memory: []hostMemory{{Host: "db1", Processes: []hosts.Usage{
			{Command: "/x/haven run f --name db1", Resident: 50 << 20}, {Command: "/usr/lib/postgresql/15/bin/postgres -D /x/haven/data", Resident: 9 << 20},
		}}}},
		{Name: theirs.Name, Peer: true, Settings: theirs.Settings, Boots: []float64{10}, Faults: []faultResult{
			{Fault: "host cut", Outage: 20, Errors: 9, Healthy: -1, Verdict: "fail", Detail: "a row is missing"},
		}},
	}
	page := render(r)
	for _, want := range []string{
		"Measured 2026-11-20 on 2 cores", "- etcd: not there\n",
		"| host cut | **5.00** (4.00–6.00) | 20.00 |", // outage
		"| host cut | **2** (1–3) | 9 |",              // errors
		"| host cut | **3.0** (2.0–4.0) | never |",    // health
		"| start of the cluster | 3.0 | 10.0 |",
		"| host cut | 4.0 |",                         // ratio
		"| " + ours.Name + " | haven 50 |  | 0.00 |", // its server is not the manager's memory
		"- " + theirs.Name + ", host cut: fail\n\n```\n" + "a row is missing",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	if t.Failed() {
		t.Log(page)
	}
}
