package facts

import (
	"time"

	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

func positionFacts() []fact {
	return []fact{{
		"restarted-standby", "a standby that was restarted tells no received position and has replayed less than it had acknowledged, while its WAL on disk has it all",
		"a member never reports less than its data directory holds (`internal/postgres/wal/end.go`)", restartedStandby,
	}}
}

func restartedStandby(r *run) {
	ctx := pgtest.Context(r)
	a, b := r.pair(func(s *postgres.Settings) { s.Recovery = map[string]string{"recovery_min_apply_delay": "1h"} })
	// Replay stops before the first commit, so only later transactions make a difference.
	a.sql("DO $$ BEGIN FOR i IN 1..200 LOOP INSERT INTO w VALUES ('waited for', i); COMMIT; END LOOP; END $$")
	a.awaitStandby(b)
	acknowledged := a.acknowledgedBy(b)
	pgtest.Must(r, b.Stop(ctx, postgres.StopFast, nil))
	b.startBehind(nil)
	p := b.probe()
	if p.ReceiveLSN != 0 {
		r.Errorf("it tells a received position, %s", p.ReceiveLSN)
	}
	if p.ReplayLSN >= acknowledged {
		r.Errorf("it has replayed up to %s, as far as it had acknowledged", p.ReplayLSN)
	}
	r.figure("replayed too little by", "bytes", float64(p.ReplayLSN.Behind(acknowledged)))
	began := time.Now()
	_, end, err := b.LocalEnd()
	pgtest.Must(r, err)
	r.figure("its WAL read to the end in", "ms", ms(time.Since(began)))
	if end < acknowledged {
		r.Errorf("its WAL ends at %s, and it had acknowledged %s", end, acknowledged)
	}
}
