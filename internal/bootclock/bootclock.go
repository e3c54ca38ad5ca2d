// Package bootclock reads the clock by which leases are judged: CLOCK_BOOTTIME, which no administrator sets and which
// goes on while the machine sleeps (clock_gettime(2)).
package bootclock

import (
	"time"

	"github.com/havenha/haven/internal/cluster"
	"golang.org/x/sys/unix"
)

// Now returns the present instant.
func Now() cluster.Instant {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		// Linux has had this clock since 2.6.39; without it no deadline can be kept, and none may be invented.
		panic("clock_gettime(CLOCK_BOOTTIME): " + err.Error())
	}
	return cluster.Instant(time.Duration(ts.Nano()))
}
