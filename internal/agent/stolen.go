package agent

import (
	"context"
	"time"

	"github.com/havenha/haven/internal/bootclock"
)

// provenAgainWithin is how long a server may stay writable on a proof that may be older than it looks.
const provenAgainWithin = time.Second

// stolen looks out for time that this host does not know of. A virtual machine that its host stops may find the boot clock
// where it was, and a lease that has ended meanwhile looks alive; the wall clock tells, once something has set it.
type stolen struct {
	read   func() bootclock.Reading
	jumped chan struct{} // capacity 1: the wall clock was set
	proven bootclock.Reading
	doubt  bootclock.Reading // renewals that began before it prove nothing
}

func newStolen(read func() bootclock.Reading) stolen {
	if read == nil {
		read = bootclock.Read
	}
	return stolen{read: read, jumped: make(chan struct{}, 1)}
}

// awaitJumps wakes the loop when somebody sets the wall clock.
func (a *Agent) awaitJumps(ctx context.Context) {
	err := bootclock.AwaitJumps(ctx, func() {
		select {
		case a.stolen.jumped <- struct{}{}:
		default:
		}
	})
	if err != nil {
		a.log.Warn("nothing tells when the clock is set: a stop of this virtual machine is noticed late", "error", err)
	}
}

// noticeStolenTime doubts the proof of leadership if the wall clock has run ahead of the boot clock since: it is renewed at once, and
// without success the server ends a moment later.
func (a *Agent) noticeStolenTime() {
	st := &a.st
	now := a.stolen.read()
	if st.holder == nil || st.deadline == 0 || a.stolen.proven.Wall.IsZero() {
		a.stolen.proven = now
		return
	}
	ahead := a.stolen.proven.Ahead(now)
	if ahead <= a.margin(st.dynamic.TTL) {
		return
	}
	a.log.Warn("the wall clock has run ahead of the time since the start: leadership is proven again at once", "ahead", ahead.Round(time.Millisecond))
	a.stolen.proven, a.stolen.doubt = now, now
	st.deadline = min(st.deadline, bootclock.Now().Add(provenAgainWithin))
	a.keeper.again()
}
