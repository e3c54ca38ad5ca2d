package proxy

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/havenha/haven/internal/proxy/pooled"
)

// collector makes metrics of a snapshot. Nothing is counted twice: the numbers are those of the page.
type collector struct{ snapshot func() Stats }

type metric struct {
	kind   prometheus.ValueType
	name   string
	help   string
	labels []string
}

func (m metric) desc() *prometheus.Desc {
	return prometheus.NewDesc("haven_proxy_"+m.name, m.help, m.labels, nil)
}

func (m metric) of(value float64, labels ...string) prometheus.Metric {
	return safe(m.desc())(prometheus.NewConstMetric(m.desc(), m.kind, value, labels...))
}

// safe makes an error of what could not be made a metric, for whoever asks. The functions of the client library that panic would end the
// process, for it collects in goroutines of its own.
func safe(d *prometheus.Desc) func(prometheus.Metric, error) prometheus.Metric {
	return func(m prometheus.Metric, err error) prometheus.Metric {
		if err != nil {
			return prometheus.NewInvalidMetric(d, err)
		}
		return m
	}
}

// shown is a name as people and programs are to see it. Clients choose the names of databases and users, and PostgreSQL takes those that
// are no UTF-8, as the keys of members may be.
func shown(name string) string { return strings.ToValidUTF8(name, "\uFFFD") }

// Describe describes nothing: the servers, and so the metrics, come and go.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect sends the metrics of now.
func (c collector) Collect(out chan<- prometheus.Metric) {
	s := c.snapshot()
	gauge := func(name, help string) metric { return metric{prometheus.GaugeValue, name, help, []string{"scope"}} }
	out <- gauge("leader_admitted", "1 while a primary is admitted.").of(truth(s.Leader.State == Admitted), s.Scope)
	if s.Leader.Name != "" {
		leads := metric{prometheus.GaugeValue, "leader", "1 for the server whose member holds the leader key.", []string{"scope", "server"}}
		out <- leads.of(1, s.Scope, shown(s.Leader.Name))
	}
	out <- gauge("leader_since_seconds", "When the leadership came to its state, in seconds since 1970.").of(float64(s.Leader.Since.UnixMilli())/1000, s.Scope)
	out <- gauge("term", "Number of the term; 0 if the leader writes none.").of(float64(s.Leader.Term), s.Scope)
	out <- gauge("store_known", "1 while the state of the cluster is known.").of(truth(s.Store.Known), s.Scope)
	for _, l := range s.Listeners {
		collectListener(out, s.Scope, l)
	}
}

func collectListener(out chan<- prometheus.Metric, scope string, l ListenerStats) {
	labels := []string{"scope", "listener", "target"}
	for _, m := range []struct {
		metric
		value float64
	}{
		{metric{prometheus.GaugeValue, "waiting", "Connections that wait for a server.", labels}, float64(l.Waiting)},
		{metric{prometheus.GaugeValue, "oldest_wait_seconds", "How long the oldest of them has waited.", labels}, l.OldestWait},
		{metric{prometheus.CounterValue, "held_total", "Connections that had to wait; in the pooled modes, transactions.", labels}, float64(l.Held)},
		{metric{prometheus.CounterValue, "hold_timeouts_total", "Waits that hold_timeout has ended.", labels}, float64(l.Timeouts)},
		{metric{prometheus.CounterValue, "rejected_total", "Connections closed because too many waited; in the pooled modes, because there were max_client_conn.", labels}, float64(l.Rejected)},
		{metric{prometheus.CounterValue, "reset_sessions_total", "Sessions reset at a change of leader or replicas.", labels}, float64(l.Reset)},
	} {
		out <- m.of(m.value, scope, l.Listen, l.Target)
	}
	for _, s := range l.Servers {
		collectServer(out, scope, l, s)
	}
	for _, p := range distinct(l.Pools) {
		collectPool(out, scope, l, p)
	}
}

// collectPool sends a pool's numbers under the names of pgbouncer_exporter, with the listener besides, and histograms.
func collectPool(out chan<- prometheus.Metric, scope string, l ListenerStats, p PoolStats) {
	labels := []string{"scope", "listener", "database", "user"}
	values := []string{scope, l.Listen, p.Database, p.User}
	for _, m := range []struct {
		kind       prometheus.ValueType
		name, help string
		value      float64
	}{
		{prometheus.GaugeValue, "pools_client_active_connections", "Clients that do not wait for a server connection.", float64(p.ClientsActive)},
		{prometheus.GaugeValue, "pools_client_waiting_connections", "Clients that wait for one.", float64(p.ClientsWaiting)},
		{prometheus.GaugeValue, "pools_client_maxwait_seconds", "How long the oldest of them has waited.", p.MaxWait},
		{prometheus.GaugeValue, "pools_server_active_connections", "Server connections that are lent.", float64(p.ServersActive)},
		{prometheus.GaugeValue, "pools_server_idle_connections", "Server connections that are not.", float64(p.ServersIdle)},
		{prometheus.GaugeValue, "pools_server_used_connections", "Always 0: idle connections are looked at when they are lent.", 0},
		{prometheus.GaugeValue, "pools_server_login_connections", "Server connections that are being opened.", float64(p.ServersLogin)},
		{prometheus.GaugeValue, "databases_pool_size", "Greatest number of server connections.", float64(p.Size)},
		{prometheus.CounterValue, "stats_sql_transactions_pooled_total", "Transactions (in mode session: sessions) that were served.", float64(p.Lendings)},
		{prometheus.CounterValue, "stats_server_in_transaction_seconds_total", "Time that server connections were lent.", p.LendingTime},
		{prometheus.CounterValue, "stats_client_wait_seconds_total", "Time that clients waited for a server connection.", p.WaitTime},
	} {
		d := prometheus.NewDesc("pgbouncer_"+m.name, m.help, labels, nil)
		out <- safe(d)(prometheus.NewConstMetric(d, m.kind, m.value, values...))
	}
	for _, h := range []struct {
		name, help string
		of         pooled.Histogram
	}{
		{"lending_seconds", "From the request of a server connection to its return: a transaction, or in mode session a session.", p.lendings},
		{"wait_seconds", "Waits for a server connection, of those who had to wait.", p.waits},
	} {
		buckets, n := map[float64]uint64{}, uint64(0)
		for i, c := range h.of.Counts {
			n += c
			if i < len(h.of.Counts)-1 {
				buckets[pooled.Bound(i).Seconds()] = n
			}
		}
		d := prometheus.NewDesc("haven_proxy_pool_"+h.name, h.help, labels, nil)
		out <- safe(d)(prometheus.NewConstHistogram(d, n, h.of.Sum.Seconds(), buckets, values...))
	}
}

// distinct adds up the pools whose names are shown as the same: a metric that comes twice would be an error of all of them.
func distinct(pools []PoolStats) (out []PoolStats) {
	at := map[[2]string]int{}
	for _, p := range pools {
		key := [2]string{p.Database, p.User}
		if i, ok := at[key]; ok {
			out[i].add(p)
			continue
		}
		at[key] = len(out)
		out = append(out, p)
	}
	return out
}

func collectServer(out chan<- prometheus.Metric, scope string, l ListenerStats, s ServerStats) {
	labels := []string{"scope", "listener", "target", "server"}
	for _, m := range []struct {
		metric
		value float64
	}{
		{metric{prometheus.GaugeValue, "server_usable", "1 while the server gets new sessions.", labels}, truth(s.State == Admitted || s.State == Ready)},
		{metric{prometheus.GaugeValue, "sessions", "Open sessions.", labels}, float64(s.Sessions)},
		{metric{prometheus.CounterValue, "sessions_total", "Sessions ever.", labels}, float64(s.Total)},
		{metric{prometheus.CounterValue, "received_bytes_total", "Bytes from clients.", labels}, float64(s.In)},
		{metric{prometheus.CounterValue, "sent_bytes_total", "Bytes to clients.", labels}, float64(s.Out)},
		{metric{prometheus.CounterValue, "connect_errors_total", "Failed connections to the server.", labels}, float64(s.Errors)},
	} {
		out <- m.of(m.value, scope, l.Listen, l.Target, shown(s.Name))
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
