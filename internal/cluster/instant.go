package cluster

import "time"

// Instant is a reading of a clock that only runs forward and goes on during suspend (CLOCK_BOOTTIME on Linux), as the
// time since that clock's zero. It is comparable only on one host since one boot. Zero means never.
type Instant time.Duration

// Add returns the instant d later.
func (i Instant) Add(d time.Duration) Instant { return i + Instant(d) }

// Sub returns the time from j to i.
func (i Instant) Sub(j Instant) time.Duration { return time.Duration(i - j) }

// Before tells whether i is earlier than j.
func (i Instant) Before(j Instant) bool { return i < j }
