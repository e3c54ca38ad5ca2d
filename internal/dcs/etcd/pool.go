package etcd

import (
	"slices"
	"sync"
)

// pool is a set of endpoints in the order in which they are tried: the last good one first.
type pool struct {
	opt *Options

	mu     sync.Mutex
	closed bool
	// fixed are the endpoints by configuration or by SRV records, learned those of etcd's member list.
	fixed, learned []string
	nodes          []*node
	first          int
}

func newPool(opt *Options) *pool {
	p := &pool{opt: opt, fixed: opt.Endpoints}
	p.rebuild()
	return p
}

// order returns all nodes, beginning with the preferred one.
func (p *pool) order() []*node {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Concat(p.nodes[p.first:], p.nodes[:p.first])
}

func (p *pool) good(n *node) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.nodes, n); i >= 0 {
		p.first = i
	}
}

// bad gives up the preference of a node that has failed.
func (p *pool) bad(n *node) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.nodes, n); i == p.first {
		p.first = (i + 1) % len(p.nodes)
	}
}

// configured are the endpoints that were not learned from etcd.
func (p *pool) configured() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fixed
}

// fix sets the endpoints by SRV records.
func (p *pool) fix(endpoints []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fixed = endpoints
	p.rebuild()
}

// learn sets the endpoints by etcd's member list.
func (p *pool) learn(endpoints []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.learned = endpoints
	p.rebuild()
}

// rebuild makes the pool of all endpoints that are known; connections of those that stay are kept. The pool is held.
func (p *pool) rebuild() {
	if p.closed {
		return
	}
	want := slices.Clone(p.fixed)
	for _, e := range p.learned {
		if !slices.Contains(want, e) {
			want = append(want, e)
		}
	}
	var preferred *node
	if len(p.nodes) > 0 {
		preferred = p.nodes[p.first]
	}
	var nodes []*node
	for _, e := range want {
		i := slices.IndexFunc(p.nodes, func(n *node) bool { return n.endpoint == e })
		if i >= 0 {
			nodes = append(nodes, p.nodes[i])
		} else {
			nodes = append(nodes, &node{endpoint: e, opt: p.opt})
		}
	}
	for _, n := range p.nodes {
		if !slices.Contains(nodes, n) {
			n.close()
		}
	}
	p.nodes = nodes
	p.first = max(0, slices.Index(nodes, preferred))
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, n := range p.nodes {
		n.close()
	}
}
