package sim

import "time"

// link is one direction between two places. A message on a cut link is lost, or held by TCP until the cut ends.
type link struct {
	cut  int
	slow int
	held []func()
}

// network joins the members, numbered from 0, and the store, which comes after them.
type network struct {
	w     *World
	nodes int
	links []link
}

func newNetwork(w *World, members int) network {
	return network{w: w, nodes: members + 1, links: make([]link, (members+1)*(members+1))}
}

func (n *network) link(from, to int) *link { return &n.links[from*n.nodes+to] }

func (n *network) open(from, to int) bool { return n.link(from, to).cut == 0 }

// both tells whether two places can talk.
func (n *network) both(a, b int) bool { return n.open(a, b) && n.open(b, a) }

func (n *network) delay(from, to int) time.Duration {
	r := &n.w.random
	d := r.between(200*time.Microsecond, 2*time.Millisecond)
	if from == to {
		return d / 10
	}
	if n.link(from, to).slow > 0 {
		d += r.between(10*time.Millisecond, 400*time.Millisecond)
		if r.oneIn(10) { // lost, and sent again by TCP
			d += r.between(200*time.Millisecond, 3*time.Second)
		}
	}
	if r.oneIn(300) {
		d += r.between(50*time.Millisecond, 1500*time.Millisecond)
	}
	return d
}

// carry brings a message over; arrive runs on behalf of p.
func (n *network) carry(from, to int, p *process, arrive func()) {
	l := n.link(from, to)
	if l.cut > 0 {
		if n.w.random.oneIn(3) {
			l.held = append(l.held, func() { n.carry(from, to, p, arrive) })
		}
		return
	}
	n.w.after(n.delay(from, to), p, arrive)
}

func (n *network) block(from, to int) { n.link(from, to).cut++ }

func (n *network) unblock(from, to int) {
	l := n.link(from, to)
	if l.cut--; l.cut > 0 {
		return
	}
	held := l.held
	l.held = nil
	for _, send := range held {
		send()
	}
}

// hold is carry over a connection that is kept: on a cut link the message waits for the end of the cut.
func (n *network) hold(from, to int, p *process, arrive func()) {
	l := n.link(from, to)
	if l.cut > 0 {
		l.held = append(l.held, func() { n.hold(from, to, p, arrive) })
		return
	}
	n.w.after(n.delay(from, to), p, arrive)
}
