package agent

import (
	"context"
	"time"

	"github.com/havenha/haven/internal/ha"
)

// reconfigure is the one action that Decide does not know: bringing changed settings into force has no part in who
// leads.
const reconfigure ha.Kind = "reconfigure"

// maintain does what is due while there is nothing to decide: settings that changed, a stream to be tried again, slots of members,
// the checkpoint after a promotion.
func (a *Agent) maintain(ctx context.Context) {
	st := &a.st
	a.keeper.timing(st.dynamic.TTL, st.dynamic.LoopWait)
	a.knocker.expect(hungAfter(st.dynamic))
	p := st.seen.probe
	if p == nil || !st.known || !st.snap.Initialize.Valid() {
		return
	}
	// An agent that was restarted does not know whom a standby follows that has no stream just now; in pause nobody would tell it again.
	cutsOff := st.dynamic.Pause && p.InRecovery && st.upstream == "" && !a.noStream()
	if !cutsOff && time.Now().After(st.applyAfter) && (a.reread.Load() || a.settingsChanged(p.InRecovery)) {
		a.reread.Store(false)
		a.begin(ctx, ha.Decision{Action: ha.Action{Kind: reconfigure, Member: st.upstream}})
		return
	}
	if leader, due := a.copyDue(); due {
		a.begin(ctx, ha.Decision{Action: ha.Action{Kind: copySlots, Member: leader}})
		return
	}
	a.retryStream(ctx)
	a.chores.start(ctx, a, p.InRecovery && !a.leadsStandbys())
}

func (a *Agent) settingsChanged(standby bool) bool {
	role := "primary"
	if standby {
		role = "replica"
	}
	s, _ := settings(input{node: a.node.Load(), dynamic: a.st.dynamic, snap: a.st.snap, action: ha.Action{Member: a.st.upstream}}, role, "")
	return fingerprint(s) != a.st.applied
}
