package proxy

import (
	"context"
	"maps"
	"net/netip"
	"sync"
	"time"
)

// A replica that could not be connected to gets no sessions for shun, and twice as long each time after that, up to
// shunLongest.
const (
	shun        = time.Second
	shunLongest = 30 * time.Second
)

// admission is one admitted leadership, from its admission until it admits no more: then its context ends.
type admission struct {
	leadership
	ctx context.Context
	end context.CancelFunc
}

type failure struct {
	why   string
	until time.Time
	pause time.Duration
}

// board is what all connections share: the picture of the cluster, the admitted leadership, and who is connected to
// whom. Only the follower moves picture and admission; a session is entered in the same critical section that proves
// its leadership still admitted, so that none slips past a cut.
type board struct {
	// suspect asks the follower to check the leadership again.
	suspect chan struct{}

	mu        sync.Mutex
	seen      bool
	picture   picture
	addresses map[string][]netip.AddrPort // by server
	failures  map[string]failure          // by server
	admission *admission
	why       string // why none is admitted
	since     time.Time
	leaderAt  State
	lost      error // why the store is unknown; nil: it is known
	lostSince time.Time
	ledgers   []*ledger
	sessions  map[*session]struct{}
	changed   chan struct{} // closed and replaced at each change
}

func newBoard(now time.Time) *board {
	return &board{
		suspect: make(chan struct{}, 1), failures: map[string]failure{}, sessions: map[*session]struct{}{},
		changed: make(chan struct{}), since: now, leaderAt: NotSeen, lostSince: now,
	}
}

// pick is a chosen server with all that is needed to connect to it.
type pick struct {
	choice
	address   string
	addresses []netip.AddrPort
	admission *admission // of a primary
}

// choose routes a new session of the listener, and counts it as one of the server's until it is entered or dropped. If
// there is no server, changed is closed when there may be; retry is when to ask again anyway (0: never).
func (b *board) choose(l *ledger) (p pick, changed <-chan struct{}, retry time.Duration) {
	now := time.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	p.choice = b.route(l, now)
	if p.server == "" {
		return p, b.changed, b.nextExpiry(now)
	}
	s, _ := b.picture.find(p.server)
	p.address, p.addresses = s.address, b.addresses[p.server]
	if p.primary {
		p.admission = b.admission
	}
	l.tally(p.server).pending++
	return p, b.changed, 0
}

// route is where a new session of the listener would be led to. The board is locked.
func (b *board) route(l *ledger, now time.Time) choice { return route(b.view(now), l.rule, l.loads()) }

// drop takes back what choose counted.
func (b *board) drop(l *ledger, p pick) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l.tally(p.server).pending--
}

// enter makes a connected session known, unless what it was chosen for has ended meanwhile. Either way the choice is no
// longer pending.
func (b *board) enter(s *session) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := s.ledger.tally(s.pick.server)
	t.pending--
	if s.ledger.closed || s.pick.primary && s.pick.admission != b.admission || !s.pick.primary && b.outlived(s) {
		return false
	}
	b.sessions[s] = struct{}{}
	delete(b.failures, s.pick.server)
	t.open++
	t.total++
	return true
}

// leave ends what enter began.
func (b *board) leave(s *session, in, out int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.sessions, s)
	t := s.ledger.tally(s.pick.server)
	t.open--
	t.in += max(in, s.seenIn)
	t.out += max(out, s.seenOut)
}

// failed notes that a server could not be connected to: a replica is left alone for a while, a primary is checked again
// before it gets anything more.
func (b *board) failed(l *ledger, p pick, why string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l.tally(p.server).errors++
	if !p.primary {
		b.shun(p.server, why)
		return
	}
	if b.admission != p.admission {
		return
	}
	b.close("is checked again: " + why)
	b.announce()
	select {
	case b.suspect <- struct{}{}:
	default:
	}
}

// erred counts a failure that says nothing of the server.
func (b *board) erred(l *ledger, p pick) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l.tally(p.server).errors++
}

// shun leaves a server alone for a while. Failures of connections that were begun before it was shunned count once.
func (b *board) shun(server, why string) {
	f, now := b.failures[server], time.Now()
	if now.Before(f.until) {
		return
	}
	pause := min(max(shun, 2*f.pause), shunLongest)
	b.failures[server] = failure{why: why, until: now.Add(pause), pause: pause}
	b.announce()
}

// close ends the admission; sessions live on.
func (b *board) close(why string) {
	if b.admission != nil {
		b.admission.end()
		b.admission = nil
	}
	b.why = why
}

// show takes a new picture into use and returns the sessions that it ends, already taken off the admission.
func (b *board) show(p picture, addresses map[string][]netip.AddrPort) (cut []*session) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.seen || b.lost != nil {
		b.lost, b.lostSince = nil, time.Now()
	}
	old := b.picture
	b.seen, b.picture, b.addresses = true, p, addresses
	maps.DeleteFunc(b.failures, func(name string, _ failure) bool { _, ok := p.find(name); return !ok })
	switch {
	case p.leader == nil:
		b.close("")
	case !p.ready:
		b.close(p.unready)
	case b.admission != nil && b.admission.leadership != *p.leader:
		b.close("is asked whether it is writable")
	case b.admission == nil && (old.leader == nil || *old.leader != *p.leader || !old.ready):
		b.why = "is asked whether it is writable"
	}
	for s := range b.sessions {
		if b.outlived(s) {
			s.ledger.cut++
			cut = append(cut, s)
		}
	}
	b.announce()
	return cut
}

// outlived tells whether the picture ends a session. That nobody leads ends none: the old primary may still be valid.
func (b *board) outlived(s *session) bool {
	if s.pick.primary {
		return b.picture.leader != nil && !b.picture.leader.continues(s.pick.admission.leadership)
	}
	now, ok := b.picture.find(s.pick.server)
	return !ok || now.leads || now.address != s.pick.address
}

// admit lets sessions to the primary, if the picture still shows that leadership.
func (b *board) admit(l leadership) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.admission != nil || b.picture.leader == nil || *b.picture.leader != l || !b.picture.ready {
		return false
	}
	a := &admission{leadership: l}
	a.ctx, a.end = context.WithCancel(context.Background())
	b.admission, b.why = a, ""
	for _, ledger := range b.ledgers {
		ledger.throttle(time.Now())
	}
	b.announce()
	return true
}

// refuse keeps why the leader was not admitted, for people to read.
func (b *board) refuse(l leadership, why string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.admission == nil && b.picture.leader != nil && *b.picture.leader == l {
		b.why = why
	}
}

// admitted tells whether that leadership is admitted.
func (b *board) admitted(l leadership) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.admission != nil && b.admission.leadership == l
}

// unknown notes that the store does not answer. Nothing else changes: what is unknown is not absent.
func (b *board) unknown(err error) (news bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if news = b.lost == nil; news {
		b.lostSince = time.Now()
	}
	b.lost = err
	return news
}

// view is what routing looks at.
func (b *board) view(now time.Time) view {
	v := view{seen: b.seen, picture: b.picture, admitted: b.admission != nil, why: b.why, broken: map[string]broken{}}
	for _, s := range b.picture.servers {
		if f, ok := b.failures[s.name]; ok && now.Before(f.until) {
			v.broken[s.name] = broken{Unreachable, f.why}
		}
		if len(b.addresses[s.name]) == 0 {
			v.broken[s.name] = broken{Unresolved, "no address is known for " + s.address}
		}
	}
	return v
}

// nextExpiry is when the next shunned server may be tried again.
func (b *board) nextExpiry(now time.Time) time.Duration {
	var next time.Duration
	for _, f := range b.failures {
		if left := f.until.Sub(now); left > 0 && (next == 0 || left < next) {
			next = left
		}
	}
	return next
}

// announce wakes those who wait, and notes since when things are as they are.
func (b *board) announce() {
	close(b.changed)
	b.changed = make(chan struct{})
	now := time.Now()
	if at := b.leaderState(); at != b.leaderAt {
		b.leaderAt, b.since = at, now
	}
	v := b.view(now)
	for _, l := range b.ledgers {
		l.note(v, now)
	}
}

func (b *board) leaderState() State {
	switch {
	case !b.seen:
		return NotSeen
	case b.picture.leader == nil:
		return NoLeader
	case b.admission == nil:
		return Checking
	}
	return Admitted
}
