package postgres

import (
	"context"
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// RetryStream has a standby try at once to get its stream back. Left alone, the startup process sleeps out
// wal_retrieve_retry_interval (5 s) after a try that has failed, for instance since its primary was just restarting.
func (i *Instance) RetryStream(ctx context.Context) error {
	rows, err := i.heartQuery(ctx, "SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'")
	if err == nil && len(rows) > 0 { // else the recovery has ended
		err = i.wakeStartup(rows[0][0])
	}
	if err != nil {
		return fmt.Errorf("retry the stream: %w", err)
	}
	return nil
}

// wakeStartup wakes the startup process, by its process id. SIGHUP does that beside having the configuration read again
// (StartupProcSigHupHandler in startup.c).
func (i *Instance) wakeStartup(pid string) error {
	n, err := strconv.Atoi(pid)
	if err != nil {
		return err
	}
	return i.signalProcess(n, unix.SIGHUP)
}
