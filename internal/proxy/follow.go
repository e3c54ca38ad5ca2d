package proxy

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/dcs"
	"github.com/havenha/haven/internal/proxy/addresses"
)

// sighting is a new picture of the cluster, or why there is none.
type sighting struct {
	picture picture
	err     error
}

// follower moves the board on: it alone shows pictures, ends sessions that a picture outlives, and has leaders checked.
type follower struct {
	board   *board
	book    *addresses.Book
	checker *checker
	log     *slog.Logger
	seen    *picture
	// holding begins a hold, or with the zero time ends it; held is the revision of the one that was begun last.
	holding func(until time.Time)
	held    int64

	answers chan answer
	asked   candidate          // whom the running check asks
	check   int                // its number
	stop    context.CancelFunc // ends the running check; nil: none runs
	checks  sync.WaitGroup
}

func newFollower(b *board, k *addresses.Book, c *checker, log *slog.Logger) *follower {
	return &follower{board: b, book: k, checker: c, log: log, answers: make(chan answer)}
}

// run follows what is sighted until ctx ends.
func (f *follower) run(ctx context.Context, sightings <-chan sighting) {
	defer f.checks.Wait()
	defer f.endCheck()
	for {
		select {
		case <-ctx.Done():
			return
		case s, ok := <-sightings:
			if !ok {
				sightings = nil
				continue
			}
			f.sighted(ctx, s)
		case <-f.book.Updated():
			if f.seen != nil {
				f.see(ctx, *f.seen)
			}
		case <-f.board.suspect:
			f.log.Warn("the primary could not be connected to, and is checked again")
			f.consider(ctx, true)
		case a := <-f.answers:
			f.answered(a)
		}
	}
}

func (f *follower) sighted(ctx context.Context, s sighting) {
	if s.err == nil {
		f.see(ctx, s.picture)
		return
	}
	if f.board.unknown(s.err) {
		f.log.Warn("the state of the cluster is unknown: what was admitted stays", "error", s.err)
	}
}

// see takes a picture into use. The sessions that it ends are reset while a new leader is asked already, and are gone
// before the answer counts.
func (f *follower) see(ctx context.Context, p picture) {
	f.seen = &p
	f.book.Want(hostsOf(p))
	cut := f.board.show(p, f.addressesOf(p))
	f.hold(p.hold)
	for _, s := range cut {
		s.reset()
	}
	f.consider(ctx, false)
	for _, s := range cut {
		<-s.ended
	}
	if len(cut) > 0 {
		f.log.Info("sessions of a former leadership or of a server that is no replica any more were reset", "sessions", len(cut))
	}
}

// longestHold bounds a hold, whatever the leader has asked for.
const longestHold = 2 * time.Minute

// hold follows what the leader asks for. Its time runs from when it was first seen, by this host's clock.
func (f *follower) hold(h *cluster.Hold) {
	switch {
	case f.holding == nil:
	case h == nil && f.held != 0:
		f.held = 0
		f.holding(time.Time{})
	case h != nil && h.ModRev != f.held:
		f.held = h.ModRev
		length := min(time.Duration(h.Seconds*float64(time.Second)), longestHold)
		f.log.Info("the leader is about to hand over: new transactions are held", "for", length)
		f.holding(time.Now().Add(length))
	}
}

func hostsOf(p picture) []string {
	var hosts []string
	for _, s := range p.servers {
		if host, _, err := net.SplitHostPort(s.address); err == nil {
			hosts = append(hosts, host)
		}
		if u, err := url.Parse(s.api); err == nil {
			hosts = append(hosts, u.Hostname())
		}
	}
	return names(hosts)
}

// names leaves out what needs no lookup.
func names(hosts []string) []string {
	var out []string
	for _, h := range hosts {
		if _, err := netip.ParseAddr(h); err != nil && h != "" {
			out = append(out, h)
		}
	}
	return out
}

func (f *follower) addressesOf(p picture) map[string][]netip.AddrPort {
	out := make(map[string][]netip.AddrPort, len(p.servers))
	for _, s := range p.servers {
		out[s.name] = f.book.At(s.address)
	}
	return out
}

// consider begins, keeps or ends the check of the leader. A leader who failed a connection is given a moment.
func (f *follower) consider(ctx context.Context, again bool) {
	who, ok := f.toAsk()
	if !ok || f.board.admitted(who.leadership) {
		f.endCheck()
		return
	}
	if f.stop != nil && f.asked.same(who) {
		return
	}
	f.endCheck()
	delay := checkEvery
	if !again {
		delay = 0
	}
	checking, stop := context.WithCancel(ctx)
	f.asked, f.stop = who, stop
	f.check++
	number := f.check
	f.checks.Go(func() {
		f.checker.until(checking, who, delay, func(err error) {
			select {
			case f.answers <- answer{who.leadership, number, err}:
			case <-ctx.Done():
			}
		})
	})
}

func (f *follower) toAsk() (candidate, bool) {
	if f.seen == nil || f.seen.leader == nil || !f.seen.ready {
		return candidate{}, false
	}
	s, ok := f.seen.find(f.seen.leader.holder)
	ports := f.book.At(s.address)
	if !ok || len(ports) == 0 {
		return candidate{}, false
	}
	return candidate{leadership: *f.seen.leader, api: s.api, ports: ports, addresses: fmt.Sprint(ports)}, true
}

func (f *follower) endCheck() {
	if f.stop != nil {
		f.stop()
		f.stop = nil
	}
}

func (f *follower) answered(a answer) {
	switch {
	case f.stop == nil || f.check != a.check: // of a check that was ended
	case a.err != nil:
		f.board.refuse(a.of, a.err.Error())
		f.log.Debug("the leader is not admitted", "leader", a.of.holder, "term", a.of.term, "error", a.err)
	default:
		f.endCheck()
		if f.board.admit(a.of) {
			f.log.Info("the leader is admitted", "leader", a.of.holder, "term", a.of.term)
		}
	}
}

// sightings turns the updates of a watch into pictures, until ctx ends.
func sightings(ctx context.Context, updates <-chan dcs.Update, out chan<- sighting) {
	defer close(out)
	for {
		var s sighting
		select {
		case <-ctx.Done():
			return
		case u, ok := <-updates:
			if !ok {
				return
			}
			if s.err = u.Err; s.err == nil {
				s.picture = depict(u.Snapshot)
			}
		}
		select {
		case out <- s:
		case <-ctx.Done():
			return
		}
	}
}
