package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/havenha/haven/internal/postgres/pgtest"
)

// TestRecoveryTellsAnArchiveAtWork: a command that fetches WAL for long is work, also where nothing else moves; one that finds
// nothing is not, however often it is asked, and its own processor time and bytes are not the replay's.
func TestRecoveryTellsAnArchiveAtWork(t *testing.T) {
	ao, bo := pgtest.Options(t, "archived"), pgtest.Options(t, "restores")
	pgtest.Primary(t, ao)
	b := standby(t, bo, pgtest.Upstream(ao, ""))
	ctx := pgtest.Context(t)
	pgtest.Must(t, b.Kill(ctx))
	gate := filepath.Join(bo.SocketDir, "gate")
	nowhere := pgtest.Upstream(ao, "")
	nowhere.Port = "1"
	s := pgtest.Settings()
	s.Recovery = map[string]string{"restore_command": fmt.Sprintf("cat /usr/lib/postgresql/15/bin/postgres >/dev/null; while test -e %s; do sleep 0.1; done; false", gate)}
	pgtest.Must(t, os.WriteFile(gate, nil, 0o600))
	_, err := b.Configure(s, &nowhere, true)
	pgtest.Must(t, err)
	starting, cancel := context.WithTimeout(ctx, time.Second)
	_, _ = b.Start(starting, s)
	cancel()
	last, since := "", time.Now()
	pgtest.Eventually(t, "the archive is at work", func() error {
		if r := b.Recovery(); !r.Busy {
			since = time.Now()
			return fmt.Errorf("%+v", r)
		}
		if time.Since(since) < time.Second { // it may also just have waited for the disk
			return errors.New("only for a moment")
		}
		return nil
	})
	pgtest.Must(t, os.Remove(gate))
	// It tells that nothing comes for longer than it takes to try again. For a moment it waits for a command that it has just begun.
	since, idle := time.Now(), time.Now()
	for began := time.Now(); time.Since(since) < 12*time.Second; time.Sleep(5 * time.Millisecond) {
		r := b.Recovery()
		if !r.Busy {
			idle = time.Now()
		}
		if r.Doing == "" || r.Doing != last || time.Since(idle) > time.Second {
			last, since = r.Doing, time.Now()
		}
		if time.Since(began) > 2*time.Minute {
			t.Fatalf("it does not come to rest: %+v", r)
		}
	}
	t.Log(last)
}
