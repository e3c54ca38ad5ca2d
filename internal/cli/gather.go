package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/havenha/haven/internal/api"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/doctor"
)

// Bounds of what the doctor asks.
const (
	factsTimeout = 6 * time.Second
	proxyTimeout = 2 * time.Second
)

// gather asks everybody at once.
func (r *reader) gather(ctx context.Context, p picture, proxies []string) doctor.Evidence {
	e := doctor.Evidence{Leader: p.leader(), TTL: p.dynamic.TTL, Members: make([]doctor.Member, len(p.snap.Members))}
	salt := make([]byte, 16)
	rand.Read(salt) // never fails (crypto/rand)
	var asked sync.WaitGroup
	for i, m := range p.snap.Members {
		asked.Go(func() { e.Members[i] = r.examine(ctx, m, p, hex.EncodeToString(salt)) })
	}
	asked.Go(func() { e.Lags = r.lags(ctx, p) })
	if r.store != nil {
		asked.Go(func() { e.Etcd = r.store.Health(ctx) })
	}
	if r.node != nil {
		e.ElectionTimeout = electionTimeout(r.node)
	}
	pages := r.pages(proxies)
	e.Proxies = make([]doctor.Proxy, len(pages))
	for i, page := range pages {
		asked.Go(func() { e.Proxies[i] = page.ask(ctx) })
	}
	asked.Wait()
	r.examineOwn(ctx, &e)
	return e
}

func electionTimeout(n *config.Node) time.Duration {
	if len(n.Etcd.Members) == 0 {
		return 0
	}
	return n.Etcd.ElectionTimeout
}

// examine asks one member, as a load balancer and as the doctor.
func (r *reader) examine(ctx context.Context, m cluster.Member, p picture, salt string) doctor.Member {
	out := doctor.Member{Member: m}
	short, cancel := context.WithTimeout(ctx, sideTimeout)
	defer cancel()
	a, err := r.client.Do(short, http.MethodGet, m.APIBase(), "/primary", nil)
	if err != nil {
		out.Error = err.Error()
		return out
	}
	out.Reached, out.Primary = true, a.Code == http.StatusOK
	out.Leads = out.Primary
	if p.dynamic.IsStandby() {
		a, err = r.client.Do(short, http.MethodGet, m.APIBase(), "/standby-leader", nil)
		out.Leads = err == nil && a.Code == http.StatusOK
	}
	if a, err = r.client.Do(short, http.MethodGet, m.APIBase(), "/replica", nil); err == nil {
		out.Replica = a.Code == http.StatusOK
	}
	long, stop := context.WithTimeout(ctx, factsTimeout)
	defer stop()
	began := time.Now()
	a, err = r.client.Do(long, http.MethodPost, m.APIBase(), "/haven/facts", doctor.Question{Salt: salt})
	var f doctor.Facts
	switch {
	case err != nil:
		out.Refused = err.Error()
	case a.Code == http.StatusUnauthorized || a.Code == http.StatusForbidden:
		out.Refused = a.Text()
	case a.Code != http.StatusOK:
		out.Refused = fmt.Sprintf("it answers %d: is it Patroni, or another version of Haven?", a.Code)
	case json.Unmarshal(a.Body, &f) != nil || f.Name != m.Name || f.Scope != p.scope:
		out.Refused = fmt.Sprintf("%s is answered by %s of cluster %s", m.APIBase(), or(f.Name, "something else"), or(f.Scope, "?"))
	default:
		out.Facts, out.Rounding = &f, time.Since(began)
		out.Skew = time.Until(f.At) // the node takes the time last, so that little of the answer's time is in it
	}
	return out
}

// lags are what the leader tells of its standbys.
func (r *reader) lags(ctx context.Context, p picture) []doctor.Lag {
	h, err := r.health(ctx, p)
	if err != nil {
		return nil
	}
	var out []doctor.Lag
	for _, m := range h.Members {
		if m.Lag != nil {
			out = append(out, doctor.Lag{Member: m.Name, Sent: m.Lag.Sent.Bytes, Write: m.Lag.Write.Bytes, Flush: m.Lag.Flush.Bytes, Replay: m.Lag.Replay.Bytes})
		}
	}
	return out
}

// health is the leader's account of the cluster.
func (r *reader) health(ctx context.Context, p picture) (api.Health, error) {
	var h api.Health
	m, found := p.snap.Member(p.leader())
	if !found || m.APIBase() == "" {
		return h, fmt.Errorf("no member leads")
	}
	ctx, cancel := context.WithTimeout(ctx, readTimeout)
	defer cancel()
	a, err := r.client.Do(ctx, http.MethodGet, m.APIBase(), "/haven/health?own=true", nil)
	if err != nil {
		return h, err
	}
	if json.Unmarshal(a.Body, &h) != nil || h.Verdict == "" {
		return h, fmt.Errorf("%s answers, but not as Haven does", m.APIBase())
	}
	return h, nil
}

// statsPage is the statistics page of a proxy, with its own login: those of REST APIs are not for it.
type statsPage struct{ address, username, password string }

// pages are those given, and those that the configuration tells of: the node's own, and where it describes several nodes,
// theirs.
func (r *reader) pages(given []string) []statsPage {
	var out []statsPage
	for _, address := range given {
		out = append(out, statsPage{address: address})
	}
	add := func(n *config.Node) {
		if n == nil || n.Proxy == nil || n.Proxy.Stats == nil || n.Proxy.Stats.Listen == "" {
			return
		}
		s := n.Proxy.Stats
		address := reachable(s.Listen, cmp.Or(n.Proxy.Address, n.Haven.Address))
		if !slices.Contains(given, address) {
			out = append(out, statsPage{address, s.Username, s.Password})
		}
	}
	if r.node == nil {
		return out
	}
	src := hostSource(r.node.File, "")
	src.Env, src.Client = r.c.env, true
	names, _ := config.NodeNames(src)
	if len(names) == 0 {
		add(r.node)
	}
	for _, name := range names {
		src.Name = name
		n, _ := config.Load(src)
		add(n)
	}
	return out
}

// reachable is an address to connect to, of one to listen on.
func reachable(listen, address string) string {
	u, err := url.Parse("http://" + listen)
	if err != nil {
		return listen
	}
	switch u.Hostname() {
	case "", "*", "0.0.0.0", "::":
		return cmp.Or(address, "127.0.0.1") + ":" + u.Port()
	}
	return listen
}

func (s statsPage) ask(ctx context.Context) doctor.Proxy {
	out := doctor.Proxy{Address: s.address}
	ctx, cancel := context.WithTimeout(ctx, proxyTimeout)
	defer cancel()
	client, err := api.NewClient(config.CTL{Username: s.username, Password: s.password}, nil)
	if err != nil {
		out.Error = err.Error()
		return out
	}
	a, err := client.Do(ctx, http.MethodGet, "http://"+s.address, "/json", nil)
	var stats struct {
		Listeners []struct {
			Servers []struct {
				Name string `json:"name"`
			} `json:"servers"`
		} `json:"listeners"`
	}
	switch {
	case err != nil:
		out.Error = err.Error()
	case a.Code != http.StatusOK:
		out.Error = fmt.Sprintf("it answers %d", a.Code)
	case json.Unmarshal(a.Body, &stats) != nil:
		out.Error = "it answers, but not as a proxy of Haven's does"
	}
	for _, l := range stats.Listeners {
		for _, s := range l.Servers {
			out.Servers = append(out.Servers, s.Name)
		}
	}
	return out
}

// examineOwn looks at the own host where its node does not answer: then nobody else can. That this is the node's host is
// told by its data directory: a configuration may describe several nodes.
func (r *reader) examineOwn(ctx context.Context, e *doctor.Evidence) {
	if r.node == nil || r.node.Name == "" || r.node.Postgres == nil || len(r.bases) == 0 {
		return
	}
	i := slices.IndexFunc(e.Members, func(m doctor.Member) bool { return m.Name == r.node.Name })
	if _, err := os.Stat(r.node.Postgres.DataDir); err != nil {
		return
	}
	if i < 0 {
		i = len(e.Members)
		e.Members = append(e.Members, doctor.Member{Error: "haven does not run here, and its member key is gone",
			Member: cluster.Member{Name: r.node.Name, APIURL: r.bases[0]}})
	}
	if e.Members[i].Facts != nil || e.Members[i].Reached {
		return
	}
	host := doctor.RealHost()
	e.Members[i].Facts = &doctor.Facts{Name: r.node.Name, At: time.Now(), Findings: doctor.Local(ctx, host, r.node)}
}
