package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/havenha/haven/internal/postgres/conf"
)

// SetSyncNames puts value into synchronous_standby_names: the file is rewritten, the server reloaded, and the setting
// read back from new sessions until it is in force. It returns an error if it is not by the end of ctx (of 5 s if ctx
// has none). Weakening the setting acknowledges waiting commits at once and without a warning; whether that may be done
// is the caller's to know.
func (i *Instance) SetSyncNames(ctx context.Context, value string) error {
	if err := i.rewriteSyncNames(value); err != nil {
		return fmt.Errorf("set synchronous_standby_names: %w", err)
	}
	if err := i.Reload(ctx); err != nil {
		return fmt.Errorf("set synchronous_standby_names: %w", err)
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	seen := "unknown"
	for {
		rows, err := i.query(ctx, "SELECT setting, coalesce(sourcefile, source) FROM pg_settings WHERE name = 'synchronous_standby_names'")
		if err == nil && len(rows) == 1 {
			if rows[0][0] == value {
				return nil
			}
			seen = fmt.Sprintf("%q from %s", rows[0][0], rows[0][1])
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("set synchronous_standby_names to %q: the value in force is %s; if it stands in postgresql.auto.conf, run ALTER SYSTEM RESET synchronous_standby_names: %w",
				value, seen, errors.Join(ctx.Err(), err))
		case <-tick.C:
		}
	}
}

func (i *Instance) rewriteSyncNames(value string) error {
	i.files.Lock()
	defer i.files.Unlock()
	raw, err := os.ReadFile(i.confFile())
	if err != nil {
		return err
	}
	if !strings.HasPrefix(string(raw), conf.AnyHeader) {
		return fmt.Errorf("%s was not written by us; configure the instance first", i.confFile())
	}
	_, err = i.replaceFile(i.confFile(), []byte(conf.WithSetting(string(raw), "synchronous_standby_names", value)), i.fileMode())
	return err
}
