package pool

import (
	"slices"
	"time"
)

// Settings are those of one pool, in PgBouncer's words. Numbers and times of 0 mean no limit, but Size is at least 1.
type Settings struct {
	Size         int           // default_pool_size
	Min          int           // min_pool_size
	Reserve      int           // reserve_pool_size
	ReserveAfter time.Duration // reserve_pool_timeout
	WaitLimit    time.Duration // query_wait_timeout
	Lifetime     time.Duration // server_lifetime
	Once         bool          // connections are lent once (server_lifetime 0)
	IdleLimit    time.Duration // server_idle_timeout
	MaxDatabase  int           // max_db_connections
	MaxUser      int           // max_user_connections
	RetryAfter   time.Duration // server_login_retry: the pause after a connection that could not be opened
}

// Key names a pool.
type Key struct{ Database, User string }

// Do says what a Step asks for.
type Do int

// The kinds of steps. Lend: Conn now belongs to Waiter. Open: open one more connection for Pool, then call Opened or
// Failed. Close: close Conn, then call Closed. Fail: Waiter gets nothing, for the reason Why.
const (
	Lend Do = iota + 1
	Open
	Close
	Fail
)

// Step is one thing to do.
type Step[S, W any] struct {
	Do     Do
	Pool   *Pool[S, W]
	Conn   *Conn[S, W]
	Waiter *Waiter[S, W]
	Why    error
}

type state int

const (
	idle state = iota
	lent
	closing
	gone
)

// Conn is a server connection in the books.
type Conn[S, W any] struct {
	Server S

	pool    *Pool[S, W]
	state   state
	retired bool
	opened  time.Time
	since   time.Time // idle or lent since
}

// Waiter is somebody who wants a connection. One value serves all the waits of one client.
type Waiter[S, W any] struct {
	Client W

	pool       *Pool[S, W] // nil: does not wait
	since      time.Time
	prev, next *Waiter[S, W]
}

// Waits tells whether the waiter is in the queue of a pool.
func (w *Waiter[S, W]) Waits() bool { return w.pool != nil }

// Pool is the accounts of one database and user.
type Pool[S, W any] struct {
	Key      Key
	settings Settings

	idle           []*Conn[S, W] // the last was used last, and is lent first
	lent, closing  int
	opening        int
	first, last    *Waiter[S, W]
	waiting        int
	resting        time.Time // no connection is opened before
	ended          time.Time // when one was closed for its age last
	failing        bool      // the last one could not be had: they are tried one by one
	database, user *count
	total          uint64 // lendings ever
}

// count is what all pools of one database or user share.
type count struct{ conns int }

// Book holds all pools.
type Book[S, W any] struct {
	pools     map[Key]*Pool[S, W]
	order     []*Pool[S, W]
	databases map[string]*count
	users     map[string]*count
	steps     []Step[S, W]
	held      bool
}

// New makes an empty book.
func New[S, W any]() *Book[S, W] {
	return &Book[S, W]{pools: map[Key]*Pool[S, W]{}, databases: map[string]*count{}, users: map[string]*count{}}
}

// Pool is the pool of that key, which is made if there is none; the settings hold from now on.
func (b *Book[S, W]) Pool(k Key, s Settings) *Pool[S, W] {
	s.Size = max(s.Size, 1)
	p := b.pools[k]
	if p == nil {
		p = &Pool[S, W]{Key: k, database: shared(b.databases, k.Database), user: shared(b.users, k.User)}
		b.pools[k] = p
		b.order = append(b.order, p)
	}
	p.settings = s
	return p
}

func shared(m map[string]*count, name string) *count {
	c := m[name]
	if c == nil {
		c = &count{}
		m[name] = c
	}
	return c
}

// Remove takes a pool out of the books, if it has no connection, is opening none, and nobody waits for one.
func (b *Book[S, W]) Remove(p *Pool[S, W]) bool {
	if p.conns() > 0 || p.waiting > 0 {
		return false
	}
	delete(b.pools, p.Key)
	database, user := false, false
	b.order = slices.DeleteFunc(b.order, func(q *Pool[S, W]) bool {
		database = database || q != p && q.database == p.database
		user = user || q != p && q.user == p.user
		return q == p
	})
	if !database {
		delete(b.databases, p.Key.Database)
	}
	if !user {
		delete(b.users, p.Key.User)
	}
	return true
}

// Pools are all pools, in the order in which they came.
func (b *Book[S, W]) Pools() []*Pool[S, W] { return b.order }

// Steps hands out what is to be done, once. The slice is valid until the next call of a method of the book.
func (b *Book[S, W]) Steps() []Step[S, W] {
	out := b.steps
	b.steps = b.steps[:0]
	return out
}

// Checkout lends a connection at once, or makes w wait: then a step lends it one or fails it.
func (b *Book[S, W]) Checkout(p *Pool[S, W], w *Waiter[S, W], now time.Time) *Conn[S, W] {
	if n := len(p.idle); n > 0 && p.first == nil && !b.held {
		c := p.idle[n-1]
		p.idle = p.idle[:n-1]
		b.lend(c, now)
		return c
	}
	w.pool, w.since, w.prev, w.next = p, now, p.last, nil
	if p.last != nil {
		p.last.next = w
	} else {
		p.first = w
	}
	p.last = w
	p.waiting++
	b.plan(p, now)
	return nil
}

func (b *Book[S, W]) lend(c *Conn[S, W], now time.Time) {
	c.state, c.since = lent, now
	c.pool.lent++
	c.pool.total++
}

// Hold lends nothing until Resume: who comes waits, and what is returned stays idle.
func (b *Book[S, W]) Hold() { b.held = true }

// Resume lends again, first to those who have waited.
func (b *Book[S, W]) Resume(now time.Time) {
	b.held = false
	for _, p := range b.order {
		for p.first != nil && len(p.idle) > 0 {
			c := p.idle[len(p.idle)-1]
			p.idle = p.idle[:len(p.idle)-1]
			b.offer(c, now)
		}
	}
	b.planAll(now)
}

// Leave ends a wait. False: w does not wait any more, and a step for it was or will be handed out.
func (b *Book[S, W]) Leave(w *Waiter[S, W]) bool {
	if w.pool == nil {
		return false
	}
	w.pool.unlink(w)
	return true
}

func (p *Pool[S, W]) unlink(w *Waiter[S, W]) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		p.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		p.last = w.prev
	}
	w.pool, w.prev, w.next = nil, nil, nil
	p.waiting--
}

// Return takes back a connection that was lent and is in order. A Close step follows if it is not to be lent again.
func (b *Book[S, W]) Return(c *Conn[S, W], now time.Time) {
	if c.state != lent {
		return
	}
	p := c.pool
	p.lent--
	if c.retired || p.crowded(1) || p.settings.Once || p.ends(c, now) {
		b.shut(c, now)
		return
	}
	b.offer(c, now)
}

// offer gives a connection that nobody has to the first waiter, or keeps it.
func (b *Book[S, W]) offer(c *Conn[S, W], now time.Time) {
	p := c.pool
	if w := p.first; w != nil && !b.held {
		p.unlink(w)
		b.lend(c, now)
		b.steps = append(b.steps, Step[S, W]{Do: Lend, Pool: p, Conn: c, Waiter: w})
		return
	}
	c.state, c.since = idle, now
	p.idle = append(p.idle, c)
}

// shut makes a Close step for a connection that nobody has.
func (b *Book[S, W]) shut(c *Conn[S, W], now time.Time) {
	c.state, c.since = closing, now
	c.pool.closing++
	b.steps = append(b.steps, Step[S, W]{Do: Close, Pool: c.pool, Conn: c})
}

// Closed takes a connection out of the books, whatever its state: it was closed, or was lost.
func (b *Book[S, W]) Closed(c *Conn[S, W], now time.Time) {
	p := c.pool
	switch c.state {
	case gone:
		return
	case idle:
		p.drop(c)
	case lent:
		p.lent--
	case closing:
		p.closing--
	}
	c.state = gone
	p.database.conns--
	p.user.conns--
	b.planAll(now)
}

func (p *Pool[S, W]) drop(c *Conn[S, W]) {
	for i, other := range p.idle {
		if other == c {
			p.idle = append(p.idle[:i], p.idle[i+1:]...)
			return
		}
	}
}

// Opened brings in a connection that an Open step asked for.
func (b *Book[S, W]) Opened(p *Pool[S, W], s S, now time.Time) *Conn[S, W] {
	p.opening--
	p.resting, p.failing = time.Time{}, false
	c := &Conn[S, W]{Server: s, pool: p, opened: now, since: now}
	b.offer(c, now)
	if c.state == idle && p.crowded(0) {
		p.drop(c)
		b.shut(c, now)
	}
	b.plan(p, now)
	return c
}

// Failed says that a connection which an Open step asked for could not be had. With a reason that will not pass by
// itself, such as a wrong password, all who wait get it, unless the pool has connections that they can wait for.
func (b *Book[S, W]) Failed(p *Pool[S, W], why error, now time.Time) {
	p.resting, p.failing = now.Add(p.settings.RetryAfter), true
	for why != nil && p.lent+len(p.idle) == 0 && p.first != nil {
		b.fail(p.first, why)
	}
	b.Abandoned(p, now)
}

// Abandoned says that a connection which an Open step asked for came to nothing, since what it was opened for has ended meanwhile. The next
// one is opened at once.
func (b *Book[S, W]) Abandoned(p *Pool[S, W], now time.Time) {
	p.opening--
	p.database.conns--
	p.user.conns--
	b.planAll(now)
}

func (b *Book[S, W]) fail(w *Waiter[S, W], why error) {
	p := w.pool
	p.unlink(w)
	b.steps = append(b.steps, Step[S, W]{Do: Fail, Pool: p, Waiter: w, Why: why})
}

// Retire closes a connection: now if it is idle, else when it is returned. It tells whether that is news.
func (b *Book[S, W]) Retire(c *Conn[S, W], now time.Time) (news bool) {
	news = !c.retired && c.state != closing && c.state != gone
	c.retired = true
	if c.state == idle {
		c.pool.drop(c)
		b.shut(c, now)
	}
	return news
}

// Trim closes idle connections that pools have too many of since their settings have changed; those that are lent are closed
// when they are returned. Who waits is served by the new settings.
func (b *Book[S, W]) Trim(now time.Time) {
	for _, p := range b.order {
		for len(p.idle) > 0 && p.crowded(0) {
			c := p.idle[0]
			p.idle = p.idle[1:]
			b.shut(c, now)
		}
	}
	b.planAll(now)
}

// crowded tells whether the pool has more connections than it may, besides those that are being closed. besides are counted
// nowhere yet.
func (p *Pool[S, W]) crowded(besides int) bool {
	return len(p.idle)+p.lent+p.opening+besides > p.settings.Size+p.settings.Reserve
}

// Each visits the connections that are idle.
func (b *Book[S, W]) Each(visit func(*Conn[S, W])) {
	for _, p := range b.order {
		for i := len(p.idle) - 1; i >= 0; i-- {
			visit(p.idle[i])
		}
	}
}

func (p *Pool[S, W]) conns() int { return len(p.idle) + p.lent + p.closing + p.opening }

// plan opens as many connections as there are waiters without one under way, within the limits.
func (b *Book[S, W]) plan(p *Pool[S, W], now time.Time) {
	if b.held {
		return
	}
	for p.waiting > p.opening && b.mayOpen(p, now) {
		b.open(p)
	}
	if p.waiting > p.opening && p.opening == 0 && p.conns() < p.settings.Size {
		b.evict(p, now)
	}
}

func (b *Book[S, W]) open(p *Pool[S, W]) {
	p.opening++
	p.database.conns++
	p.user.conns++
	b.steps = append(b.steps, Step[S, W]{Do: Open, Pool: p})
}

func (b *Book[S, W]) planAll(now time.Time) {
	for _, p := range b.order {
		if p.waiting > 0 {
			b.plan(p, now)
		}
	}
}

func (b *Book[S, W]) mayOpen(p *Pool[S, W], now time.Time) bool {
	s := p.settings
	size := s.Size
	if w := p.first; w != nil && s.Reserve > 0 && s.ReserveAfter > 0 && now.Sub(w.since) >= s.ReserveAfter {
		size += s.Reserve
	}
	return p.conns() < size && !(p.failing && p.opening > 0) && !now.Before(p.resting) && !p.shared()
}

// shared tells whether a limit across pools is reached.
func (p *Pool[S, W]) shared() bool {
	s := p.settings
	return s.MaxDatabase > 0 && p.database.conns >= s.MaxDatabase || s.MaxUser > 0 && p.user.conns >= s.MaxUser
}

// evict closes, for each limit across pools that is reached, the longest idle connection of another pool that shares it. Nothing is closed
// for one limit while nothing can be had for the other.
func (b *Book[S, W]) evict(p *Pool[S, W], now time.Time) {
	s := p.settings
	var victims []*Conn[S, W]
	for _, limit := range []struct {
		reached bool
		shares  func(*Pool[S, W]) bool
	}{
		{s.MaxDatabase > 0 && p.database.conns >= s.MaxDatabase, func(q *Pool[S, W]) bool { return q.database == p.database }},
		{s.MaxUser > 0 && p.user.conns >= s.MaxUser, func(q *Pool[S, W]) bool { return q.user == p.user }},
	} {
		if !limit.reached {
			continue
		}
		oldest, leaving := b.oldest(func(q *Pool[S, W]) bool { return q != p && limit.shares(q) })
		switch {
		case leaving:
		case oldest == nil:
			return
		default:
			victims = append(victims, oldest)
		}
	}
	for _, c := range victims {
		c.pool.drop(c)
		b.shut(c, now)
	}
}

// oldest is the longest idle connection of those pools, unless one of theirs is on its way out already.
func (b *Book[S, W]) oldest(of func(*Pool[S, W]) bool) (oldest *Conn[S, W], leaving bool) {
	for _, q := range b.order {
		if !of(q) {
			continue
		}
		if q.closing > 0 {
			return nil, true
		}
		if len(q.idle) > 0 && (oldest == nil || q.idle[0].since.Before(oldest.since)) {
			oldest = q.idle[0]
		}
	}
	return oldest, false
}

// Tick does what time asks for: waiters that waited too long fail with tooLong, connections that are too old or idle for
// too long are closed, pools below their least size are filled up.
func (b *Book[S, W]) Tick(now time.Time, tooLong error) {
	for _, p := range b.order {
		s := p.settings
		for s.WaitLimit > 0 && p.first != nil && now.Sub(p.first.since) >= s.WaitLimit {
			b.fail(p.first, tooLong)
		}
		b.age(p, now)
		b.plan(p, now)
		for p.total > 0 && p.conns()-p.closing < s.Min && b.mayOpen(p, now) {
			b.open(p)
		}
	}
}

// age closes idle connections that are too old, or more than the least number that nobody has needed for too long.
func (b *Book[S, W]) age(p *Pool[S, W], now time.Time) {
	s := p.settings
	for i := 0; i < len(p.idle); {
		c := p.idle[i]
		unused := s.IdleLimit > 0 && now.Sub(c.since) >= s.IdleLimit && len(p.idle)+p.lent+p.opening > s.Min
		if !unused && !p.ends(c, now) {
			i++
			continue
		}
		p.idle = append(p.idle[:i], p.idle[i+1:]...)
		b.shut(c, now)
	}
}

// ends tells whether a connection is closed for its age. Connections that were opened together, as after a change of leader, are closed one
// by one, over another lifetime: it takes logins until there are as many again.
func (p *Pool[S, W]) ends(c *Conn[S, W], now time.Time) bool {
	s := p.settings
	if s.Lifetime <= 0 || now.Sub(c.opened) < s.Lifetime || now.Sub(p.ended) < s.Lifetime/time.Duration(s.Size) {
		return false
	}
	p.ended = now
	return true
}

// Counts is a pool in numbers.
type Counts struct {
	Idle, Lent, Opening, Closing, Waiting int
	Lendings                              uint64
	OldestWait                            time.Duration
}

// Counts are the numbers of now.
func (p *Pool[S, W]) Counts(now time.Time) Counts {
	c := Counts{Idle: len(p.idle), Lent: p.lent, Opening: p.opening, Closing: p.closing, Waiting: p.waiting, Lendings: p.total}
	if p.first != nil {
		c.OldestWait = max(0, now.Sub(p.first.since))
	}
	return c
}

// Expire fails all waiters that have waited for at least limit, and tells how many.
func (b *Book[S, W]) Expire(limit time.Duration, now time.Time, why error) (n int) {
	for _, p := range b.order {
		for ; p.first != nil && now.Sub(p.first.since) >= limit; n++ {
			b.fail(p.first, why)
		}
	}
	return n
}
