// Package app puts a node together: the only place where concrete types meet. New makes and binds everything, Run runs
// it until its context ends, and takes it down in the reverse order.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/havenha/haven/internal/agent"
	"github.com/havenha/haven/internal/api"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/dcs/etcd"
	"github.com/havenha/haven/internal/disk"
	"github.com/havenha/haven/internal/guard"
	"github.com/havenha/haven/internal/journal"
	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/proxy"
)

// Options are what a node is made from.
type Options struct {
	Node *config.Node // as it was at the start
	// Next is the command by which the program that an upgrade would go on as checks the configuration: what stands at the
	// path by which this one was started, then the arguments. Empty: an upgrade is refused.
	Next    []string
	Version string
	Log     *slog.Logger
	// Relog has the log written as that section says from now on.
	Relog func(config.Log) error
	Env   []string
}

// Node is one running node: the roles whose sections are present.
type Node struct {
	opt       Options
	node      atomic.Pointer[config.Node] // the configuration in force
	reloading sync.Mutex
	log       *slog.Logger
	etcd      *etcd.Server       // nil: no embedded member
	store     *etcd.Client       // nil: etcd is nowhere in the configuration
	server    *postgres.Instance // nil: no database
	guard     *guard.Link        // nil: no database, or no guard
	agent     *agent.Agent       // nil: no database
	proxy     *proxy.Proxy       // nil: no proxy
	disk      *disk.Watch
	aside     *leftovers // nil: no database
	api       *api.Server
	peers     *http.Client // asks other members' REST APIs, by roads
	roads     peerRoads
	stack     teardown

	upgrading atomic.Bool
	leave     context.CancelCauseFunc // ends the agent; set before the REST API serves
}

// New checks and binds everything. Nothing of PostgreSQL is touched before Run.
func New(ctx context.Context, o Options) (*Node, error) {
	n := &Node{opt: o, log: o.Log}
	n.node.Store(o.Node)
	n.disk = disk.New(func() []disk.Place { return places(o.Node) })
	if err := n.build(ctx); err != nil {
		n.stack.unwind(o.Log)
		return nil, err
	}
	return n, nil
}

func (n *Node) build(ctx context.Context) error {
	c := n.opt.Node
	if busy := c.BusyPorts(); len(busy) > 0 {
		return &ConfigError{Report: config.Report{Faults: busy}}
	}
	for _, step := range []func(context.Context) error{
		n.checkCertificates, n.openDatabase, n.makeDirs, n.startEtcd, n.openStore, n.openPeers, n.warnOfUnit, n.openGuard, n.buildAgent, n.buildProxy, n.buildAPI,
	} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// ConfigError is a node that cannot start as it is configured.
type ConfigError struct{ Report config.Report }

func (e *ConfigError) Error() string { return e.Report.String() }

// PreconditionError is a node that may not start on what it found: nothing was changed.
type PreconditionError struct{ Err error }

func (e *PreconditionError) Error() string { return e.Err.Error() }

// Unwrap gives what was found.
func (e *PreconditionError) Unwrap() error { return e.Err }

// makeDirs makes the state directory, for nobody else to read. Those above it may be walked through: the data directory
// may stand beside it, and belongs to another user.
func (n *Node) makeDirs(context.Context) error {
	dir := n.opt.Node.Dir()
	err := os.MkdirAll(filepath.Dir(dir), 0o755)
	if err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	if err != nil {
		return &PreconditionError{fmt.Errorf("state directory: %w: make it writable, or set haven.state_dir", err)}
	}
	return nil
}

func (n *Node) openDatabase(context.Context) error {
	c := n.opt.Node
	if c.Postgres == nil {
		return nil
	}
	o, err := postgresOptions(c, n.opt.Env, n.log)
	if err != nil {
		return &PreconditionError{err}
	}
	if err := postgres.CheckDataDir(o.DataDir, o.RunAs); err != nil {
		return &PreconditionError{err}
	}
	if n.server, err = postgres.New(o); err != nil {
		return &PreconditionError{err}
	}
	n.stack.push("postgresql connections", func() { n.server.Close() })
	if major := n.server.Version() / 10000; major < 13 {
		return &PreconditionError{fmt.Errorf("PostgreSQL %d is too old: Haven needs 13 or later", major)}
	} else if major == 13 {
		n.log.Warn("PostgreSQL 13 is past its end of life: upgrade to 14 or later")
	}
	return n.checkDisk()
}

// checkDisk refuses a data directory that is not PostgreSQL's, or of another major version, before anything is started.
func (n *Node) checkDisk() error {
	d, err := n.server.Inspect()
	if err != nil {
		return &PreconditionError{err}
	}
	major := n.server.Version() / 10000
	switch {
	case d.Kind == postgres.DiskForeign:
		return &PreconditionError{fmt.Errorf("%s is not empty and holds no PostgreSQL database: Haven touches nothing that it cannot recognise; name an empty directory, or move these files away", n.server.DataDir())}
	case d.Kind == postgres.DiskData && d.Control.Version != 0 && d.Control.Version != major:
		return &PreconditionError{fmt.Errorf("%s is a database of PostgreSQL %d, the programs are of version %d: set postgresql.bin_dir to those of version %d", n.server.DataDir(), d.Control.Version, major, d.Control.Version)}
	}
	return nil
}

func (n *Node) startEtcd(ctx context.Context) error {
	c := n.opt.Node
	if !c.Etcd.Embedded {
		return nil
	}
	o := etcd.ServerOptions{
		Name: c.Name, DataDir: filepath.Join(c.Dir(), "etcd"), Token: c.Etcd.Token, ElectionTimeout: c.Etcd.ElectionTimeout,
		CACert: c.Etcd.PeerTLS.CAFile, Cert: c.Etcd.PeerTLS.CertFile, Key: c.Etcd.PeerTLS.KeyFile,
		Log: n.log.With("component", "etcd"),
	}
	for _, m := range c.Etcd.Members {
		o.Members = append(o.Members, etcd.ServerMember{Name: m.Name, Client: m.Client, Peer: m.Peer})
	}
	// The member serves until the agent has handed over; the teardown ends it, not the signal.
	s, err := etcd.StartServer(context.WithoutCancel(ctx), o)
	if err != nil {
		return fmt.Errorf("embedded etcd: %w", err)
	}
	n.etcd = s
	n.stack.push("embedded etcd", s.Stop)
	return nil
}

func (n *Node) openStore(context.Context) error {
	if !n.opt.Node.HasStore() && !n.opt.Node.NeedsStore() {
		n.log.Info("no etcd is configured: the proxy asks the REST APIs of proxy.members")
		return nil
	}
	o, err := StoreOptions(n.opt.Node, n.log)
	if err != nil {
		return err
	}
	if n.store, err = etcd.Open(o); err != nil {
		return err
	}
	n.stack.push("etcd client", func() { n.store.Close() })
	return nil
}

func (n *Node) openPeers(context.Context) error {
	transport, err := peerTransport(n.opt.Node)
	if err != nil {
		return err
	}
	n.roads.Store(transport)
	n.peers = &http.Client{Transport: &n.roads}
	return nil
}

func (n *Node) buildAgent(context.Context) error {
	c := n.opt.Node
	if n.server == nil {
		return nil
	}
	j, err := journal.Open(filepath.Join(c.Dir(), "journal"), c.Haven.JournalSize)
	if err != nil {
		return err
	}
	n.stack.push("journal", j.Close)
	n.aside = &leftovers{node: c}
	n.agent = agent.New(agent.Options{
		Node: c, Store: n.store, Server: n.server, Journal: j, Guard: n.guard, Peers: n.peers, Version: n.opt.Version, Log: n.log.With("component", "agent"),
		Troubles: []func() []string{n.disk.Problems, n.aside.Problems},
	})
	return nil
}

func (n *Node) buildProxy(context.Context) error {
	c := n.opt.Node
	if c.Proxy == nil {
		return nil
	}
	checks, err := restTransport(c)
	if err != nil {
		return err
	}
	n.proxy, err = proxy.New(proxy.Options{Config: c.Proxy, Watcher: n.keys(), HTTP: &http.Client{Transport: checks}, Log: n.log.With("component", "proxy"), Scope: c.Scope})
	if err == nil {
		n.stack.push("proxy", func() { n.proxy.Close() })
	}
	return err
}

func (n *Node) buildAPI(context.Context) error {
	c := n.opt.Node
	var err error
	var operator api.Operator // not a nil agent in it
	var pledge func(string, time.Duration) (cluster.LSN, error)
	if n.agent != nil {
		operator, pledge = n.agent, n.agent.Pledge
	}
	n.api, err = api.New(api.Options{
		Operator: operator, Pledge: pledge,
		Node: c.RESTAPI, Source: n.source(), Store: n.keys(), Wake: n.wake, Reload: n.Reload, Upgrade: n.Upgrade, Peers: n.peers,
		Log: n.log.With("component", "restapi"), Version: n.opt.Version, Facts: n.facts,
	})
	return err
}

func (n *Node) wake() {
	if n.agent != nil {
		n.agent.Wake()
	}
}

// Run runs the node until ctx ends or a part of it fails, and takes it down. It returns ErrUpgrade after Upgrade.
func (n *Node) Run(ctx context.Context) error {
	defer n.stack.unwind(n.log)
	if err := n.awaitStore(ctx); err != nil {
		return err
	}
	if err := n.refuseTwin(ctx); err != nil {
		return err
	}
	return n.runParts(ctx)
}

// runParts runs agent, proxy and REST API. The agent ends first: the others serve until it has handed over.
func (n *Node) runParts(ctx context.Context) error {
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	core, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	n.leave = cancel
	parts := make(chan error, 6)
	count := 0
	begin := func(name string, ctx context.Context, run func(context.Context) error) {
		count++
		go func() {
			err := run(ctx)
			if err != nil {
				err = fmt.Errorf("%s: %w", name, err)
				cancel(err)
			}
			parts <- err
		}()
	}
	begin("restapi", serving, n.api.Run)
	begin("room of the disks", serving, n.disk.Run)
	if n.aside != nil {
		begin("data moved aside", serving, n.aside.run)
	}
	if n.etcd != nil && n.agent != nil {
		begin("etcd placement", serving, n.keepApart)
	}
	if n.proxy != nil {
		begin("proxy", serving, n.proxy.Run)
	}
	var errs []error
	if n.agent != nil {
		errs = append(errs, n.agent.Run(core))
	} else {
		<-core.Done()
	}
	stopServing()
	for range count {
		errs = append(errs, <-parts)
	}
	if n.upgrading.Load() {
		errs = append(errs, ErrUpgrade)
	}
	return errors.Join(errs...)
}

// An unreachable etcd is asked again this often at the start, and reported this often (Patroni).
const (
	storeRetry  = 200 * time.Millisecond
	storeReport = 5 * time.Second
)

// awaitStore waits until etcd answers, where the node needs it. What will not mend itself (a wrong password, a certificate)
// ends the start.
func (n *Node) awaitStore(ctx context.Context) error {
	if !n.opt.Node.NeedsStore() {
		return nil
	}
	var reported time.Time
	for {
		err := n.store.Ping(ctx)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return nil
		case etcd.Refused(err):
			return err
		}
		if time.Since(reported) > storeReport {
			reported = time.Now()
			n.log.Warn("waiting on etcd", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(storeRetry):
		}
	}
}

// twinTimeout bounds the question to a member of our own name.
const twinTimeout = 3 * time.Second

// refuseTwin ends the start if a member of this name runs elsewhere: both would write the same keys.
func (n *Node) refuseTwin(ctx context.Context) error {
	if n.agent == nil {
		return nil
	}
	name := n.opt.Node.Name
	snap, err := n.store.Snapshot(ctx)
	if err != nil {
		return nil // the agent waits for the store by itself
	}
	m, ok := snap.Member(name)
	if !ok || m.APIBase() == "" || strings.HasSuffix(m.APIBase(), "//"+n.opt.Node.RESTAPI.ConnectAddress) {
		return nil // none, or ourselves before a restart: a twin at our own address could not have bound it
	}
	ctx, cancel := context.WithTimeout(ctx, twinTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.APIBase()+"/liveness", nil)
	if err != nil {
		return nil
	}
	resp, err := n.peers.Do(req)
	if err != nil {
		return nil
	}
	resp.Body.Close()
	return &PreconditionError{fmt.Errorf("Can't start; there is already a node named '%s' running (at %s): give this one another name", name, m.APIBase())}
}
