package hosts

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Quality is what the wire does to frames from one host to another.
type Quality struct {
	Cut bool
	// KeepARP lets address resolution pass a cut: a way that is cut in one direction only would otherwise be cut in both.
	KeepARP bool
	// Ports limits the cut to TCP and UDP packets with one of these as source or destination; nil: everything.
	Ports []uint16
	Loss  float64 // share of the frames that never arrive, 0 to 1
	Delay time.Duration
	// Jitter is added to Delay, evenly spread; frames that it makes overtake each other arrive so.
	Jitter time.Duration
}

// way is one direction between two hosts, by their indexes.
type way struct{ from, to int }

// wire is an Ethernet switch in this process: the kernel of a small machine may have neither netem nor packet filters.
type wire struct {
	mu      sync.Mutex // serialises changes of quality
	quality atomic.Pointer[map[way]Quality]
	ports   []*port
	readers sync.WaitGroup
	delayed sync.WaitGroup
}

func newWire() *wire {
	w := &wire{}
	w.quality.Store(&map[way]Quality{})
	return w
}

// attach adds a port. Ports are attached before anything runs, and read by all afterwards.
func (w *wire) attach(p *port) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ports = append(w.ports, p)
	w.readers.Go(func() { w.forward(p) })
}

// set changes the quality of some ways at once.
func (w *wire) set(change func(map[way]Quality)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	next := map[way]Quality{}
	for k, v := range *w.quality.Load() {
		next[k] = v
	}
	change(next)
	w.quality.Store(&next)
}

func (w *wire) forward(p *port) {
	buf := make([]byte, mtu+64)
	for {
		n, err := p.frames.Read(buf)
		if err != nil {
			return // closed
		}
		if n < 14 {
			continue
		}
		w.mu.Lock()
		ports := w.ports
		w.mu.Unlock()
		quality := *w.quality.Load()
		for _, to := range ports {
			if to != p && addressed(buf[:n], to) {
				w.pass(quality[way{p.index, to.index}], buf[:n], to)
			}
		}
	}
}

// addressed tells whether the frame is for that port: its own address, or a group's.
func addressed(frame []byte, p *port) bool {
	return frame[0]&1 == 1 || slices.Equal(frame[:6], p.mac)
}

func (w *wire) pass(q Quality, frame []byte, to *port) {
	switch {
	case q.Cut && (q.Ports == nil || concerns(frame, q.Ports)) && !(q.KeepARP && isARP(frame)):
		return
	case q.Loss > 0 && rand.Float64() < q.Loss:
		return
	case q.Delay == 0 && q.Jitter == 0:
		_, _ = to.frames.Write(frame) // a host that cannot take it loses it, as hosts do
		return
	}
	late := q.Delay
	if q.Jitter > 0 {
		late += rand.N(q.Jitter)
	}
	copied := slices.Clone(frame)
	w.delayed.Add(1)
	time.AfterFunc(late, func() {
		defer w.delayed.Done()
		_, _ = to.frames.Write(copied)
	})
}

func isARP(frame []byte) bool { return binary.BigEndian.Uint16(frame[12:]) == 0x0806 }

// concerns tells whether an IPv4 TCP or UDP packet comes from or goes to one of the ports (RFC 791, 793, 768).
func concerns(frame []byte, ports []uint16) bool {
	const ethernet = 14
	if len(frame) < ethernet+20 || binary.BigEndian.Uint16(frame[12:]) != 0x0800 {
		return false
	}
	ip := frame[ethernet:]
	header := int(ip[0]&0xf) * 4
	if proto := ip[9]; (proto != 6 && proto != 17) || len(ip) < header+4 {
		return false
	}
	from, to := binary.BigEndian.Uint16(ip[header:]), binary.BigEndian.Uint16(ip[header+2:])
	return slices.Contains(ports, from) || slices.Contains(ports, to)
}

func (w *wire) close() {
	for _, p := range w.ports {
		p.frames.Close()
	}
	w.readers.Wait()
	w.delayed.Wait()
}
