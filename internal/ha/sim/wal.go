package sim

import (
	"fmt"
	"slices"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
)

// firstLSN is the position of an empty database. One record is one byte, so positions can be read.
const firstLSN = 1000

// record is one record of WAL. Numbers are given once in a world, so equal numbers mean the same record.
type record struct {
	id int32
	tl cluster.Timeline
}

// control is the state that the control file tells.
type control int

const (
	inProduction control = iota
	shutDown
	inRecovery
	shutDownInRecovery
)

// data is a data directory: what is on disk, and so survives every crash.
type data struct {
	kind    ha.Disk
	system  string
	wal     []record // all of it is flushed
	tl      cluster.Timeline
	history []cluster.HistoryLine
	// controlTL is the timeline of the last checkpoint, which the control file and pg_rewind go by.
	controlTL cluster.Timeline
	// recoveryTL is min_recovery_end_timeline: set by a promotion at once, on a standby when pages are flushed.
	recoveryTL cluster.Timeline
	state      control
	signal     bool // standby.signal
	torn       bool // a rewind was interrupted
	founding   bool // a bootstrap has not been seen to end
	mark       ha.Promotions
	names      string
	upstream   int         // member; -1: none
	floor      cluster.LSN // no WAL before this is kept, for standbys that lack it
	stuck      bool        // a standby on this never becomes consistent, for want of WAL
}

func (d *data) end() cluster.LSN { return firstLSN + cluster.LSN(len(d.wal)) }

func (d *data) clean() bool { return d.state == shutDown || d.state == shutDownInRecovery }

func (d *data) wasPrimary() bool {
	return d.kind == ha.DiskData && !d.signal && (d.state == inProduction || d.state == shutDown)
}

// holds tells whether a record is at its place here.
func (d *data) holds(at cluster.LSN, id int32) bool {
	n := int(at - firstLSN)
	return d.kind == ha.DiskData && !d.torn && n >= 0 && n < len(d.wal) && d.wal[n].id == id
}

// copyOf takes over another directory's database, as a base backup or a finished pg_rewind leaves it.
func (d *data) copyOf(from *data) {
	*d = data{
		kind: ha.DiskData, system: from.system, wal: slices.Clone(from.wal), tl: from.tl, history: from.history,
		controlTL: from.controlTL, recoveryTL: from.tl, state: inRecovery, signal: true, upstream: d.upstream,
	}
}

func (d *data) append(w *World) record {
	w.records++
	r := record{id: w.records, tl: d.tl}
	d.wal = append(d.wal, r)
	return r
}

// branch begins a new timeline: PostgreSQL takes the number after its own, whatever others took (safety: H10).
func (d *data) branch(w *World) {
	d.history = append(slices.Clone(d.history), cluster.HistoryLine{Timeline: d.tl, LSN: d.end(), Reason: "no recovery target specified"})
	d.tl++
	d.recoveryTL = d.tl
	d.append(w)
}

// follows takes over what was streamed, up to n records, and the timeline that it came on.
func (d *data) follows(up []record, history []cluster.HistoryLine, tl cluster.Timeline, n int) {
	d.wal = append(d.wal, up[len(d.wal):n]...)
	if last := d.wal[n-1].tl; last > d.tl {
		d.tl, d.history = tl, history
		if last < tl { // not that far yet
			d.tl = last
			d.history = history[:slices.IndexFunc(history, func(h cluster.HistoryLine) bool { return h.Timeline == last })]
		}
	}
}

// mayStream says why a primary or standby would refuse to stream to d, empty if it would not (walsender.c, xlogrecovery.c).
// It goes by numbers alone: d may hold other records of the same timeline.
func (d *data) mayStream(up *data) string {
	if up.tl < d.tl {
		return "its timeline is older"
	}
	if up.tl == d.tl {
		if up.end() < d.end() {
			return "ahead of its WAL flush position"
		}
		return ""
	}
	for _, h := range up.history {
		if h.Timeline != d.tl {
			continue
		}
		if d.end() > h.LSN {
			return "requested starting point is not in its history"
		}
		return ""
	}
	return "the timeline is not in its history"
}

// sameSoFar tells whether d holds nothing but what up holds.
func (d *data) sameSoFar(up *data) bool {
	n := len(d.wal)
	return n <= len(up.wal) && (n == 0 || up.wal[n-1].id == d.wal[n-1].id)
}

// diverged is what the agent's comparison of histories finds (the rule is that of internal/postgres/wal).
func diverged(local *data, end cluster.LSN, wasPrimary bool, remote *data) (bool, string) {
	if local.tl > remote.tl {
		return true, fmt.Sprintf("local timeline %d is newer than the primary's %d", local.tl, remote.tl)
	}
	for n, l := range local.history {
		if n >= len(remote.history) {
			return true, fmt.Sprintf("local timeline %d left timeline %d at %s, which the primary's history does not", local.tl, l.Timeline, l.LSN)
		}
		if r := remote.history[n]; r.Timeline != l.Timeline || r.LSN != l.LSN {
			return true, fmt.Sprintf("local history left timeline %d at %s, the primary's left timeline %d at %s", l.Timeline, l.LSN, r.Timeline, r.LSN)
		}
	}
	if len(remote.history) == len(local.history) {
		if local.tl != remote.tl || wasPrimary {
			return true, fmt.Sprintf("two promotions, to timeline %d and %d", local.tl, remote.tl)
		}
		return false, fmt.Sprintf("the same timeline %d", local.tl)
	}
	left := remote.history[len(local.history)]
	switch {
	case left.Timeline != local.tl:
		return true, fmt.Sprintf("the primary's history goes on with timeline %d, not with local timeline %d", left.Timeline, local.tl)
	case end > left.LSN:
		return true, fmt.Sprintf("local WAL goes on to %s, which the primary left at %s", end, left.LSN)
	case wasPrimary && end < left.LSN:
		return true, fmt.Sprintf("the local server was a primary and its WAL ends at %s, before %s", end, left.LSN)
	}
	return false, fmt.Sprintf("local WAL ends at %s, before %s", end, left.LSN)
}

// settleMark finds out, before the server is started as a standby, what became of the last promotion (agent.settleMark).
func (d *data) settleMark() {
	if d.mark.Pending != 0 && d.kind == ha.DiskData && !d.torn {
		d.mark.Settle(d.tl)
	}
}
