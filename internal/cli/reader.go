package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/havenha/haven/internal/api"
	"github.com/havenha/haven/internal/app"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/dcs/etcd"
)

// readTimeout bounds a read; etcdShare is what of it may go by before the REST API is asked instead.
const readTimeout = 5 * time.Second

// picture is the cluster as it was read.
type picture struct {
	scope   string
	snap    cluster.Snapshot
	dynamic config.Dynamic
	asOf    time.Time
	// from is etcd, or the member that was asked; stale tells that the member itself could not read etcd.
	from  string
	stale bool
}

// reader reads a cluster's state, through etcd or the REST API.
type reader struct {
	c      *console
	node   *config.Node // nil: only a URL is given
	scope  string
	bases  []string // REST APIs to ask, in this order
	client *api.Client
	store  *etcd.Client // nil: only a URL is given
}

// reader finds out what to ask. scope overrides the configuration's; empty: it does not.
func (c *console) reader(scope string) (*reader, error) {
	if c.ctl != nil {
		return c.ctlReader(scope)
	}
	file, err := config.FindFile(c.config, c.env)
	if err != nil {
		return nil, &Failure{Code: ExitConfig, What: err.Error(), Next: "haven -c FILE …, or haven -c http://MEMBER:8008 …"}
	}
	if isURL(file) {
		return c.remote(file, scope)
	}
	node, err := c.load(file, c.env)
	if err != nil {
		return nil, err
	}
	if scope != "" {
		node.Scope = scope
	}
	return c.readerOf(node)
}

// readerOf reads the cluster that a configuration is about.
func (c *console) readerOf(node *config.Node) (*reader, error) {
	var err error
	r := &reader{c: c, node: node, scope: node.Scope, bases: restBases(node)}
	if r.client, err = api.NewClient(node.CTL, node.RESTAPI); err != nil {
		return nil, &Failure{Code: ExitConfig, What: err.Error(), Next: "correct the section ctl (or restapi) of " + node.File}
	}
	if !node.HasStore() && node.Proxy != nil {
		r.bases = node.Proxy.Bases() // its own knows no keys
		return r, nil
	}
	o, err := app.StoreOptions(node, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, &Failure{Code: ExitConfig, What: err.Error(), Next: "correct the section etcd of " + node.File}
	}
	o.RetryTimeout = c.wait(readTimeout) * 3 / 5 // the rest is for asking a member
	if r.store, err = etcd.Open(o); err != nil {
		return nil, &Failure{Code: ExitConfig, What: err.Error()}
	}
	return r, nil
}

func isURL(s string) bool { return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://") }

func (c *console) remote(base, scope string) (*reader, error) {
	insecure := slices.Contains([]string{"1", "true", "on", "yes"}, strings.ToLower(c.getenv("PATRONI_CTL_INSECURE")))
	client, err := api.NewClient(config.CTL{
		Username: c.getenv("PATRONI_CTL_USERNAME"), Password: c.getenv("PATRONI_CTL_PASSWORD"), Insecure: insecure,
		CACert: c.getenv("PATRONI_CTL_CACERT"), CertFile: c.getenv("PATRONI_CTL_CERTFILE"), KeyFile: c.getenv("PATRONI_CTL_KEYFILE"),
		KeyPassword: c.getenv("PATRONI_CTL_KEYFILE_PASSWORD"),
	}, &config.RESTAPI{Username: c.getenv("PATRONI_RESTAPI_USERNAME"), Password: c.getenv("PATRONI_RESTAPI_PASSWORD")})
	if err != nil {
		return nil, &Failure{Code: ExitConfig, What: err.Error(), Next: "correct PATRONI_CTL_CACERT, PATRONI_CTL_CERTFILE, PATRONI_CTL_KEYFILE"}
	}
	return &reader{c: c, scope: scope, bases: []string{strings.TrimRight(base, "/")}, client: client}, nil
}

// load reads the configuration as a client does: of a file that describes several nodes, any will do.
func (c *console) load(file string, env []string) (*config.Node, error) {
	src := hostSource(file, c.name)
	src.Env, src.Client = env, true
	node, report := config.Load(src)
	if node == nil {
		return nil, &Failure{Code: ExitConfig, What: strings.TrimSpace(report.String()), Next: "haven config check " + file}
	}
	if c.verbose {
		for _, f := range report.Faults {
			c.say("%s", f)
		}
	}
	return node, nil
}

// restBases are the REST APIs that a configuration lets one know of: the node's own, and those on etcd's hosts.
func restBases(n *config.Node) []string {
	scheme := "http://"
	if n.RESTAPI.CertFile != "" {
		scheme = "https://"
	}
	var bases []string
	add := func(hostport string) {
		if hostport != "" && !slices.Contains(bases, scheme+hostport) {
			bases = append(bases, scheme+hostport)
		}
	}
	add(n.RESTAPI.ConnectAddress)
	_, port, err := net.SplitHostPort(n.RESTAPI.ConnectAddress)
	if err != nil {
		return bases
	}
	for _, m := range n.Etcd.Hosts {
		if u, err := url.Parse("http://" + m[strings.Index(m, "/")+1:]); err == nil && u.Hostname() != "" {
			add(net.JoinHostPort(u.Hostname(), port))
		}
	}
	return bases
}

func (r *reader) close() {
	if r.store != nil {
		_ = r.store.Close() // it only waits for its own calls
	}
}

// read reads the cluster's state: from etcd, or where that cannot be reached, from a member.
func (r *reader) read(ctx context.Context) (picture, error) {
	ctx, cancel := context.WithTimeout(ctx, r.c.wait(readTimeout))
	defer cancel()
	if r.store == nil {
		return r.ask(ctx)
	}
	snap, err := r.store.Snapshot(ctx)
	if err == nil {
		return newPicture(r.scope, snap, time.Now(), "etcd")
	}
	var u *etcd.Unreachable
	if !errors.As(err, &u) && !errors.Is(err, context.DeadlineExceeded) {
		return picture{}, &Failure{Code: ExitFailed, What: err.Error(), Means: "The state of the cluster is not known."}
	}
	p, asked := r.ask(ctx)
	if asked != nil {
		return p, &Failure{
			Code: ExitUnreachable, What: fmt.Sprintf("etcd cannot be reached: %v", err),
			Means: "The state of the cluster is not known. This says nothing about PostgreSQL itself.",
			Next:  "is etcd up? etcdctl " + etcdFlags(r.node.Etcd) + " endpoint health\nor ask a member: haven -c http://MEMBER:8008 status",
		}
	}
	r.c.say("etcd cannot be reached (%s): showing what %s knows, as of %s ago", reason(u), p.from, short(time.Since(p.asOf)))
	return p, nil
}

// etcdFlags are the flags by which etcdctl finds the same etcd.
func etcdFlags(e config.Etcd) string {
	switch {
	case e.SRV != "" && e.SRVSuffix != "":
		return "--discovery-srv " + e.SRV + " --discovery-srv-name " + e.SRVSuffix
	case e.SRV != "":
		return "--discovery-srv " + e.SRV
	}
	return "--endpoints " + strings.Join(e.Hosts, ",")
}

// reason is the shortest true account of why etcd does not answer.
func reason(u *etcd.Unreachable) string {
	if u == nil || len(u.Reasons) == 0 {
		return "no answer"
	}
	text := (&etcd.Unreachable{Reasons: u.Reasons[:1]}).Error()
	_, text, _ = strings.Cut(text, "(")
	text = strings.TrimSuffix(text, ")")
	if n := len(u.Reasons); n > 1 {
		text += fmt.Sprintf(", and %d more", n-1)
	}
	return text
}

// ask asks the known REST APIs for what they know.
func (r *reader) ask(ctx context.Context) (picture, error) {
	var failed []string
	for _, base := range r.bases {
		s, err := r.client.Status(ctx, base)
		if err == nil && r.scope != "" && s.Scope != r.scope {
			err = fmt.Errorf("%s is a member of cluster %s, not %s", s.Name, s.Scope, r.scope)
		}
		if err != nil {
			failed = append(failed, err.Error())
			continue
		}
		p, err := newPicture(s.Scope, s.Cluster.Snapshot(), s.SeenAt, s.Name)
		p.stale = !s.Known
		if p.stale && r.store == nil {
			r.c.say("%s cannot read etcd: showing what it knows, as of %s ago", s.Name, short(time.Since(s.SeenAt)))
		}
		return p, err
	}
	return picture{}, &Failure{Code: ExitUnreachable, What: strings.Join(failed, "\n"),
		Means: "The state of the cluster is not known.", Next: "check the address, or ask another member"}
}

func newPicture(scope string, snap cluster.Snapshot, asOf time.Time, from string) (picture, error) {
	p := picture{scope: scope, snap: snap, asOf: asOf, from: from}
	raw := []byte("{}")
	if snap.Config != nil {
		raw = snap.Config.Raw
	}
	var err error
	if p.dynamic, _, err = config.ParseDynamic(raw, true); err != nil {
		return p, &Failure{Code: ExitFailed, What: "the cluster's dynamic configuration is not valid: " + err.Error(), Next: "correct it: haven edit-config, or PUT /config"}
	}
	return p, nil
}

func (p picture) leader() string {
	if p.snap.Leader == nil {
		return ""
	}
	return p.snap.Leader.Name
}
