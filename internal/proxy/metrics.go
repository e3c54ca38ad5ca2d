package proxy

import "github.com/prometheus/client_golang/prometheus"

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
	return prometheus.MustNewConstMetric(m.desc(), m.kind, value, labels...)
}

// Describe describes nothing: the servers, and so the metrics, come and go.
func (collector) Describe(chan<- *prometheus.Desc) {}

// Collect sends the metrics of now.
func (c collector) Collect(out chan<- prometheus.Metric) {
	s := c.snapshot()
	gauge := func(name, help string) metric { return metric{prometheus.GaugeValue, name, help, []string{"scope"}} }
	out <- gauge("leader_admitted", "1 while a primary is admitted.").of(truth(s.Leader.State == Admitted), s.Scope)
	if s.Leader.Name != "" {
		leads := metric{prometheus.GaugeValue, "leader", "1 for the server whose member holds the leader key.", []string{"scope", "server"}}
		out <- leads.of(1, s.Scope, s.Leader.Name)
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
		{metric{prometheus.CounterValue, "held_total", "Connections that had to wait.", labels}, float64(l.Held)},
		{metric{prometheus.CounterValue, "hold_timeouts_total", "Connections closed after hold_timeout.", labels}, float64(l.Timeouts)},
		{metric{prometheus.CounterValue, "rejected_total", "Connections closed because too many waited.", labels}, float64(l.Rejected)},
		{metric{prometheus.CounterValue, "reset_sessions_total", "Sessions reset at a change of leader or replicas.", labels}, float64(l.Reset)},
	} {
		out <- m.of(m.value, scope, l.Listen, l.Target)
	}
	for _, s := range l.Servers {
		collectServer(out, scope, l, s)
	}
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
		out <- m.of(m.value, scope, l.Listen, l.Target, s.Name)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
