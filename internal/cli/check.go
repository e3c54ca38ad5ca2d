package cli

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/havenha/haven/internal/api"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/dcs/etcd"
	"github.com/spf13/cobra"
)

// plugin is the state of a check, in the codes of monitoring plugins (Monitoring Plugins Development Guidelines).
type plugin int

const (
	pluginOK plugin = iota
	pluginWarning
	pluginCritical
	pluginUnknown
)

func (p plugin) String() string { return [...]string{"OK", "WARNING", "CRITICAL", "UNKNOWN"}[p] }

// worst is the worse of two: critical before unknown before warning.
func worst(a, b plugin) plugin {
	rank := [...]int{pluginOK: 0, pluginWarning: 1, pluginUnknown: 2, pluginCritical: 3}
	if rank[b] > rank[a] {
		return b
	}
	return a
}

// checkResult is what one check found. Perf are performance data in the form label=value[unit];warning;critical;minimum.
type checkResult struct {
	Check string   `json:"check"`
	State string   `json:"state"`
	Code  plugin   `json:"code"`
	Text  string   `json:"text"`
	Perf  []string `json:"perfdata"`
}

// thresholds are in bytes, or for etcd and the disk in the unit that the check names; below zero: the check's own.
type thresholds struct{ warning, critical float64 }

// facts are what all checks rest on.
type checkFacts struct {
	scope  string
	status assessment
	health api.Health
	known  bool // health is
	etcd   []etcd.EndpointHealth
	disks  []diskMetric
	// unmeasured are the members whose file systems are not among disks.
	unmeasured []string
}

// diskMetric is a file system as a member's metrics tell of it.
type diskMetric struct {
	member, path string
	ratio        float64 // free
	fullIn       *time.Duration
	bad          bool
}

// judges are the checks by name, in the order of the report.
func judges() []struct {
	name  string
	judge func(checkFacts, thresholds) checkResult
} {
	return []struct {
		name  string
		judge func(checkFacts, thresholds) checkResult
	}{{"cluster", checkCluster}, {"leader", checkLeader}, {"replication", checkReplication}, {"sync", checkSync}, {"disk", checkDisk}, {"etcd", checkEtcd}}
}

func (c *console) monitorCommand() *cobra.Command {
	var warning, critical string
	var names []string
	for _, j := range judges() {
		names = append(names, j.name)
	}
	cmd := &cobra.Command{
		Use: "check [" + strings.Join(names, "|") + "]", Short: "Check the cluster for a monitoring system: one line, exit code 0, 1, 2 or 3",
		Args: atMost(1), ValidArgs: names,
		Long: `Check the cluster for a monitoring system, as its plugins do: one line with performance data, and exit code 0 (ok),
1 (warning), 2 (critical) or 3 (unknown). Without an argument everything is checked.

  cluster      the verdict of haven status
  leader       a member leads and accepts writes
  replication  standbys stream; the greatest lag in replay (10MB, 100MB); no standby is critical
  sync         commits wait for the standbys that they should wait for
  disk         room that is left on every member, in percent (10, 5), or full within 4 hours
  etcd         members that answer, and how fast, in ms (500, 2000)

--warning and --critical change the thresholds of replication (10MB), disk (10) and etcd (500).`,
		Example: "  haven check\n  haven check replication --warning 16MB --critical 1GB\n  haven check disk --warning 20 --critical 10",
	}
	cmd.Flags().StringVar(&warning, "warning", "", "threshold of a warning")
	cmd.Flags().StringVar(&critical, "critical", "", "threshold of a critical state")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := c.noTSV(); err != nil {
			return err
		}
		only := ""
		if len(args) > 0 {
			only = args[0]
			if !slices.Contains(names, only) {
				return c.unfit(usage(fmt.Sprintf("there is no check %q", only), "use "+strings.Join(names, ", ")))
			}
		}
		limits, err := limitsOf(only, warning, critical)
		if err != nil {
			return c.unfit(err)
		}
		return c.monitor(cmd.Context(), only, limits)
	}
	return cmd
}

// unfit reports a mistake in the call as a plugin does: code 3, since 2 would wake somebody.
func (c *console) unfit(err error) error {
	fmt.Fprintln(c.out, "UNKNOWN - "+strings.ReplaceAll(err.Error(), "\n", " "))
	return verdictCode(pluginUnknown)
}

// limitsOf reads thresholds; sizes may have a unit.
func limitsOf(only, warning, critical string) (thresholds, error) {
	t := thresholds{-1, -1}
	if (warning != "" || critical != "") && !slices.Contains([]string{"replication", "disk", "etcd"}, only) {
		return t, usage("--warning and --critical need one of the checks replication, disk, etcd", "haven check replication --warning 16MB")
	}
	for _, f := range []struct {
		flag, text string
		to         *float64
	}{{"--warning", warning, &t.warning}, {"--critical", critical, &t.critical}} {
		if f.text == "" {
			continue
		}
		n, valid := api.ParseBytes(f.text)
		if !valid {
			return t, usage(fmt.Sprintf("%s %q is not a number", f.flag, f.text), "write 10MB or 10")
		}
		*f.to = float64(n)
	}
	return t, nil
}

// or is the threshold that was given, or that of the check.
func (t thresholds) or(warning, critical float64) (float64, float64) {
	if t.warning >= 0 {
		warning = t.warning
	}
	if t.critical >= 0 {
		critical = t.critical
	}
	return warning, critical
}

func (c *console) monitor(ctx context.Context, only string, limits thresholds) error {
	f, err := c.checkFacts(ctx, only)
	if err != nil {
		return c.unfit(err)
	}
	var results []checkResult
	state := pluginOK
	for _, j := range judges() {
		if only == "" || only == j.name {
			r := j.judge(f, limits)
			r.Check, r.State = j.name, r.Code.String()
			if r.Perf == nil {
				r.Perf = []string{}
			}
			results, state = append(results, r), worst(state, r.Code)
		}
	}
	if c.structured() {
		err = c.emit(c.out, map[string]any{"cluster": f.scope, "state": state.String(), "code": state, "checks": results})
	} else {
		_, err = fmt.Fprintln(c.out, pluginLine(f.scope, state, results))
	}
	if err == nil && state != pluginOK {
		return verdictCode(state)
	}
	return err
}

// pluginLine is the one line of a plugin: what is worst stands first; a bar would begin the performance data.
func pluginLine(scope string, state plugin, results []checkResult) string {
	var said, perf []string
	for _, r := range results {
		perf = append(perf, r.Perf...)
		if len(results) == 1 || r.Code != pluginOK {
			said = append(said, r.Text)
		}
	}
	if len(said) == 0 {
		said = []string{results[0].Text}
	}
	line := strings.NewReplacer("|", "/", "\n", " ").Replace(fmt.Sprintf("%s - cluster %s: %s", state, scope, strings.Join(said, "; ")))
	if len(perf) > 0 {
		line += " | " + strings.Join(perf, " ")
	}
	return line
}

// perfLabel quotes a label where it has to be.
func perfLabel(s string) string {
	if strings.ContainsAny(s, " ='") {
		return "'" + strings.ReplaceAll(s, "'", "''") + "'"
	}
	return s
}

func checkCluster(f checkFacts, _ thresholds) checkResult {
	a := f.status
	text := strings.TrimPrefix(a.headline(", "), "cluster "+a.Cluster+", ")
	if len(a.Why) > 0 {
		text = strings.Join(a.Why, ", ")
	}
	code := map[verdict]plugin{healthy: pluginOK, degraded: pluginWarning, critical: pluginCritical, unknown: pluginUnknown}[a.Verdict]
	return checkResult{Code: code, Text: text, Perf: []string{fmt.Sprintf("members=%d;;;0", len(a.Members))}}
}

func checkLeader(f checkFacts, _ thresholds) checkResult {
	a := f.status
	switch {
	case a.Leader == "":
		return checkResult{Code: pluginCritical, Text: "no member leads"}
	case a.Writes.State == "no":
		return checkResult{Code: pluginCritical, Text: a.Leader + " leads and accepts no writes: " + a.Writes.Why}
	case a.Writes.State != "ok":
		return checkResult{Code: pluginUnknown, Text: a.Leader + " leads; whether it accepts writes is not known: " + a.Writes.Why}
	}
	return checkResult{Text: fmt.Sprintf("%s leads in term %d and accepts writes", a.Leader, a.Term), Perf: []string{fmt.Sprintf("answer=%.3fs;;;0", a.Writes.Took)}}
}

// checkReplication: the thresholds are those of the guides, 10 MB and 100 MB.
func checkReplication(f checkFacts, t thresholds) checkResult {
	warn, crit := t.or(10<<20, 100<<20)
	r := checkResult{}
	streaming, greatest, slowest := 0, uint64(0), ""
	var silent, unclear []string
	for _, m := range f.status.Members {
		if m.Name == f.status.Leader {
			continue
		}
		if m.State != "streaming" && m.State != "in archive recovery" {
			silent = append(silent, m.Name)
			continue
		}
		streaming++
		lag := f.replayLag(m)
		if lag == nil {
			unclear = append(unclear, m.Name)
			continue
		}
		if *lag >= greatest {
			greatest, slowest = *lag, m.Name
		}
		r.Perf = append(r.Perf, fmt.Sprintf("%s=%dB;%.0f;%.0f;0", perfLabel("lag_"+m.Name), *lag, warn, crit))
	}
	r.Perf = append(r.Perf, fmt.Sprintf("standbys=%d;;1:;0", streaming))
	text := fmt.Sprintf("%d standby(s) replicate", streaming)
	if slowest != "" {
		text += fmt.Sprintf(", at most %s behind (%s)", size(greatest), slowest)
	}
	switch {
	case f.status.Leader == "":
		r.Code, text = pluginCritical, "no member leads, so nothing is replicated"
	case streaming == 0:
		r.Code, text = pluginCritical, "no standby replicates"
	case float64(greatest) > crit:
		r.Code = pluginCritical
	case len(unclear) > 0:
		r.Code = pluginUnknown
	case float64(greatest) > warn || len(silent) > 0:
		r.Code = pluginWarning
	}
	if len(silent) > 0 && streaming > 0 {
		text += "; not replicating: " + strings.Join(silent, ", ")
	}
	if len(unclear) > 0 {
		text += "; lag not known: " + strings.Join(unclear, ", ")
	}
	r.Text = text
	return r
}

// replayLag is what the leader says, else what the keys say.
func (f checkFacts) replayLag(m memberStatus) *uint64 {
	if f.known {
		for _, h := range f.health.Members {
			if h.Name == m.Name && h.Lag != nil && h.Lag.Replay.Bytes != nil {
				return h.Lag.Replay.Bytes
			}
		}
	}
	return m.ReplayLag
}

func checkSync(f checkFacts, _ thresholds) checkResult {
	if f.status.Sync == string(config.SyncOff) {
		return checkResult{Text: "synchronous mode is off"}
	}
	if f.status.Leader == "" {
		return checkResult{Code: pluginCritical, Text: "no member leads"}
	}
	if !f.known {
		return checkResult{Code: pluginUnknown, Text: "the leader does not say what commits wait for"}
	}
	s := f.health.Sync
	perf := []string{fmt.Sprintf("in_step=%d;;;0", len(s.InStep)), fmt.Sprintf("needed=%d;;;0", s.Needed)}
	switch {
	case s.Setting == nil:
		return checkResult{Code: pluginUnknown, Text: "what commits wait for is not known: the leader's server does not answer", Perf: perf}
	case len(s.InStep) < s.Needed:
		return checkResult{Code: pluginCritical, Text: fmt.Sprintf("commits wait for %d standby(s), and only %d stream", s.Needed, len(s.InStep)), Perf: perf}
	case s.Needed == 0 && s.Strict:
		return checkResult{Code: pluginCritical, Text: "commits are acknowledged without a standby, and synchronous_mode_strict forbids that", Perf: perf}
	case s.Needed == 0:
		text := "commits are acknowledged without a standby"
		if s.UnprotectedSince != nil {
			text += fmt.Sprintf(" for %s", short(time.Since(*s.UnprotectedSince)))
		}
		return checkResult{Code: pluginWarning, Text: text, Perf: perf}
	}
	return checkResult{Text: fmt.Sprintf("commits wait for %d of %s", s.Needed, strings.Join(s.InStep, ", ")), Perf: perf}
}

func checkDisk(f checkFacts, t thresholds) checkResult {
	warn, crit := t.or(10, 5)
	r := checkResult{}
	least, where := math.Inf(1), ""
	for _, d := range f.disks {
		left := d.ratio * 100
		r.Perf = append(r.Perf, fmt.Sprintf("%s=%.1f%%;%.0f:;%.0f:;0;100", perfLabel(d.member+":"+d.path), left, warn, crit))
		switch {
		case left < crit:
			r.Code = pluginCritical
		case left < warn || d.fullIn != nil && *d.fullIn < 4*time.Hour || d.bad && t.warning < 0:
			r.Code = worst(r.Code, pluginWarning)
		}
		if d.bad && left >= 10 && d.fullIn == nil {
			r.Text += fmt.Sprintf("%s on %s does not answer; ", d.path, d.member)
		}
		if left < least {
			least, where = left, d.member+" "+d.path
		}
		if d.fullIn != nil && *d.fullIn < 4*time.Hour {
			r.Text += fmt.Sprintf("%s on %s will be full in %s at the rate of the last hour; ", d.path, d.member, short(*d.fullIn))
		}
	}
	if len(f.disks) == 0 {
		return checkResult{Code: pluginUnknown, Text: "no member tells of its file systems"}
	}
	r.Text += fmt.Sprintf("at least %.1f %% left (%s)", least, where)
	if len(f.unmeasured) > 0 {
		r.Code = worst(r.Code, pluginUnknown)
		r.Text += "; not known of " + strings.Join(f.unmeasured, ", ")
	}
	return r
}

func checkEtcd(f checkFacts, t thresholds) checkResult {
	warn, crit := t.or(500, 2000)
	if len(f.etcd) == 0 {
		return checkResult{Code: pluginUnknown, Text: "only a configuration file names etcd's members"}
	}
	r := checkResult{}
	up := 0
	var slowest time.Duration
	for _, h := range f.etcd {
		if h.Error == "" && h.Leader != 0 {
			up++
			slowest = max(slowest, h.Took)
		}
		if len(h.Alarms) > 0 {
			r.Code = pluginCritical
			r.Text += fmt.Sprintf("%s has raised %s; ", h.Endpoint, strings.Join(h.Alarms, ", "))
		}
	}
	n, ms := len(f.etcd), float64(slowest.Microseconds())/1000
	switch {
	case up < n/2+1, ms > crit:
		r.Code = pluginCritical
	case up < n, ms > warn:
		r.Code = worst(r.Code, pluginWarning)
	}
	r.Text += fmt.Sprintf("%d of %d members of etcd answer with a leader, the slowest in %.0f ms", up, n, ms)
	r.Perf = []string{fmt.Sprintf("etcd_members=%d;%d:;%d:;0;%d", up, n, n/2+1, n), fmt.Sprintf("etcd_answer=%.1fms;%.0f;%.0f;0", ms, warn, crit)}
	return r
}
