package agent

import (
	"bytes"
	"context"
	"sync/atomic"

	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/postgres"
)

// keptDynamic is the dynamic configuration in the data directory, from which an agent starts that cannot read the store
// (Patroni, patroni.dynamic.json).
type keptDynamic struct {
	kept    []byte // what was written or tried last; belongs to the loop
	writing atomic.Bool
}

// recallDynamic takes the configuration that is kept in the data directory into use, until the store can be read. Maintenance mode
// is not taken from it: it may be over, and in it a server may run that nobody has proven to lead.
func (a *Agent) recallDynamic() {
	raw, err := a.server.KeptDynamic()
	if err != nil || raw == nil {
		if err != nil {
			a.log.Warn("the dynamic configuration that is kept in the data directory cannot be read", "error", err)
		}
		return
	}
	d, _, err := config.ParseDynamic(raw, true)
	if err != nil {
		a.log.Warn("the dynamic configuration that is kept in the data directory cannot be used", "error", err)
		return
	}
	d.Pause = false
	a.st.dynamic, a.st.inForce, a.keep.kept = d, raw, raw
	a.keeper.timing(d.TTL, d.LoopWait)
}

// keepDynamic writes the configuration that was read into the data directory, beside the loop; not while an action may be
// replacing that.
func (a *Agent) keepDynamic(ctx context.Context) {
	raw := a.st.inForce
	if raw == nil || !a.st.known || a.st.task != nil || a.st.seen.disk.Kind != postgres.DiskData || bytes.Equal(raw, a.keep.kept) || a.keep.writing.Swap(true) {
		return
	}
	a.keep.kept = raw
	a.beside(ctx, func(context.Context) {
		defer a.keep.writing.Store(false)
		if err := a.server.KeepDynamic(raw); err != nil {
			a.log.Warn("the dynamic configuration could not be kept in the data directory", "error", err)
		}
	})
}
