package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/dcs"
	"github.com/havenha/haven/internal/proxy/addresses"
	"github.com/havenha/haven/internal/proxy/listen"
)

// Watcher tells how the cluster changes; a dcs.Store is one.
type Watcher interface {
	// Watch delivers a snapshot, then one after each change, and an Update with Err when the state becomes unknown. The
	// channel is closed when ctx ends.
	Watch(ctx context.Context) <-chan dcs.Update
}

// Options are what a Proxy is made from.
type Options struct {
	// Config must not be changed afterwards.
	Config *config.Proxy
	// Watcher is not used with discover: rest.
	Watcher Watcher
	// HTTP asks the REST APIs of members; nil: a plain client. Its transport is cloned, not used.
	HTTP *http.Client
	Log  *slog.Logger
	// Scope is the cluster's name. A REST API that tells another is not believed.
	Scope string
}

// Proxy leads connections to the servers of a cluster.
type Proxy struct {
	opt     Options
	board   *board
	book    *addresses.Book
	checker *checker
	follow  *follower

	mu        sync.Mutex
	config    config.Proxy
	listeners []*listener
	page      *page           // nil: no statistics port
	running   context.Context // nil: Run was not called
}

// New binds all ports; nothing is accepted before Run. An error names the address that could not be had.
func New(o Options) (*Proxy, error) {
	p := &Proxy{opt: o, board: newBoard(time.Now()), book: addresses.New(addresses.System), config: *o.Config}
	p.checker = &checker{client: p.book.Through(o.HTTP), scope: o.Scope}
	p.follow = newFollower(p.board, p.book, p.checker, o.Log)
	p.follow.holding = p.hold
	for _, c := range o.Config.Listeners {
		if err := p.add(o.Config, c); err != nil {
			p.Close()
			return nil, fmt.Errorf("proxy: %w", err)
		}
	}
	if err := p.openPage(o.Config.Stats); err != nil {
		p.Close()
		return nil, fmt.Errorf("proxy: %w", err)
	}
	return p, nil
}

// add binds a listener of that configuration, and serves it if the proxy runs.
func (p *Proxy) add(under *config.Proxy, c config.Listener) error {
	l, err := newListener(p.board, c, p.opt.Log)
	if err != nil {
		return err
	}
	if c.Pooled() {
		if l.door, err = open(l, under, c); err != nil {
			listen.Close(l.sockets)
			return err
		}
	}
	p.board.enlist(l.ledger)
	p.listeners = append(p.listeners, l)
	if p.running != nil {
		l.start(p.running)
	}
	return nil
}

// Run serves until ctx ends. Then it stops listening, resets all sessions, and returns when all is done.
func (p *Proxy) Run(ctx context.Context) error {
	var parts sync.WaitGroup
	seen := make(chan sighting)
	parts.Go(func() { p.book.Run(ctx) })
	p.mu.Lock()
	c := p.config
	p.mu.Unlock()
	if c.Discover == "rest" {
		poll := &poller{checker: p.checker, bases: c.Bases()}
		parts.Go(func() { poll.run(ctx, seen) })
	} else {
		updates := p.opt.Watcher.Watch(ctx)
		parts.Go(func() { sightings(ctx, updates, seen) })
	}
	parts.Go(func() { p.follow.run(ctx, seen) })
	p.begin(ctx)
	<-ctx.Done()
	p.Close()
	parts.Wait()
	return nil
}

func (p *Proxy) begin(ctx context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.running = ctx
	for _, l := range p.listeners {
		l.start(ctx)
	}
	if p.page != nil {
		p.page.start()
	}
}

// hold has the pooled listeners that lead to the primary, be it for want of a replica, begin no transactions until then; the zero time: go on.
func (p *Proxy) hold(until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.listeners {
		switch {
		case l.door == nil:
		case until.IsZero():
			l.door.Resume()
		case l.toPrimary():
			l.door.Hold(until)
		}
	}
}

// Close frees the ports and resets all sessions. Run does so by itself; who never calls Run calls Close.
func (p *Proxy) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.listeners {
		l.close()
	}
	p.listeners = nil
	if p.page != nil {
		p.page.close()
		p.page = nil
	}
}

// Addrs are the addresses of all listeners, in the order of the configuration, and of the statistics port after them.
func (p *Proxy) Addrs() []net.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []net.Addr
	for _, l := range p.listeners {
		for _, s := range l.sockets {
			out = append(out, s.Addr())
		}
	}
	if p.page != nil {
		for _, s := range p.page.sockets {
			out = append(out, s.Addr())
		}
	}
	return out
}
