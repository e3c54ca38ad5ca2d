package bootclock

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"golang.org/x/sys/unix"
)

// Reading is both clocks at one moment.
type Reading struct {
	Boot cluster.Instant
	Wall time.Time
}

// Read reads both clocks.
func Read() Reading { return Reading{Boot: Now(), Wall: time.Now().Round(0)} } // without Go's own monotonic reading

// Ahead is by how much more the wall clock went on from r to now than the boot clock did: what a host took from a virtual machine
// that it stopped, as soon as somebody has told that machine the time, or what an administrator has set it forward.
func (r Reading) Ahead(now Reading) time.Duration {
	return now.Wall.Sub(r.Wall) - now.Boot.Sub(r.Boot)
}

// AwaitJumps calls jumped whenever somebody sets the wall clock, until ctx ends. The kernel tells; nothing is polled
// (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET).
func AwaitJumps(ctx context.Context, jumped func()) error {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("timerfd_create: %w", err)
	}
	never := unix.ItimerSpec{Value: unix.Timespec{Sec: math.MaxInt32}}
	arm := func() error {
		return unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, &never, nil)
	}
	if err := arm(); err != nil {
		return errors.Join(fmt.Errorf("timerfd_settime: %w", err), unix.Close(fd))
	}
	file := os.NewFile(uintptr(fd), "timerfd")
	defer context.AfterFunc(ctx, func() { file.Close() })()
	var count [8]byte
	for {
		_, err := file.Read(count[:])
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !errors.Is(err, unix.ECANCELED):
			return fmt.Errorf("read the timerfd: %w", errors.Join(err, file.Close()))
		}
		jumped()
		if err := arm(); err != nil && ctx.Err() == nil {
			return fmt.Errorf("timerfd_settime: %w", errors.Join(err, file.Close()))
		}
	}
}
