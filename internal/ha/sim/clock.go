package sim

import (
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// random is a source of numbers that depend on the seed alone (splitmix64, Steele et al. 2014).
type random struct{ state uint64 }

func (r *random) next() uint64 {
	r.state += 0x9e3779b97f4a7c15
	z := r.state
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// below is a number from 0 to n-1.
func (r *random) below(n int) int { return int(r.next() % uint64(n)) }

// oneIn is true once in n times.
func (r *random) oneIn(n int) bool { return r.below(n) == 0 }

// between is a time from a up to b.
func (r *random) between(a, b time.Duration) time.Duration {
	if b <= a {
		return a
	}
	return a + time.Duration(r.next()%uint64(b-a))
}

func pick[T any](r *random, list []T) T { return list[r.below(len(list))] }

// process is something that can end and be frozen: an agent or a server. Events that belong to an ended one never happen,
// those of a frozen one happen when it is thawed.
type process struct {
	gone    bool
	frozen  int
	backlog []event
}

func (p *process) end() { p.gone, p.backlog = true, nil }

// event is something that happens at a time of the true clock; those of one time happen in the order they were made.
type event struct {
	at    time.Duration
	seq   uint64
	owner *process // nil: the world's own
	do    func()
}

func (e event) before(f event) bool { return e.at < f.at || e.at == f.at && e.seq < f.seq }

// queue is a heap of events.
type queue struct {
	heap []event
	seq  uint64
}

func (q *queue) push(e event) {
	q.seq++
	e.seq = q.seq
	q.heap = append(q.heap, e)
	for i := len(q.heap) - 1; i > 0; {
		up := (i - 1) / 2
		if !q.heap[i].before(q.heap[up]) {
			break
		}
		q.heap[i], q.heap[up] = q.heap[up], q.heap[i]
		i = up
	}
}

func (q *queue) pop() event {
	top, last := q.heap[0], len(q.heap)-1
	q.heap[0] = q.heap[last]
	q.heap[last] = event{}
	q.heap = q.heap[:last]
	for i := 0; ; {
		least, left := i, 2*i+1
		for child := left; child < left+2 && child < last; child++ {
			if q.heap[child].before(q.heap[least]) {
				least = child
			}
		}
		if least == i {
			return top
		}
		q.heap[i], q.heap[least] = q.heap[least], q.heap[i]
		i = least
	}
}

// after lets something happen, on behalf of a process (nil: of the world).
func (w *World) after(d time.Duration, p *process, do func()) {
	if p == nil || !p.gone {
		w.queue.push(event{at: w.now + max(d, 0), owner: p, do: do})
	}
}

// freeze stops a process, thaw lets it go on; each freeze needs its thaw.
func (w *World) freeze(p *process) { p.frozen++ }

func (w *World) thaw(p *process) {
	if p.frozen--; p.frozen > 0 {
		return
	}
	late := p.backlog
	p.backlog = nil
	for _, e := range late {
		e.at = w.now
		w.queue.push(e)
	}
}

// clock is one host's boot clock, which runs a little faster or slower than true time.
type clock struct {
	start cluster.Instant
	ppm   int64
}

func (c clock) instant(now time.Duration) cluster.Instant {
	return c.start.Add(now + now/1e6*time.Duration(c.ppm))
}

// really tells how long a time of this clock lasts.
func (c clock) really(d time.Duration) time.Duration {
	return time.Duration(float64(d)*1e6/float64(1e6+c.ppm)) + 2*time.Microsecond
}
