package hosts

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Undo takes a fault back, and verifies that it is gone.
type Undo func(ctx context.Context) error

// Cut keeps packets from h from reaching the others, and theirs from reaching h. With ports, only packets from or to
// these ports are lost.
func (h *Host) Cut(ctx context.Context, from []*Host, ports ...uint16) (Undo, error) {
	return h.network.cut(ctx, bothWays(h, from), Quality{Cut: true, Ports: ports})
}

// CutOneWay loses what h sends to the others; what they send arrives.
func (h *Host) CutOneWay(ctx context.Context, to []*Host, ports ...uint16) (Undo, error) {
	var ways []way
	for _, o := range to {
		ways = append(ways, way{h.index, o.index})
	}
	return h.network.cut(ctx, ways, Quality{Cut: true, KeepARP: true, Ports: ports})
}

func bothWays(h *Host, others []*Host) []way {
	var ways []way
	for _, o := range others {
		ways = append(ways, way{h.index, o.index}, way{o.index, h.index})
	}
	return ways
}

func (n *Network) cut(ctx context.Context, ways []way, as Quality) (Undo, error) {
	undo := func(ctx context.Context) error {
		n.change(ways, func(q *Quality) { q.Cut, q.KeepARP, q.Ports = false, false, nil })
		return n.verify(ctx, ways, as.Ports, true)
	}
	n.change(ways, func(q *Quality) { q.Cut, q.KeepARP, q.Ports = as.Cut, as.KeepARP, as.Ports })
	if err := n.verify(ctx, ways, as.Ports, false); err != nil {
		return nil, errors.Join(err, undo(ctx))
	}
	return undo, nil
}

func (n *Network) change(ways []way, f func(*Quality)) {
	n.wire.set(func(all map[way]Quality) {
		for _, w := range ways {
			q := all[w]
			f(&q)
			all[w] = q
		}
	})
}

// verify looks at every way at the same time. With ports, the first of them stands for all.
func (n *Network) verify(ctx context.Context, ways []way, ports []uint16, open bool) error {
	var port uint16
	if len(ports) > 0 {
		port = ports[0]
	}
	errs := make(chan error, len(ways))
	for i, w := range ways {
		go func() {
			if port != 0 { // a source port can be bound once at a time
				time.Sleep(time.Duration(i) * time.Millisecond)
			}
			errs <- n.verifyWay(ctx, w, port, open)
		}()
	}
	var all []error
	for range ways {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

func (n *Network) verifyWay(ctx context.Context, w way, port uint16, open bool) error {
	from, to := n.hosts[w.from], n.hosts[w.to]
	for begun := time.Now(); ; {
		reached, err := from.Reaches(ctx, to, port)
		if err == nil && reached == open {
			return nil
		}
		if time.Since(begun) > verifyFor || ctx.Err() != nil {
			return fmt.Errorf("the way from %s to %s: open is %v, wanted %v (%v)", from.Name, to.Name, reached, open, err)
		}
	}
}

// Degrade makes the ways between h and the others lossy and slow, in both directions.
func (h *Host) Degrade(others []*Host, q Quality) Undo {
	ways := bothWays(h, others)
	h.network.change(ways, func(old *Quality) { old.Loss, old.Delay, old.Jitter = q.Loss, q.Delay, q.Jitter })
	return func(ctx context.Context) error {
		h.network.change(ways, func(old *Quality) { old.Loss, old.Delay, old.Jitter = 0, 0, 0 })
		return h.network.verify(ctx, ways, nil, true)
	}
}
