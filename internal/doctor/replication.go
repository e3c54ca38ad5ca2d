package doctor

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/havenha/haven/internal/cluster"
)

// replication tells the causes of lag apart by where WAL waits: each part of a lag includes the one before it.
func replication(e Evidence) []Finding {
	var out []Finding
	for _, m := range e.Members {
		if m.Name == e.Leader || e.Leader == "" {
			continue
		}
		if m.State != cluster.StateRunning || m.ReplicationState == "" {
			out = append(out, Finding{"not_replicating", Critical, m.Name, fmt.Sprintf("it does not replicate: its state is %q", cmp.Or(m.State, "not known")), "haven status; the log of haven on " + m.Name + " says what it waits for; haven explain --why-not " + m.Name})
			continue
		}
		if i := slices.IndexFunc(e.Lags, func(l Lag) bool { return l.Member == m.Name }); i >= 0 {
			out = append(out, causes(m, e.Leader, e.Lags[i])...)
		}
	}
	return out
}

func causes(m Member, leader string, l Lag) []Finding {
	var out []Finding
	add := func(code string, behind uint64, text, mend string) {
		s := Warning
		if behind > lagCritical {
			s = Critical
		}
		if behind > lagWarning {
			out = append(out, Finding{code, s, m.Name, fmt.Sprintf("%s behind: %s", size(behind), text), mend})
		}
	}
	between := func(a, b *uint64) uint64 {
		if a == nil || b == nil || *a < *b {
			return 0
		}
		return *a - *b
	}
	zero := uint64(0)
	add("lag_sending", between(l.Sent, &zero), leader+" has not sent it yet", "look at the network and the load of "+leader+": sar -n DEV 1 5; top; a standby that was away catches up by itself")
	add("lag_network", between(l.Write, l.Sent), "sent, but not written there", "look at the network between "+leader+" and "+m.Name+": ping, iperf3, ss -ti; and at the disk of "+m.Name+": iostat -x 1 5")
	add("lag_fsync", between(l.Flush, l.Write), "written there, but not flushed", "its disk syncs slowly: iostat -x 1 5 on "+m.Name+"; a disk of its own for pg_wal helps")
	replay := between(l.Replay, l.Flush)
	if l.Flush == nil { // a cascade: the leader does not see it
		replay = between(l.Replay, l.Write)
	}
	text, mend := "flushed there, but not replayed", "queries on the standby may be in the way: psql on "+m.Name+" -c 'SELECT pid, now()-xact_start, query FROM pg_stat_activity ORDER BY 2 DESC NULLS LAST LIMIT 5'; hot_standby_feedback or a lower max_standby_streaming_delay end that"
	switch f := m.Facts; {
	case f == nil:
	case f.ReplayPaused:
		text, mend = "replay is paused", "psql on "+m.Name+" -c 'SELECT pg_wal_replay_resume()'"
	case f.Settings["recovery_min_apply_delay"] != "" && f.Settings["recovery_min_apply_delay"] != "0":
		text, mend = "recovery_min_apply_delay is "+f.Settings["recovery_min_apply_delay"]+" ms", "that is what the setting asks for; remove it if it is not wanted: curl -X PATCH …/config"
	case f.Conflicts > 0:
		text += fmt.Sprintf(" (%d queries were cancelled for being in the way so far)", f.Conflicts)
	}
	add("lag_replay", replay, text, mend)
	return out
}

func size(n uint64) string {
	f, unit := float64(n), "B"
	for _, next := range []string{"KiB", "MiB", "GiB", "TiB"} {
		if f < 1024 {
			break
		}
		f, unit = f/1024, next
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}
