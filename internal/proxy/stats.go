package proxy

import (
	"cmp"
	"slices"
	"time"
)

// Stats is what the proxy knows and has counted; the statistics port shows it as a page, as JSON and as metrics. Counters
// begin with the process, or with the listener if that came by a reload.
type Stats struct {
	Scope     string          `json:"scope"`
	At        time.Time       `json:"at"`
	Leader    LeaderStats     `json:"leader"`
	Store     StoreStats      `json:"store"`
	Listeners []ListenerStats `json:"listeners"`
}

// LeaderStats is the current leadership.
type LeaderStats struct {
	Name string `json:"name,omitempty"` // empty: nobody leads
	// Term is the number of the term; 0 if the leader writes no terms.
	Term  uint64    `json:"term,omitempty"`
	State State     `json:"state"` // admitted, checking, no leader, not seen yet
	Why   string    `json:"why,omitempty"`
	Since time.Time `json:"since"`
}

// StoreStats tells whether the source of all this answers.
type StoreStats struct {
	Known bool      `json:"known"`
	Error string    `json:"error,omitempty"`
	Since time.Time `json:"since"`
}

// ListenerStats is one listener. Durations are in seconds, sizes in bytes.
type ListenerStats struct {
	Listen     string  `json:"listen"`
	Target     string  `json:"target"`
	Sessions   int     `json:"sessions"`
	Total      uint64  `json:"sessions_total"`
	In         int64   `json:"bytes_in"`  // from clients
	Out        int64   `json:"bytes_out"` // to clients
	Waiting    int     `json:"waiting"`
	OldestWait float64 `json:"oldest_wait_seconds"`
	// Why says why new connections wait; empty: they do not.
	Why      string        `json:"why,omitempty"`
	Held     uint64        `json:"held_total"`     // had to wait: connections, in the pooled modes transactions
	Timeouts uint64        `json:"timeouts_total"` // waited for hold_timeout in vain
	Rejected uint64        `json:"rejected_total"` // closed because too many waited, in the pooled modes: were there
	Reset    uint64        `json:"reset_total"`    // sessions reset at a change of leader or replicas
	Servers  []ServerStats `json:"servers"`
	// Mode is tcp, session, transaction or statement; Pools are those of the latter three, and Long the transactions that are open there
	// for longest, the oldest first.
	Mode  string            `json:"mode,omitempty"`
	Pools []PoolStats       `json:"pools,omitempty"`
	Long  []LongTransaction `json:"long_transactions,omitempty"`

	maxClients, maxUser int // of a pooled listener; 0: no limit
}

// ServerStats is one server as a listener sees it.
type ServerStats struct {
	Name     string    `json:"name"`
	Address  string    `json:"address"`
	State    State     `json:"state"`
	Why      string    `json:"why"`
	Since    time.Time `json:"since"`
	Sessions int       `json:"sessions"`
	Total    uint64    `json:"sessions_total"`
	In       int64     `json:"bytes_in"`
	Out      int64     `json:"bytes_out"`
	Errors   uint64    `json:"connect_errors_total"`
}

// Snapshot is the state of now.
func (p *Proxy) Snapshot() Stats {
	s := p.board.stats(time.Now())
	s.Scope = p.opt.Scope
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range s.Listeners { // both in the order of the configuration
		if i < len(p.listeners) && p.listeners[i].door != nil && p.listeners[i].ledger.config.Listen == s.Listeners[i].Listen {
			s.Listeners[i].pooled(p.listeners[i].door)
		}
	}
	return s
}

// traffic is the bytes of open sessions of one listener and server.
type traffic struct {
	ledger *ledger
	server string
}

func (b *board) stats(now time.Time) Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := Stats{
		At: now, Store: StoreStats{Known: b.seen && b.lost == nil, Since: b.lostSince},
		Leader: LeaderStats{State: b.leaderAt, Why: b.why, Since: b.since},
	}
	if b.lost != nil {
		s.Store.Error = b.lost.Error()
	}
	if l := b.picture.leader; l != nil {
		s.Leader.Name, s.Leader.Term = l.holder, l.term
	}
	v, open := b.view(now), b.measure()
	for _, l := range b.ledgers {
		s.Listeners = append(s.Listeners, l.stats(v, now, open))
	}
	return s
}

// measure asks the kernel for the bytes of open sessions. What was reported once never shrinks.
func (b *board) measure() map[traffic][2]int64 {
	open := map[traffic][2]int64{}
	for s := range b.sessions {
		if s.client == nil {
			continue // what was passed on is counted when it ends
		}
		leg, flipped := s.leg()
		if info, ok := tcpInfo(leg); ok {
			in, out := bytesOf(info)
			if flipped {
				in, out = out, in
			}
			s.seenIn, s.seenOut = max(s.seenIn, in), max(s.seenOut, out)
		}
		k := traffic{s.ledger, s.pick.server}
		sum := open[k]
		open[k] = [2]int64{sum[0] + s.seenIn, sum[1] + s.seenOut}
	}
	return open
}

func (l *ledger) stats(v view, now time.Time, open map[traffic][2]int64) ListenerStats {
	out := ListenerStats{
		Listen: l.config.Listen, Target: l.config.Target, Mode: l.config.Mode, Waiting: len(l.waiters), Held: l.held, Timeouts: l.timeouts,
		Rejected: l.rejected, Reset: l.cut, Why: route(v, l.rule, l.loads()).why, Servers: []ServerStats{},
		maxClients: l.config.Pool.MaxClientConn, maxUser: l.config.Pool.MaxUserConnections,
	}
	for w := range l.waiters {
		out.OldestWait = max(out.OldestWait, now.Sub(w.since).Seconds())
	}
	for name, t := range l.tallies {
		live := open[traffic{l, name}]
		s := ServerStats{
			Name: name, Since: t.since, Sessions: t.open, Total: t.total, Errors: t.errors, In: t.in + live[0], Out: t.out + live[1],
		}
		out.Sessions, out.Total = out.Sessions+s.Sessions, out.Total+s.Total
		out.In, out.Out = out.In+s.In, out.Out+s.Out
		if known, ok := v.find(name); ok {
			j := judge(v, l.rule, known)
			s.Address, s.State, s.Why = known.address, j.state, j.why
			out.Servers = append(out.Servers, s)
		}
	}
	slices.SortFunc(out.Servers, func(a, b ServerStats) int { return cmp.Compare(a.Name, b.Name) })
	return out
}
