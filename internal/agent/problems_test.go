package agent

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/bootclock"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/ha"
	"github.com/havenha/haven/internal/postgres"
)

func TestSlotsThatHoldBackWALAreTold(t *testing.T) {
	const gib = 1 << 30
	p := &postgres.Probe{WalLSN: 10 * gib, Slots: []postgres.Slot{
		{Name: "used", Active: true, RestartLSN: gib}, {Name: "near", RestartLSN: 9*gib + 1}, {Name: "unborn"}, {Name: "copying", Temporary: true, RestartLSN: 1}, {Name: "copy", RestartLSN: 1},
		{Name: "far", RestartLSN: 8 * gib}, {Name: "lost", WalStatus: "lost"}, {Name: "soon", RestartLSN: 9*gib + 1, WalStatus: "unreserved"},
	}}
	got := strings.Join(slotProblems(p, []string{"copy"}), "\n")
	want := []string{"slot far is not used and holds back 2.0 GiB of WAL: start what uses it, or if nobody needs it: SELECT pg_drop_replication_slot('far')",
		"slot lost has lost the WAL that it needs", "slot soon is not used and holds back 1.0 GiB"}
	if strings.Count(got, "\n") != 2 {
		t.Errorf("%d problems:\n%s", strings.Count(got, "\n")+1, got)
	}
	for _, w := range want {
		if !strings.Contains(got, w) {
			t.Errorf("not told: %s\n%s", w, got)
		}
	}
}

// The time since when commits are not protected stays the same until they are, and outlasts a moment of not knowing.
func TestUnprotectedTime(t *testing.T) {
	a := &Agent{}
	begin := time.Date(2031, 5, 6, 3, 0, 0, 0, time.UTC)
	look := func(minute int, holds bool, names *string) *time.Time {
		s := Status{At: begin.Add(time.Duration(minute) * time.Minute), Holds: holds}
		s.Dynamic.SynchronousMode = config.SyncOn
		if names != nil {
			s.Probe = &postgres.Probe{SyncNames: *names}
		}
		a.noteProtection(&s)
		return s.UnprotectedSince
	}
	bare, named := "", "db2"
	for i, c := range []struct {
		got  *time.Time
		want int // minute; -1: protected or not known
	}{
		{look(0, false, &bare), -1}, {look(1, true, &bare), 1}, {look(2, true, &bare), 1}, {look(3, true, nil), -1},
		{look(4, true, &bare), 1}, {look(5, true, &named), -1}, {look(6, true, &bare), 6},
	} {
		if (c.got == nil) != (c.want < 0) || c.got != nil && !c.got.Equal(begin.Add(time.Duration(c.want)*time.Minute)) {
			t.Errorf("look %d: %v, want minute %d", i, c.got, c.want)
		}
	}
}

// A watchdog that is required and cannot be had is a problem while its device cannot be written to, and for one ttl after it was missed; without a guard there is
// nothing to say of one.
func TestMissingWatchdogIsTold(t *testing.T) {
	a := &Agent{warden: &warden{}}
	device := filepath.Join(t.TempDir(), "watchdog")
	look := func(mode string) Status {
		s := Status{Node: &config.Node{Watchdog: config.Watchdog{Mode: mode, Device: device}}}
		s.Dynamic.TTL = time.Minute
		a.examineGuard(&s)
		return s
	}
	if s := look(config.WatchdogRequired); !s.WatchdogFailed {
		t.Error("there is no device, and it is not told")
	}
	if err := os.WriteFile(device, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s := look(config.WatchdogRequired); s.WatchdogFailed || s.Guarded != nil || len(s.Problems) > 0 {
		t.Errorf("before it was missed: %+v", s.Problems)
	}
	a.warden.unarmed.Store(int64(bootclock.Now()))
	if s := look(config.WatchdogRequired); !s.WatchdogFailed || len(s.Problems) != 1 || !strings.Contains(s.Problems[0], device+" is required") {
		t.Errorf("missed: %+v", s.Problems)
	}
	if s := look(config.WatchdogOff); s.WatchdogFailed || len(s.Problems) > 0 {
		t.Errorf("it is off: %+v", s.Problems)
	}
}

func TestFigures(t *testing.T) {
	var f figures
	f.decided()
	f.renewal(time.Second, nil)
	f.renewal(2*time.Second, errors.New("no"))
	f.acted(ha.Clone, time.Minute, nil)
	before := f.copy()
	f.acted(ha.Clone, time.Minute, errors.New("no"))
	if before.Decisions != 1 || before.Renewed != 1 || before.NotRenewed != 1 || before.RenewalTime != 3*time.Second || before.LastRenewal != 2*time.Second ||
		before.Actions[string(ha.Clone)] != (ActionFigures{Done: 1, Time: time.Minute}) {
		t.Errorf("%+v", before)
	}
	if now := f.copy().Actions[string(ha.Clone)]; now != (ActionFigures{Done: 1, Failed: 1, Time: 2 * time.Minute}) {
		t.Errorf("%+v", now)
	}
}
