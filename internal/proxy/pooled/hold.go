package pooled

import "time"

// Hold begins no transactions until then, or until Resume. Those that are open go on.
func (d *Door) Hold(until time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.held = until
	d.book.Hold()
}

// Resume ends a hold, if there is one.
func (d *Door) Resume() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.resume(time.Now())
}

// resume ends a hold. The door is locked.
func (d *Door) resume(now time.Time) {
	if d.held.IsZero() {
		return
	}
	d.held = time.Time{}
	d.book.Resume(now)
	d.carry()
}

// outstayed ends a hold that has lasted for as long as it was to. The door is locked.
func (d *Door) outstayed(now time.Time) {
	if !now.Before(d.held) {
		d.resume(now)
	}
}

// Held tells whether there is a hold.
func (d *Door) Held() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.held.IsZero()
}
