package agent

import (
	"context"
	"sync"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
	"github.com/havenha/haven/internal/postgres"
)

// The actions for which callbacks are run, as Patroni names them.
const (
	onStart      = "on_start"
	onStop       = "on_stop"
	onRestart    = "on_restart"
	onReload     = "on_reload"
	onRoleChange = "on_role_change"
)

// lastCallback is how long the callback of the end of this agent may take; then it is ended.
const lastCallback = 10 * time.Second

// callbacks tell the operator's programs what has become of the server. The loop notices changes by what it publishes, so
// that it does not matter by which action they came about, and never waits for a callback. One runs at a time: a newer one
// ends the one that still runs; on_reload has a place of its own, beside the others (Patroni, callbacks).
type callbacks struct {
	main, reload place

	// What follows belongs to the loop.
	up         bool
	role       cluster.Role // that the last callback told
	started    time.Time    // of the server that it was told of
	restarting bool         // the server went down for a restart
	reloaded   bool         // the server has read its configuration again, and nobody was told
}

// place is where one callback runs at a time.
type place struct {
	mu    sync.Mutex
	end   context.CancelFunc
	ended chan struct{}
}

// notice compares what is published now with what was told last.
func (a *Agent) notice(ctx context.Context) {
	c, st := &a.callbacks, &a.st
	if t := st.task; t != nil {
		c.restarting = c.restarting || t.Kind == ha.RestartServer || t.Kind == copySlots
		if t.Kind == ha.Bootstrap || t.Kind.EndsServer() || t.Kind == copySlots {
			return // it is told when it is over
		}
	}
	m := a.published.Load().Member
	known := m.Role == cluster.RolePrimary || m.Role == cluster.RoleReplica || m.Role == cluster.RoleStandbyLeader
	switch {
	case st.seen.probe != nil && known:
		c.noticeUp(ctx, a, m.Role, st.seen.probe.StartTime)
	case st.seen.process == ha.ProcessDown && st.process == nil:
		c.noticeDown(ctx, a)
	}
}

func (c *callbacks) noticeUp(ctx context.Context, a *Agent, role cluster.Role, started time.Time) {
	first, change := c.role == "", role != c.role
	again := !c.up || !started.Equal(c.started)
	restart := c.restarting
	c.up, c.role, c.started = true, role, started
	c.restarting = false
	switch {
	case change && !first:
		a.call(ctx, onRoleChange, role)
	case again && restart && !first:
		a.call(ctx, onRestart, role)
	case again:
		a.call(ctx, onStart, role)
	case c.reloaded:
		a.call(ctx, onReload, role)
	}
	c.reloaded = false
}

// noticeDown tells of a server that was stopped, or that ended by itself and has lost its leadership: until then it may
// be started again as what it was.
func (c *callbacks) noticeDown(ctx context.Context, a *Agent) {
	crashed := a.st.crash != nil
	switch {
	case c.up && !crashed && !c.restarting:
		a.call(ctx, onStop, c.role)
	case crashed && a.st.holder == nil && (c.role == cluster.RolePrimary || c.role == cluster.RoleStandbyLeader):
		c.role = cluster.RoleDemoted
		a.call(ctx, onRoleChange, c.role)
	}
	c.up = false
	if a.st.task == nil {
		c.restarting = false // it has failed; the next start is one
	}
}

// call runs the callback of an action, if there is one.
func (a *Agent) call(ctx context.Context, action string, role cluster.Role) {
	node := a.node.Load()
	line := node.PostgresWith(a.st.dynamic).Callbacks[action]
	if line == "" {
		return
	}
	p := &a.callbacks.main
	if action == onReload {
		p = &a.callbacks.reload
	}
	h := postgres.Hook{What: "postgresql.callbacks." + action, Line: line, Args: []string{action, string(role), node.Scope}}
	p.run(ctx, a, func(ctx context.Context) {
		err := a.server.RunHook(ctx, h)
		switch {
		case ctx.Err() != nil:
			a.log.Info("a callback was ended, since another one is due or haven ends", "action", action, "role", string(role))
		case err != nil:
			a.log.Error("a callback failed", "command", line, "action", action, "role", string(role), "scope", node.Scope, "error", err)
		}
	})
}

// run puts f in the place of what runs there, which is ended first. It does not wait for either.
func (p *place) run(ctx context.Context, a *Agent, f func(context.Context)) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	p.mu.Lock()
	former, over := p.end, p.ended
	p.end, p.ended = cancel, ended
	p.mu.Unlock()
	a.beside(ctx, func(ctx context.Context) {
		defer close(ended)
		defer cancel()
		if former != nil {
			former()
			<-over
		}
		if ctx.Err() == nil {
			f(ctx)
		}
	})
}

// farewell tells that the server was stopped with this agent, and waits for what still runs, but not for long.
func (c *callbacks) farewell(ctx context.Context, a *Agent) {
	if c.up && a.server.Server() == nil {
		c.up = false
		a.call(ctx, onStop, c.role)
	}
	limit := time.After(lastCallback)
	for _, p := range []*place{&c.main, &c.reload} {
		p.mu.Lock()
		ended := p.ended
		p.mu.Unlock()
		if ended == nil {
			continue
		}
		select {
		case <-ended:
		case <-limit:
			a.log.Warn("a callback has not ended in time: ending it", "limit", lastCallback)
			return
		}
	}
}
