package guard_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/havenha/haven/internal/bootclock"
	"github.com/havenha/haven/internal/guard"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// device is a FIFO in the place of a watchdog, with all that was written to it.
type device struct {
	path string
	f    *os.File
	text string
}

func newDevice(t *testing.T) *device {
	t.Helper()
	d := &device{path: filepath.Join(t.TempDir(), "watchdog")}
	pgtest.Must(t, syscall.Mkfifo(d.path, 0o666))
	f, err := os.OpenFile(d.path, os.O_RDWR, 0)
	pgtest.Must(t, err)
	d.f = f
	t.Cleanup(func() { f.Close() })
	return d
}

// await reads until that was written, after what was awaited before.
func (d *device) await(t *testing.T, want string) {
	t.Helper()
	b := make([]byte, 100)
	for {
		if _, rest, found := strings.Cut(d.text, want); found {
			d.text = rest
			return
		}
		pgtest.Must(t, d.f.SetReadDeadline(time.Now().Add(20*time.Second)))
		n, err := d.f.Read(b)
		if err != nil {
			t.Fatalf("the device was told %q and then nothing, instead of %q: %v", d.text, want, err)
		}
		d.text += string(b[:n])
	}
}

func (s *site) armFeeding(in time.Duration, w *guard.Watchdog) error {
	return s.link.Arm(1, bootclock.Now().Add(in), s.server.Target(), w)
}

// TestWatchdog: it is fed with each deadline, told to rest only when nothing is left that could write, and not at all by
// a guard that is killed.
func TestWatchdog(t *testing.T) {
	s, d := newSite(t), newDevice(t)
	s.startServer()
	w := &guard.Watchdog{Device: d.path, Testing: true, Timeout: time.Hour, Required: true}
	pgtest.Must(t, s.armFeeding(time.Minute, w))
	d.await(t, "Ctimeout=3600\n1")
	pgtest.Must(t, s.armFeeding(time.Minute, w))
	d.await(t, "1")
	pgtest.Must(t, s.link.Disarm(func() bool { return true }))
	d.await(t, "V")
	if s.state().Watchdog != guard.Held {
		t.Errorf("the guard says %q", s.state().Watchdog)
	}
	pgtest.Must(t, s.armFeeding(time.Minute, w))
	d.await(t, "Ctimeout=3600\n1")
	pgtest.Must(t, syscall.Kill(s.state().PID, syscall.SIGKILL))
	pgtest.Must(t, s.armFeeding(time.Minute, w)) // by another guard
	d.await(t, "Ctimeout=3600\n1")
	// The server has ended before the device would reset the host, though its lease goes on.
	w.Timeout = 3 * time.Second
	pgtest.Must(t, s.armFeeding(time.Minute, w))
	d.await(t, "VCtimeout=3\n1")
	s.awaitGone()
	d.await(t, "V")
}

// TestWatchdogThatCannotBeHad: without one that is required, there is no deadline and so no leadership.
func TestWatchdogThatCannotBeHad(t *testing.T) {
	s := newSite(t)
	s.startServer()
	w := &guard.Watchdog{Device: filepath.Join(t.TempDir(), "absent"), Timeout: time.Minute, Required: true}
	if err := s.armFeeding(time.Minute, w); err == nil || !strings.Contains(err.Error(), "watchdog") {
		t.Errorf("armed without the watchdog that is required: %v", err)
	}
	if s.state().Deadline != 0 {
		t.Error("there is a deadline all the same")
	}
	w.Required = false
	pgtest.Must(t, s.armFeeding(time.Minute, w))
	if text := s.state().Watchdog; !strings.Contains(text, "not held") {
		t.Errorf("the guard says %q", text)
	}
	pgtest.Must(t, s.link.Disarm(func() bool { return true }))
}
