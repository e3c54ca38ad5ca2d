package app

import (
	"context"
	"sync"
	"time"

	"github.com/havenha/haven/internal/api"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/disk"
)

// coordinator is the REST API's source on a node without a database: it watches the store, and knows nothing of a
// server.
type coordinator struct {
	opt  Options
	disk *disk.Watch

	mu    sync.Mutex
	snap  cluster.Snapshot
	known bool
	seen  time.Time
}

func (n *Node) coordinator() *coordinator {
	c := &coordinator{opt: n.opt, disk: n.disk}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for u := range n.store.Watch(ctx) {
			c.mu.Lock()
			if c.known = u.Err == nil; c.known {
				c.snap, c.seen = u.Snapshot, time.Now()
			}
			c.mu.Unlock()
		}
	}()
	n.stack.push("watch of the store", func() { cancel(); <-ended })
	return c
}

// Status is what the store showed last.
func (c *coordinator) Status() api.Local {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := api.Local{
		Name: c.opt.Node.Name, Scope: c.opt.Node.Scope, Version: c.opt.Version,
		Snapshot: c.snap, Known: c.known, SeenAt: c.seen, LastTurn: time.Now(),
		Problems: c.disk.Problems(), Samples: diskSamples(c.disk.Report()),
	}
	if c.snap.Config != nil {
		l.Dynamic, _, _ = config.ParseDynamic(c.snap.Config.Raw, true)
	}
	return l
}

// Fresh is Status: there is no server to ask.
func (c *coordinator) Fresh(context.Context) api.Local { return c.Status() }
