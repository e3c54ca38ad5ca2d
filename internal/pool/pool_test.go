package pool

import (
	"errors"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

type (
	book   = Book[int, int]
	conn   = Conn[int, int]
	waiter = Waiter[int, int]
)

// desk drives a book as a proxy does, and keeps books of its own to compare.
type desk struct {
	t        *rapid.T
	b        *book
	pools    []*Pool[int, int]
	now      time.Time
	next     int
	waiters  []*waiter // in the order of their coming
	opening  []*Pool[int, int]
	lent     map[*conn]*waiter
	closing  []*conn
	idle     map[*conn]bool
	retired  map[*conn]bool
	answered map[*waiter]int
	most     map[*Pool[int, int]]int // what each pool may have had since it was made
}

func newDesk(t *rapid.T) *desk {
	d := &desk{t: t, b: New[int, int](), now: time.Unix(0, 0), lent: map[*conn]*waiter{}, idle: map[*conn]bool{}, retired: map[*conn]bool{}, answered: map[*waiter]int{},
		most: map[*Pool[int, int]]int{}}
	for _, k := range []Key{{"a", "x"}, {"a", "y"}, {"b", "x"}} {
		d.pools = append(d.pools, d.b.Pool(k, drawn(t)))
		d.allow(d.pools[len(d.pools)-1])
	}
	return d
}

func drawn(t *rapid.T) Settings {
	return Settings{
		Size: rapid.IntRange(1, 3).Draw(t, "size"), Min: rapid.IntRange(0, 2).Draw(t, "min"),
		Reserve: rapid.IntRange(0, 2).Draw(t, "reserve"), ReserveAfter: 5 * time.Second,
		WaitLimit:   rapid.SampledFrom([]time.Duration{0, 20 * time.Second}).Draw(t, "wait"),
		Lifetime:    rapid.SampledFrom([]time.Duration{0, 60 * time.Second}).Draw(t, "life"),
		IdleLimit:   rapid.SampledFrom([]time.Duration{0, 30 * time.Second}).Draw(t, "idle"),
		MaxDatabase: rapid.IntRange(0, 4).Draw(t, "database"), MaxUser: rapid.IntRange(0, 4).Draw(t, "user"), RetryAfter: time.Second,
	}
}

// allow notes how many connections a pool may have by its settings.
func (d *desk) allow(p *Pool[int, int]) {
	d.most[p] = max(d.most[p], p.settings.Size+p.settings.Reserve)
}

func (d *desk) steps() {
	for _, s := range slices.Clone(d.b.Steps()) {
		switch s.Do {
		case Open:
			d.opening = append(d.opening, s.Pool)
		case Lend:
			d.give(s.Conn, s.Waiter)
		case Close:
			if _, has := d.lent[s.Conn]; has {
				d.t.Fatal("a connection is closed that somebody has")
			}
			delete(d.idle, s.Conn)
			d.closing = append(d.closing, s.Conn)
		case Fail:
			if s.Why == nil {
				d.t.Fatal("a failure without a reason")
			}
			d.answer(s.Waiter)
		}
	}
}

// give checks that the connection is free and in use, and the waiter the first of its pool.
func (d *desk) give(c *conn, w *waiter) {
	if _, has := d.lent[c]; has || d.retired[c] || slices.Contains(d.closing, c) || d.b.held {
		d.t.Fatal("a connection is lent that is not to be lent")
	}
	for _, other := range d.waiters {
		if other == w {
			break
		}
		if other.Waits() && other.pool == c.pool {
			d.t.Fatal("somebody is served out of turn")
		}
	}
	d.answer(w)
	delete(d.idle, c)
	d.lent[c] = w
}

func (d *desk) answer(w *waiter) {
	if d.answered[w]++; d.answered[w] > 1 {
		d.t.Fatal("a waiter is answered twice")
	}
	d.waiters = slices.DeleteFunc(d.waiters, func(o *waiter) bool { return o == w })
}

func (d *desk) check() {
	d.steps()
	databases, users := map[string]int{}, map[string]int{}
	for _, p := range d.pools {
		c := p.Counts(d.now)
		all := c.Idle + c.Lent + c.Opening + c.Closing
		if all > d.most[p] || c.Idle > 0 && c.Idle+c.Lent+c.Opening > p.settings.Size+p.settings.Reserve {
			d.t.Fatalf("%v has %+v, more than its size %+v", p.Key, c, p.settings)
		}
		if c.Waiting > 0 && c.Idle > 0 && !d.b.held {
			d.t.Fatalf("%v: somebody waits beside an idle connection", p.Key)
		}
		if c.Waiting > 0 && !d.b.held && c.Opening == 0 && all < p.settings.Size && !p.shared() && !d.now.Before(p.resting) {
			d.t.Fatalf("%v: somebody waits, and nothing is opened: %+v", p.Key, c)
		}
		databases[p.Key.Database] += all
		users[p.Key.User] += all
	}
	for _, p := range d.pools {
		if n := databases[p.Key.Database]; n != p.database.conns {
			d.t.Fatalf("database %s has %d connections, and counts %d", p.Key.Database, n, p.database.conns)
		}
		if n := users[p.Key.User]; n != p.user.conns {
			d.t.Fatalf("user %s has %d connections, and counts %d", p.Key.User, n, p.user.conns)
		}
	}
	waiting := 0
	for _, p := range d.pools {
		waiting += p.Counts(d.now).Waiting
	}
	if waiting != len(d.waiters) {
		d.t.Fatalf("%d wait, and %d are known to", waiting, len(d.waiters))
	}
}

func (d *desk) pick(n int) int { return rapid.IntRange(0, n-1).Draw(d.t, "which") }

func (d *desk) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"": func(*rapid.T) { d.check() },
		"checkout": func(*rapid.T) {
			w, p := &waiter{}, d.pools[d.pick(len(d.pools))]
			d.waiters = append(d.waiters, w)
			if c := d.b.Checkout(p, w, d.now); c != nil {
				d.give(c, w)
			}
		},
		"return": func(*rapid.T) {
			if c := d.any(); c != nil {
				delete(d.lent, c)
				d.idle[c] = true
				d.b.Return(c, d.now)
			}
		},
		"lost": func(*rapid.T) {
			if c := d.any(); c != nil {
				delete(d.lent, c)
				d.b.Closed(c, d.now)
				d.b.Closed(c, d.now) // told twice counts once
			}
		},
		"opened": func(*rapid.T) {
			if p := d.begun(); p != nil {
				d.next++
				c := d.b.Opened(p, d.next, d.now)
				d.idle[c] = true
			}
		},
		"failed": func(t *rapid.T) {
			if p := d.begun(); p != nil {
				switch rapid.IntRange(0, 2).Draw(t, "how") {
				case 0:
					d.b.Abandoned(p, d.now)
				case 1:
					d.b.Failed(p, nil, d.now)
				case 2:
					d.b.Failed(p, errors.New("wrong password"), d.now)
				}
			}
		},
		"closed": func(*rapid.T) {
			if len(d.closing) > 0 {
				c := d.closing[0]
				d.closing = d.closing[1:]
				d.b.Closed(c, d.now)
			}
		},
		"leave": func(*rapid.T) {
			if len(d.waiters) > 0 {
				w := d.waiters[d.pick(len(d.waiters))]
				if !d.b.Leave(w) {
					d.t.Fatal("a waiter could not leave")
				}
				d.answer(w)
			}
		},
		"retire": func(*rapid.T) {
			d.b.Each(func(c *conn) {
				if c.Server%2 == 0 {
					d.retired[c] = true
					d.b.Retire(c, d.now)
				}
			})
			if c := d.any(); c != nil {
				d.retired[c] = true
				d.b.Retire(c, d.now)
			}
		},
		"settings": func(t *rapid.T) { d.resettle(d.pools[d.pick(len(d.pools))], drawn(t)) },
		"hold":     func(*rapid.T) { d.b.Hold() },
		"resume":   func(*rapid.T) { d.b.Resume(d.now) },
		"time": func(t *rapid.T) {
			d.now = d.now.Add(time.Duration(rapid.IntRange(1, 15).Draw(t, "seconds")) * time.Second)
			d.b.Tick(d.now, errors.New("query_wait_timeout"))
		},
	}
}

func (d *desk) resettle(p *Pool[int, int], s Settings) {
	d.b.Pool(p.Key, s)
	d.allow(p)
	d.b.Trim(d.now)
}

func (d *desk) any() *conn {
	var all []*conn
	for c := range d.lent {
		all = append(all, c)
	}
	if len(all) == 0 {
		return nil
	}
	slices.SortFunc(all, func(a, b *conn) int { return a.Server - b.Server })
	return all[d.pick(len(all))]
}

func (d *desk) begun() *Pool[int, int] {
	if len(d.opening) == 0 {
		return nil
	}
	p := d.opening[0]
	d.opening = d.opening[1:]
	return p
}

func TestTheBooksHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) { t.Repeat(newDesk(t).actions()) })
}

func TestTheLastUsedIsLentFirst(t *testing.T) {
	b := New[int, int]()
	p, now := b.Pool(Key{"d", "u"}, Settings{Size: 3}), time.Unix(0, 0)
	ws := [3]waiter{}
	for i := range ws {
		b.Checkout(p, &ws[i], now)
	}
	if n := len(b.Steps()); n != 3 {
		t.Fatalf("%d connections are opened for three waiters", n)
	}
	var cs []*conn
	for i := range ws {
		cs = append(cs, b.Opened(p, i, now))
	}
	b.Steps()
	for _, i := range []int{1, 2, 0} {
		b.Return(cs[i], now)
	}
	if c := b.Checkout(p, &ws[0], now); c != cs[0] {
		t.Errorf("connection %d was lent, want the one that was used last", c.Server)
	}
}

// TestAPoolThatShrinks closes what is idle at once, and what is lent when it is returned.
func TestAPoolThatShrinks(t *testing.T) {
	b := New[int, int]()
	key, now := Key{"d", "u"}, time.Unix(0, 0)
	p := b.Pool(key, Settings{Size: 3})
	ws := [3]waiter{}
	var cs []*conn
	for i := range ws {
		b.Checkout(p, &ws[i], now)
		cs = append(cs, b.Opened(p, i, now))
	}
	b.Return(cs[0], now)
	b.Steps()
	b.Pool(key, Settings{Size: 1})
	b.Trim(now)
	if s := b.Steps(); len(s) != 1 || s[0].Do != Close || s[0].Conn != cs[0] {
		t.Fatalf("what is idle: %+v", s)
	}
	b.Return(cs[1], now)
	if s := b.Steps(); len(s) != 1 || s[0].Do != Close || s[0].Conn != cs[1] {
		t.Fatalf("what is returned while there are too many: %+v", s)
	}
	b.Return(cs[2], now)
	if s := b.Steps(); len(s) != 0 {
		t.Fatalf("the last: %+v", s)
	}
}

// TestARefusedLoginIsForThoseWhoHaveNothingElse: who can wait for a connection that is there does not get the error of one that is not.
func TestARefusedLoginIsForThoseWhoHaveNothingElse(t *testing.T) {
	b := New[int, int]()
	p, now := b.Pool(Key{"d", "u"}, Settings{Size: 2, RetryAfter: time.Minute}), time.Unix(0, 0)
	var first, second waiter
	b.Checkout(p, &first, now)
	c := b.Opened(p, 1, now)
	b.Checkout(p, &second, now.Add(time.Hour))
	b.Steps()
	b.Failed(p, errors.New("wrong password"), now)
	if s := b.Steps(); len(s) != 0 || !second.Waits() {
		t.Fatalf("a connection is lent: %+v", s)
	}
	b.Retire(c, now)
	b.Return(c, now)
	b.Closed(c, now)
	b.Tick(now.Add(time.Hour), errors.New("too long"))
	b.Steps()
	b.Failed(p, errors.New("wrong password"), now)
	if s := b.Steps(); len(s) != 1 || s[0].Do != Fail || s[0].Waiter != &second {
		t.Fatalf("none is left: %+v", s)
	}
}

// TestAgeIsSpread: connections that were opened together are not closed together, and with a lifetime of 0 each is lent once.
func TestAgeIsSpread(t *testing.T) {
	b := New[int, int]()
	key, now := Key{"d", "u"}, time.Unix(0, 0)
	p := b.Pool(key, Settings{Size: 4, Lifetime: time.Hour})
	ws := [4]waiter{}
	var cs []*conn
	for i := range ws {
		b.Checkout(p, &ws[i], now)
		cs = append(cs, b.Opened(p, i, now))
	}
	b.Steps()
	now = now.Add(time.Hour)
	for _, c := range cs {
		b.Return(c, now)
	}
	if s := b.Steps(); len(s) != 1 || s[0].Do != Close || s[0].Conn != cs[0] {
		t.Fatalf("after an hour: %+v", s)
	}
	b.Tick(now.Add(15*time.Minute-time.Second), nil)
	b.Tick(now.Add(15*time.Minute), nil)
	if s := b.Steps(); len(s) != 1 || s[0].Do != Close {
		t.Fatalf("a quarter of an hour later: %+v", s)
	}
	b.Pool(key, Settings{Size: 4, Once: true})
	c := b.Checkout(p, &ws[0], now)
	b.Tick(now.Add(time.Hour), nil)
	if s := b.Steps(); len(s) != 0 {
		t.Fatalf("what was not used yet: %+v", s)
	}
	b.Return(c, now)
	if s := b.Steps(); len(s) != 1 || s[0].Do != Close || s[0].Conn != c {
		t.Fatalf("what was used: %+v", s)
	}
}

// TestAfterAFailureConnectionsAreOpenedOneByOne: what makes a login hang may keep its place at the server for long after nobody waits for it.
func TestAfterAFailureConnectionsAreOpenedOneByOne(t *testing.T) {
	b := New[int, int]()
	p, now := b.Pool(Key{"d", "u"}, Settings{Size: 3}), time.Unix(0, 0)
	ws := [3]waiter{}
	for i := range ws {
		b.Checkout(p, &ws[i], now)
	}
	if s := b.Steps(); len(s) != 3 {
		t.Fatalf("at first: %+v", s)
	}
	for range ws {
		b.Failed(p, nil, now)
	}
	if s := b.Steps(); len(s) != 1 || s[0].Do != Open {
		t.Fatalf("after failures: %+v", s)
	}
	b.Opened(p, 1, now)
	if s := b.Steps(); len(s) != 3 || s[0].Do != Lend || s[1].Do != Open || s[2].Do != Open {
		t.Fatalf("after a success: %+v", s)
	}
}

// TestTwoLimitsAreMadeRoomFor: a connection of the same database and one of the same user have to go, or none.
func TestTwoLimitsAreMadeRoomFor(t *testing.T) {
	b := New[int, int]()
	set, now := Settings{Size: 1, MaxDatabase: 1, MaxUser: 1}, time.Unix(0, 0)
	opened := func(k Key) *conn {
		p := b.Pool(k, set)
		b.Checkout(p, &waiter{}, now)
		c := b.Opened(p, 1, now)
		b.Steps()
		return c
	}
	first, second := opened(Key{"d", "v"}), opened(Key{"e", "u"})
	p := b.Pool(Key{"d", "u"}, set)
	b.Return(first, now)
	b.Checkout(p, &waiter{}, now)
	if s := b.Steps(); len(s) != 0 {
		t.Fatalf("one is closed in vain: %+v", s)
	}
	b.Return(second, now)
	b.Tick(now, nil)
	if s := b.Steps(); len(s) != 2 || s[0].Conn != first || s[1].Conn != second || s[0].Do != Close || s[1].Do != Close {
		t.Fatalf("both are idle: %+v", s)
	}
	b.Closed(first, now)
	b.Closed(second, now)
	if s := b.Steps(); len(s) != 1 || s[0].Do != Open || s[0].Pool != p {
		t.Fatalf("both are closed: %+v", s)
	}
}

// TestAfterAnAbandonedOpeningThereIsNoPause: only a connection that could not be had is followed by one.
func TestAfterAnAbandonedOpeningThereIsNoPause(t *testing.T) {
	b := New[int, int]()
	p, now := b.Pool(Key{"d", "u"}, Settings{Size: 1, RetryAfter: time.Second}), time.Unix(0, 0)
	b.Checkout(p, &waiter{}, now)
	b.Steps()
	b.Abandoned(p, now)
	if s := b.Steps(); len(s) != 1 || s[0].Do != Open {
		t.Fatalf("after one that was abandoned: %+v", s)
	}
	b.Failed(p, nil, now)
	if s := b.Steps(); len(s) != 0 {
		t.Fatalf("after one that failed: %+v", s)
	}
}

func TestAReserveOpensAfterItsTime(t *testing.T) {
	b := New[int, int]()
	p, now := b.Pool(Key{"d", "u"}, Settings{Size: 1, Reserve: 1, ReserveAfter: 5 * time.Second}), time.Unix(0, 0)
	var one, two waiter
	b.Checkout(p, &one, now)
	b.Opened(p, 1, now)
	b.Steps()
	b.Checkout(p, &two, now)
	b.Tick(now.Add(4*time.Second), errors.New("late"))
	if s := b.Steps(); len(s) != 0 {
		t.Fatalf("before its time: %+v", s)
	}
	b.Tick(now.Add(5*time.Second), errors.New("late"))
	if s := b.Steps(); len(s) != 1 || s[0].Do != Open {
		t.Fatalf("at its time: %+v", s)
	}
}

func BenchmarkCheckoutReturn(bm *testing.B) {
	b := New[int, int]()
	p, now := b.Pool(Key{"d", "u"}, Settings{Size: 1}), time.Unix(0, 0)
	var w waiter
	b.Checkout(p, &w, now)
	c := b.Opened(p, 1, now)
	b.Steps()
	b.Return(c, now)
	bm.ReportAllocs()
	for bm.Loop() {
		b.Return(b.Checkout(p, &w, now), now)
	}
}
