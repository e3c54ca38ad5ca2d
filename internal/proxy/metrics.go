package proxy

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/proxy/pooled"
)

// collector makes metrics of a snapshot. Nothing is counted twice: the numbers are those of the page.
type collector struct{ snapshot func() Stats }

// Metric is what the statistics port tells of one metric.
type Metric struct{ Name, Kind, Labels, Help string }

// Metrics are all that the statistics port has.
func Metrics() (all []Metric) {
	all = append(all, described(leaderSeries(), leaderLabels())...)
	all = append(all, described(clusterSeries(), clusterLabels())...)
	all = append(all, described(listenerSeries(), listenerLabels())...)
	all = append(all, described(serverSeries(), serverLabels())...)
	all = append(all, described(doorSeries(), listenerLabels())...)
	all = append(all, described(databaseSeries(), databaseLabels())...)
	all = append(all, described(poolSeries(), poolLabels())...)
	for _, h := range poolHistograms() {
		all = append(all, Metric{h.name, "histogram", strings.Join(poolLabels(), ", "), h.help})
	}
	return all
}

// series is a metric whose value is taken from a T.
type series[T any] struct {
	kind       prometheus.ValueType
	name, help string
	value      func(T) float64
}

func described[T any](all []series[T], labels []string) (out []Metric) {
	for _, s := range all {
		kind := "gauge"
		if s.kind == prometheus.CounterValue {
			kind = "counter"
		}
		out = append(out, Metric{s.name, kind, strings.Join(labels, ", "), s.help})
	}
	return out
}

// collect sends the values that a T has.
func collect[T any](out chan<- prometheus.Metric, all []series[T], of T, labels, values []string) {
	for _, s := range all {
		d := prometheus.NewDesc(s.name, s.help, labels, nil)
		out <- safe(d)(prometheus.NewConstMetric(d, s.kind, s.value(of), values...))
	}
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
	collect(out, clusterSeries(), s, clusterLabels(), []string{s.Scope})
	if s.Leader.Name != "" {
		collect(out, leaderSeries(), s, leaderLabels(), []string{s.Scope, shown(s.Leader.Name)})
	}
	for _, l := range s.Listeners {
		labels, values := listenerLabels(), []string{s.Scope, l.Listen, l.Target}
		collect(out, listenerSeries(), l, labels, values)
		for _, server := range l.Servers {
			collect(out, serverSeries(), server, serverLabels(), []string{s.Scope, l.Listen, l.Target, shown(server.Name)})
		}
		if !(config.Listener{Mode: l.Mode}).Pooled() {
			continue
		}
		collect(out, doorSeries(), l, labels, values)
		for _, p := range merged(l.Pools, func(p PoolStats) [2]string { return [2]string{p.Database} }) {
			collect(out, databaseSeries(), p, databaseLabels(), []string{s.Scope, l.Listen, p.Database})
		}
		// Names that are shown as the same are one pool: a metric that comes twice would be an error of all of them.
		for _, p := range merged(l.Pools, func(p PoolStats) [2]string { return [2]string{p.Database, p.User} }) {
			values := []string{s.Scope, l.Listen, p.Database, p.User}
			collect(out, poolSeries(), p, poolLabels(), values)
			for _, h := range poolHistograms() {
				out <- h.metric(p, values)
			}
		}
	}
}

func clusterLabels() []string  { return []string{"scope"} }
func leaderLabels() []string   { return []string{"scope", "server"} }
func listenerLabels() []string { return []string{"scope", "listener", "target"} }
func serverLabels() []string   { return []string{"scope", "listener", "target", "server"} }
func databaseLabels() []string { return []string{"scope", "listener", "database"} }
func poolLabels() []string     { return []string{"scope", "listener", "database", "user"} }

// leaderSeries is there while somebody leads.
func leaderSeries() []series[Stats] {
	return []series[Stats]{
		{prometheus.GaugeValue, "haven_proxy_leader", "1 for the server whose member holds the leader key.", func(Stats) float64 { return 1 }},
	}
}

func clusterSeries() []series[Stats] {
	return []series[Stats]{
		{prometheus.GaugeValue, "haven_proxy_leader_admitted", "1 while a primary is admitted.", func(s Stats) float64 { return truth(s.Leader.State == Admitted) }},
		{prometheus.GaugeValue, "haven_proxy_leader_since_seconds", "When the leadership came to its state, in seconds since 1970.", func(s Stats) float64 { return float64(s.Leader.Since.UnixMilli()) / 1000 }},
		{prometheus.GaugeValue, "haven_proxy_term", "Number of the term; 0 if the leader writes none.", func(s Stats) float64 { return float64(s.Leader.Term) }},
		{prometheus.GaugeValue, "haven_proxy_store_known", "1 while the state of the cluster is known.", func(s Stats) float64 { return truth(s.Store.Known) }},
	}
}

func listenerSeries() []series[ListenerStats] {
	return []series[ListenerStats]{
		{prometheus.GaugeValue, "haven_proxy_waiting", "Connections that wait for a server.", func(l ListenerStats) float64 { return float64(l.Waiting) }},
		{prometheus.GaugeValue, "haven_proxy_oldest_wait_seconds", "How long the oldest of them has waited.", func(l ListenerStats) float64 { return l.OldestWait }},
		{prometheus.CounterValue, "haven_proxy_held_total", "Connections that had to wait; in the pooled modes, transactions.", func(l ListenerStats) float64 { return float64(l.Held) }},
		{prometheus.CounterValue, "haven_proxy_hold_timeouts_total", "Waits that hold_timeout has ended.", func(l ListenerStats) float64 { return float64(l.Timeouts) }},
		{prometheus.CounterValue, "haven_proxy_rejected_total", "Connections closed because too many waited; in the pooled modes, because there were max_client_conn.", func(l ListenerStats) float64 { return float64(l.Rejected) }},
		{prometheus.CounterValue, "haven_proxy_reset_sessions_total", "Sessions reset at a change of leader or replicas.", func(l ListenerStats) float64 { return float64(l.Reset) }},
	}
}

func serverSeries() []series[ServerStats] {
	return []series[ServerStats]{
		{prometheus.GaugeValue, "haven_proxy_server_usable", "1 while the server gets new sessions.", func(s ServerStats) float64 { return truth(s.State == Admitted || s.State == Ready) }},
		{prometheus.GaugeValue, "haven_proxy_sessions", "Open sessions.", func(s ServerStats) float64 { return float64(s.Sessions) }},
		{prometheus.CounterValue, "haven_proxy_sessions_total", "Sessions ever.", func(s ServerStats) float64 { return float64(s.Total) }},
		{prometheus.CounterValue, "haven_proxy_received_bytes_total", "Bytes from clients.", func(s ServerStats) float64 { return float64(s.In) }},
		{prometheus.CounterValue, "haven_proxy_sent_bytes_total", "Bytes to clients.", func(s ServerStats) float64 { return float64(s.Out) }},
		{prometheus.CounterValue, "haven_proxy_connect_errors_total", "Failed connections to the server.", func(s ServerStats) float64 { return float64(s.Errors) }},
	}
}

// doorSeries are what a pooled listener has as a whole, under the names of pgbouncer_exporter.
func doorSeries() []series[ListenerStats] {
	return []series[ListenerStats]{
		{prometheus.GaugeValue, "pgbouncer_up", "Always 1: who answers is up.", func(ListenerStats) float64 { return 1 }},
		{prometheus.GaugeValue, "pgbouncer_config_max_client_connections", "max_client_conn; 0: no limit.", func(l ListenerStats) float64 { return float64(l.maxClients) }},
		{prometheus.GaugeValue, "pgbouncer_config_max_user_connections", "max_user_connections; 0: no limit.", func(l ListenerStats) float64 { return float64(l.maxUser) }},
	}
}

// databaseSeries are the numbers of all pools of a database together, under the names of pgbouncer_exporter.
func databaseSeries() []series[PoolStats] {
	return []series[PoolStats]{
		{prometheus.GaugeValue, "pgbouncer_databases_pool_size", "default_pool_size; the greatest, where users have their own.", func(p PoolStats) float64 { return float64(p.Size) }},
		{prometheus.GaugeValue, "pgbouncer_databases_current_connections", "Server connections that are open or being opened.", func(p PoolStats) float64 { return float64(p.ServersActive + p.ServersIdle + p.ServersLogin) }},
		{prometheus.GaugeValue, "pgbouncer_databases_max_connections", "max_db_connections; 0: no limit.", func(p PoolStats) float64 { return float64(p.maxServers) }},
	}
}

// poolSeries are a pool's numbers: under the names of pgbouncer_exporter since 0.11, with the listener besides, and what that does not have.
func poolSeries() []series[PoolStats] {
	return []series[PoolStats]{
		{prometheus.GaugeValue, "pgbouncer_pools_client_active_connections", "Clients that do not wait for a server connection.", func(p PoolStats) float64 { return float64(p.ClientsActive) }},
		{prometheus.GaugeValue, "pgbouncer_pools_client_waiting_connections", "Clients that wait for one.", func(p PoolStats) float64 { return float64(p.ClientsWaiting) }},
		{prometheus.GaugeValue, "pgbouncer_pools_client_maxwait_seconds", "How long the oldest of them has waited.", func(p PoolStats) float64 { return p.MaxWait }},
		{prometheus.GaugeValue, "pgbouncer_pools_server_active_connections", "Server connections that are lent.", func(p PoolStats) float64 { return float64(p.ServersActive - p.testing) }},
		{prometheus.GaugeValue, "pgbouncer_pools_server_idle_connections", "Server connections that are not.", func(p PoolStats) float64 { return float64(p.ServersIdle) }},
		{prometheus.GaugeValue, "pgbouncer_pools_server_used_connections", "Always 0: idle connections are looked at when they are lent.", func(PoolStats) float64 { return 0 }},
		{prometheus.GaugeValue, "pgbouncer_pools_server_testing_connections", "Server connections that run server_check_query, server_reset_query or another statement of the proxy's own.", func(p PoolStats) float64 { return float64(p.testing) }},
		{prometheus.GaugeValue, "pgbouncer_pools_server_login_connections", "Server connections that are being opened.", func(p PoolStats) float64 { return float64(p.ServersLogin) }},
		{prometheus.CounterValue, "pgbouncer_stats_totals_sql_transactions_pooled_total", "Transactions (in mode session: sessions) that were served.", func(p PoolStats) float64 { return float64(p.Lendings) }},
		{prometheus.CounterValue, "pgbouncer_stats_totals_queries_pooled_total", "Statements, or batches of them, that were answered.", func(p PoolStats) float64 { return float64(p.Statements) }},
		{prometheus.CounterValue, "pgbouncer_stats_totals_received_bytes_total", "Bytes from clients, of statements.", func(p PoolStats) float64 { return float64(p.In) }},
		{prometheus.CounterValue, "pgbouncer_stats_totals_sent_bytes_total", "Bytes to clients, of replies.", func(p PoolStats) float64 { return float64(p.Out) }},
		{prometheus.CounterValue, "pgbouncer_stats_totals_server_in_transaction_seconds_total", "Time that server connections were lent.", func(p PoolStats) float64 { return p.LendingTime }},
		{prometheus.CounterValue, "pgbouncer_stats_totals_client_wait_seconds_total", "Time that clients waited for a server connection.", func(p PoolStats) float64 { return p.WaitTime }},
		{prometheus.GaugeValue, "haven_proxy_pool_open_transactions", "Transactions that are open.", func(p PoolStats) float64 { return float64(p.Transactions) }},
		{prometheus.GaugeValue, "haven_proxy_pool_longest_transaction_seconds", "How long the oldest of them is open.", func(p PoolStats) float64 { return p.LongestTransaction }},
		{prometheus.GaugeValue, "haven_proxy_pool_longest_idle_transaction_seconds", "How long a client has said nothing within one, while it was its turn.", func(p PoolStats) float64 { return p.LongestIdleTransaction }},
	}
}

// histogram is a metric whose distribution is taken from a pool.
type histogram struct {
	name, help string
	of         func(PoolStats) pooled.Histogram
}

func poolHistograms() []histogram {
	return []histogram{
		{"haven_proxy_pool_lending_seconds", "From the lending of a server connection to its return: a transaction, or in mode session a session.", func(p PoolStats) pooled.Histogram { return p.lendings }},
		{"haven_proxy_pool_wait_seconds", "Waits for a server connection, of those who had to wait.", func(p PoolStats) pooled.Histogram { return p.waits }},
	}
}

func (h histogram) metric(p PoolStats, values []string) prometheus.Metric {
	of := h.of(p)
	buckets, n := map[float64]uint64{}, uint64(0)
	for i, c := range of.Counts {
		n += c
		if i < len(of.Counts)-1 {
			buckets[pooled.Bound(i).Seconds()] = n
		}
	}
	d := prometheus.NewDesc(h.name, h.help, poolLabels(), nil)
	return safe(d)(prometheus.NewConstHistogram(d, n, of.Sum.Seconds(), buckets, values...))
}

// merged adds up the pools that have the same key.
func merged(pools []PoolStats, key func(PoolStats) [2]string) (out []PoolStats) {
	at := map[[2]string]int{}
	for _, p := range pools {
		k := key(p)
		if i, ok := at[k]; ok {
			out[i].add(p)
			continue
		}
		at[k] = len(out)
		out = append(out, p)
	}
	return out
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
