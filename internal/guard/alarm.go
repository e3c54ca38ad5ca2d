package guard

import (
	"encoding/binary"
	"fmt"
	"os"

	"github.com/havenha/haven/internal/cluster"
	"golang.org/x/sys/unix"
)

// alarm rings at an instant of CLOCK_BOOTTIME. Go's own timers stand still while the machine sleeps.
type alarm struct {
	file *os.File
	fd   int
	ring chan struct{}
}

func newAlarm() (*alarm, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("timerfd_create: %w", err)
	}
	a := &alarm{file: os.NewFile(uintptr(fd), "timerfd"), fd: fd, ring: make(chan struct{}, 1)}
	go a.wait()
	return a, nil
}

// wait ends when the file is closed.
func (a *alarm) wait() {
	var count [8]byte
	for {
		if _, err := a.file.Read(count[:]); err != nil {
			return
		}
		if binary.NativeEndian.Uint64(count[:]) == 0 {
			continue
		}
		select {
		case a.ring <- struct{}{}:
		default:
		}
	}
}

// set makes it ring at that instant; 0: not at all.
func (a *alarm) set(at cluster.Instant) error {
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(int64(at))}
	if err := unix.TimerfdSettime(a.fd, unix.TFD_TIMER_ABSTIME, &spec, nil); err != nil {
		return fmt.Errorf("timerfd_settime: %w", err)
	}
	return nil
}

func (a *alarm) close() { a.file.Close() }
