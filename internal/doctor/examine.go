package doctor

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/dcs/etcd"
)

// Evidence is what was gathered of a cluster.
type Evidence struct {
	Members []Member
	Leader  string
	Lags    []Lag // as the leader tells them; nil: not known
	Etcd    []etcd.EndpointHealth
	Proxies []Proxy
	TTL     time.Duration
	// ElectionTimeout is that of the embedded etcd; zero: not known.
	ElectionTimeout time.Duration
}

// Member is one member of the cluster, and what it answered.
type Member struct {
	cluster.Member
	Reached bool
	Error   string // of the REST API, where it did not answer
	// Primary and Replica are the answers to the checks of a load balancer. Leads is that to the check of the leader: of the primary, or in
	// a standby cluster of the standby leader.
	Primary, Replica, Leads bool
	Facts                   *Facts // nil: see Refused
	Refused                 string
	Skew                    time.Duration // of its clock against ours
	Rounding                time.Duration // by how much Skew may be wrong
}

// Lag is how far a standby is behind; nil is not known.
type Lag struct {
	Member                     string
	Sent, Write, Flush, Replay *uint64
}

// Proxy is one proxy and the members that it knows.
type Proxy struct {
	Address, Error string
	Servers        []string
}

// Thresholds. Bytes of lag are those of haven check.
const (
	lagWarning  = 10 << 20
	lagCritical = 100 << 20
	maxSkew     = 2 * time.Second
	slowAnswer  = 500 * time.Millisecond
)

// Examine judges. Its findings are in the order of Sort.
func Examine(e Evidence) []Finding {
	var out []Finding
	for _, check := range []func(Evidence) []Finding{writers, routes, reach, secrets, versions, clocks, replication, stores, timing, own} {
		out = append(out, check(e)...)
	}
	Sort(out)
	return out
}

func writers(e Evidence) []Finding {
	var names, where []string
	for _, m := range e.Members {
		if m.Primary || m.Facts != nil && m.Facts.Writable {
			names = append(names, m.Name)
			if m.Facts != nil {
				where = append(where, fmt.Sprintf("%s at %s on timeline %d", m.Name, m.Facts.Position, m.Facts.Timeline))
			}
		}
	}
	switch {
	case len(names) > 1:
		text := strings.Join(names, " and ") + " accept writes at the same time"
		if len(where) > 0 {
			text += ": " + strings.Join(where, ", ")
		}
		keep := ""
		if slices.Contains(names, e.Leader) {
			keep = fmt.Sprintf(" (%s holds the leader key)", e.Leader)
		}
		return []Finding{{"two_writable", Critical, "", text, "keep the applications away, find out which of them holds what must not be lost" + keep + ", and stop PostgreSQL on the other: its data stays beside as NAME.TIME.aside when it rejoins"}}
	case len(names) == 0 && len(e.Members) > 0 && !slices.ContainsFunc(e.Members, func(m Member) bool { return m.Leads }):
		return []Finding{{"no_leader", Critical, "", "no member answers as a primary: connections for writing go nowhere", "haven status says why; haven failover --plan says who could take over"}}
	}
	return nil
}

func routes(e Evidence) []Finding {
	var out []Finding
	for _, m := range e.Members {
		if m.Reached && !m.Leads && !m.Replica && m.State == cluster.StateRunning && !m.Tag("noloadbalance") {
			out = append(out, Finding{"not_routed", Warning, m.Name, "it runs, and answers the checks of a load balancer neither as a primary nor as a replica",
				"haven status; curl -i " + m.APIBase() + "/replica"})
		}
	}
	for _, p := range e.Proxies {
		if p.Error != "" {
			out = append(out, Finding{"proxy_unreachable", Warning, "", fmt.Sprintf("the proxy at %s does not answer: %s", p.Address, p.Error), "is it running? systemctl status haven on its host; proxy.stats.allow may keep this host out"})
			continue
		}
		for _, m := range e.Members {
			if !slices.Contains(p.Servers, m.Name) && !m.Tag("noloadbalance") {
				out = append(out, Finding{"not_routed", Warning, m.Name, fmt.Sprintf("the proxy at %s does not know it", p.Address), "curl http://" + p.Address + "/json; with discover: rest, add it to proxy.members"})
			}
		}
	}
	return out
}

func reach(e Evidence) []Finding {
	var out []Finding
	for _, m := range e.Members {
		switch {
		case !m.Reached:
			out = append(out, Finding{"api_unreachable", Critical, m.Name, fmt.Sprintf("its REST API at %s does not answer from here: %s", m.APIBase(), m.Error),
				"is haven running there (systemctl status haven), and does the firewall let this address pass?"})
		case m.Facts == nil:
			out = append(out, Finding{"not_examined", Warning, m.Name, "it did not let itself be examined: " + m.Refused,
				"run haven doctor with the node's own configuration file: haven -c /etc/haven/haven.yml doctor"})
		case m.Facts.Secrets == nil:
			out = append(out, Finding{"secrets_unknown", Warning, m.Name, "whether its secrets are those of the others is not known: its REST API asks for no password, and tells nothing about them then",
				"set restapi.authentication (username, password_file) on every node, and reload: systemctl reload haven"})
		}
	}
	return out
}

func secrets(e Evidence) []Finding {
	names := map[string]bool{}
	for _, m := range e.Members {
		if m.Facts != nil {
			for name := range m.Facts.Secrets {
				names[name] = true
			}
		}
	}
	var out []Finding
	for _, name := range slices.Sorted(maps.Keys(names)) {
		groups := map[string][]string{}
		for _, m := range e.Members {
			if m.Facts == nil || m.Facts.Secrets == nil {
				continue
			}
			h := m.Facts.Secrets[name]
			groups[h] = append(groups[h], m.Name)
		}
		if len(groups) < 2 {
			continue
		}
		var sides []string
		for _, members := range groups {
			sides = append(sides, strings.Join(members, ", "))
		}
		slices.Sort(sides)
		out = append(out, Finding{"secrets_differ", Critical, "", fmt.Sprintf("%s is not the same on all nodes: %s", name, strings.Join(sides, " against ")),
			"set " + name + " to one value in the configuration of every node, and reload: systemctl reload haven"})
	}
	return out
}

func versions(e Evidence) []Finding {
	var out []Finding
	for _, of := range []struct {
		what string
		get  func(*Facts) string
		mend string
	}{
		{"PostgreSQL", func(f *Facts) string { return f.Postgres }, "bring them to one version, standbys first, then haven switchover, then the former leader"},
		{"Haven", func(f *Facts) string { return f.Haven }, "install one version on all nodes, standbys first"},
	} {
		groups := map[string][]string{}
		for _, m := range e.Members {
			if m.Facts != nil && of.get(m.Facts) != "" {
				v := of.get(m.Facts)
				groups[v] = append(groups[v], m.Name)
			}
		}
		if len(groups) < 2 {
			continue
		}
		var sides []string
		for _, v := range slices.Sorted(maps.Keys(groups)) {
			sides = append(sides, v+" on "+strings.Join(groups[v], ", "))
		}
		out = append(out, Finding{"versions_differ", Warning, "", "members run different versions of " + of.what + ": " + strings.Join(sides, "; "), of.mend})
	}
	return out
}

func clocks(e Evidence) []Finding {
	var first, last *Member
	for i, m := range e.Members {
		if m.Facts == nil {
			continue
		}
		if first == nil || m.Skew < first.Skew {
			first = &e.Members[i]
		}
		if last == nil || m.Skew > last.Skew {
			last = &e.Members[i]
		}
	}
	if first == nil || last.Skew-first.Skew < maxSkew+first.Rounding+last.Rounding {
		return nil
	}
	return []Finding{{"clock_skew", Warning, "", fmt.Sprintf("the clock of %s is %s ahead of that of %s", last.Name, (last.Skew - first.Skew).Round(100*time.Millisecond), first.Name),
		"let time be set on both: timedatectl set-ntp true"}}
}

// own are the findings of the nodes themselves.
func own(e Evidence) []Finding {
	var out []Finding
	for _, m := range e.Members {
		if m.Facts != nil {
			for _, f := range m.Facts.Findings {
				f.Member = m.Name
				out = append(out, f)
			}
		}
	}
	return out
}
