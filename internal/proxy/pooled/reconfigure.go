package pooled

import "time"

// Reconfigure has other terms hold from now on. Clients stay, and so do server connections: one that a pool now has too
// many of is closed when nobody has it. Who is logged in has not to log in again, and server connections keep the TLS that
// they have.
func (d *Door) Reconfigure(t Terms) {
	d.terms.Store(&t)
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	for key, l := range d.lanes {
		set := t.poolFor(key.Database, key.User)
		l.set.Store(set)
		d.book.Pool(key, accounts(set))
	}
	d.book.Trim(now)
	d.carry()
}
