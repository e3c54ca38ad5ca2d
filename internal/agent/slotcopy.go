package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/ha"
	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/slots"
)

// copySlots copies the leader's permanent logical slots to a standby, which is restarted for that: PostgreSQL reads the
// state of slots when it starts only. Like reconfigure, it has no part in who leads.
const copySlots ha.Kind = "copy_slots"

// safety is what is known of a copy. Decoding from it needs catalog rows that the leader must not have removed. They are
// there for certain once the leader's slot for this member holds a catalog_xmin (by hot_standby_feedback), and the copy has
// come as far as the leader's own logical slot, which protected them before, was after that (Patroni's rule).
type safety struct {
	leaderXmin uint32 // catalog_xmin of the leader's slot, read when its slot for this member held one; 0: not yet
	ownXmin    uint32
	safe       bool
}

// needs tells whether the slot still stands before what is known to be there.
func (s safety) needs(here []postgres.Slot, name string) bool {
	n := slices.IndexFunc(here, func(s postgres.Slot) bool { return s.Name == name })
	return n >= 0 && (s.leaderXmin == 0 || before(xid(here[n].CatalogXmin), s.leaderXmin))
}

// before compares transaction ids as PostgreSQL does, modulo 2^32.
func before(a, b uint32) bool { return int32(a-b) < 0 }

func xid(s string) uint32 {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0
	}
	return uint32(n)
}

// copyPace is when copies are tried.
type copyPace struct {
	since time.Time // since when a copy has been missing
	next  time.Time
	tries int
}

const (
	// copyApart keeps the standbys of a cluster from restarting all at once, for commits may wait for one of them.
	copyApart = 5 * time.Second
	// copyAgain is the pause after a first try, which doubles with each up to copyLeast: a slot that cannot be copied must not
	// have its standby restarted without end.
	copyAgain = 30 * time.Second
	copyLeast = time.Hour
)

// due tells whether to copy now, if that can be done; turn is this member's place among the standbys.
func (p *copyPace) due(missing, possible bool, turn int, now time.Time) bool {
	if !missing {
		*p = copyPace{}
		return false
	}
	if p.since.IsZero() {
		p.since = now
	}
	if !possible || now.Before(p.next) || now.Sub(p.since) < time.Duration(turn)*copyApart {
		return false
	}
	p.next = now.Add(min(copyAgain<<min(p.tries, 10), copyLeast))
	p.tries++
	return true
}

// missingCopies are the permanent logical slots that the leader has and this standby does not.
func missingCopies(c slotCase) []string {
	var out []string
	for _, s := range c.wanted(config.SlotLogical) {
		_, there := c.positions()[s.Name]
		if _, here := c.find(s.Name); there && !here && !c.dynamic.Ignores(s.Name, s.Type, s.Database, s.Plugin) {
			out = append(out, s.Name)
		}
	}
	return out
}

// copyDue tells whether slots are to be copied from the leader now, and judges anew which copies are there.
func (a *Agent) copyDue() (leader string, due bool) {
	st := &a.st
	k := &a.chores.keep
	c := a.slotCase(st.seen.probe.InRecovery)
	k.follow(c, a)
	l := st.snap.Leader
	if !c.standby || st.dynamic.Pause || !c.mayLead || l == nil || st.upstream != l.Name || st.seen.probe.ReceiverStatus != "streaming" || a.chores.busy {
		return "", false
	}
	turn := 0
	for _, m := range st.snap.Members {
		if m.Name != l.Name && m.Name < c.me {
			turn++
		}
	}
	return l.Name, k.copying.due(len(missingCopies(c)) > 0, len(k.copyable) > 0, turn, c.now)
}

// follow keeps the list of this standby's copies, whose safety is another one under another leader. On a promotion it tells
// of those that are not known to be safe.
func (k *slotKeeping) follow(c slotCase, a *Agent) {
	if !c.standby {
		for name, s := range k.copies {
			if !s.safe {
				a.log.Warn("a logical slot was not known to be safe when this member was promoted", "slot", name)
				if k.doubtful == nil {
					k.doubtful = map[string]safety{}
				}
				k.doubtful[name] = s
			}
		}
		k.copies, k.office = nil, ""
		return
	}
	k.doubtful = nil
	if l := c.snap.Leader; l != nil {
		if office := fmt.Sprint(l.Name, l.CreateRev); office != k.office {
			k.office, k.copies = office, nil
		}
	}
	copies := map[string]safety{}
	for _, s := range c.wanted(config.SlotLogical) {
		if here, ok := c.find(s.Name); ok && here.Type == "logical" {
			was := k.copies[s.Name]
			was.ownXmin = xid(here.CatalogXmin)
			copies[s.Name] = was
		}
	}
	k.copies = copies
}

// unsettled are the copies that are not known to be safe.
func (k *slotKeeping) unsettled() map[string]safety {
	out := map[string]safety{}
	for name, s := range k.copies {
		if !s.safe {
			out[name] = s
		}
	}
	return out
}

// leaderUpstream is how the leader's server is reached; nil where that is not known.
func (a *Agent) leaderUpstream() (*postgres.Upstream, error) {
	l := a.st.snap.Leader
	if l == nil || l.Name == a.opt.Node.Name {
		return nil, errors.New("nobody else leads")
	}
	return input{snap: a.st.snap, dynamic: a.st.dynamic, node: a.node.Load()}.upstream(l.Name)
}

// judgeCopies asks the leader whether what decoding from these copies needs is there; see safety.
func (a *Agent) judgeCopies(ctx context.Context, up postgres.Upstream, copies map[string]safety) map[string]safety {
	list, err := a.server.UpstreamSlots(ctx, up)
	if err != nil {
		a.log.Debug("the leader does not tell of its slots", "error", err)
		return nil
	}
	theirs := map[string]uint32{}
	for _, s := range list {
		theirs[s.Name] = s.CatalogXmin
	}
	return judged(copies, theirs, theirs[up.Slot])
}

// judged applies the rule of safety; feedback is the catalog_xmin of the leader's slot for this member.
func judged(copies map[string]safety, theirs map[string]uint32, feedback uint32) map[string]safety {
	if feedback == 0 {
		return nil
	}
	out := map[string]safety{}
	for name, s := range copies {
		if s.leaderXmin == 0 {
			s.leaderXmin = theirs[name]
		}
		s.safe = s.leaderXmin != 0 && s.ownXmin != 0 && !before(s.ownXmin, s.leaderXmin) && !before(s.ownXmin, feedback)
		out[name] = s
	}
	return out
}

// copySlots fetches the state of the missing slots from the leader, and restarts the standby with them. A slot whose reader
// has confirmed more than this standby has replayed is left for later, since after a promotion it would skip the rest; one
// whose WAL is not here any more cannot be used.
func (a *Agent) copySlots(ctx context.Context, in input, e *effects) error {
	p := in.seen.probe
	up, err := in.upstream(in.action.Member)
	if err != nil {
		return err
	}
	if p == nil || !p.InRecovery {
		return errors.New("copy slots: the server is no standby")
	}
	names := missingCopies(slotCase{me: in.node.Name, standby: true, dynamic: in.dynamic, snap: in.snap, here: p.Slots})
	s, _ := settings(in, "replica", "")
	if s.Controlled["wal_level"] != "logical" {
		return errors.New("copy slots: wal_level is not logical: a server that has logical slots would not start again")
	}
	states, waiting := a.usableStates(ctx, *up, names)
	if len(states) == 0 {
		return fmt.Errorf("copy slots: none can be copied: %s", strings.Join(waiting, "; "))
	}
	e.note("restarting to take over %d logical slots from %s", len(states), up.Name)
	a.beforeStop(ctx, in)
	if err := a.server.Stop(ctx, postgres.StopFast, nil); err != nil {
		return fmt.Errorf("copy slots: %w", err)
	}
	installed := a.server.InstallSlots(states) // the standby starts again whatever has become of that
	return errors.Join(installed, a.startWith(ctx, s, up, true, e))
}

// usableStates fetches the state of those slots that can be copied now, and tells why others cannot.
func (a *Agent) usableStates(ctx context.Context, up postgres.Upstream, names []string) (states []slots.State, waiting []string) {
	fetched, err := a.server.FetchSlots(ctx, up, names)
	if err != nil {
		waiting = append(waiting, fmt.Sprintf("permanent logical slots cannot be copied from %s: %v", up.Name, err))
	}
	replayed := a.awaitReplay(ctx, fetched)
	for _, s := range fetched {
		has, err := a.server.HoldsWAL(s)
		switch {
		case s.Confirmed > replayed:
			waiting = append(waiting, fmt.Sprintf("the permanent logical slot %s is not copied yet: its reader is at %s, and this standby has replayed only up to %s", s.Name, s.Confirmed, replayed))
		case err != nil:
			waiting = append(waiting, fmt.Sprintf("the permanent logical slot %s is not copied yet: %v", s.Name, err))
		case !has:
			waiting = append(waiting, fmt.Sprintf("the permanent logical slot %s is not copied yet: it needs WAL from %s on, which this standby does not hold; it is copied once its reader has moved on, and until then a failover to this member would leave its reader without a slot", s.Name, s.Restart))
		default:
			states = append(states, s)
		}
	}
	return states, waiting
}

// replayWait is how long this standby may take to replay what a slot's reader has just confirmed.
const replayWait = 3 * time.Second

// awaitReplay waits until what these slots' readers have confirmed is replayed here, and returns how far replay has come. A
// reader that keeps up is always a little ahead.
func (a *Agent) awaitReplay(ctx context.Context, list []slots.State) cluster.LSN {
	var need, replayed cluster.LSN
	for _, s := range list {
		need = max(need, s.Confirmed)
	}
	ctx, cancel := context.WithTimeout(ctx, replayWait)
	defer cancel()
	for {
		if p, err := a.server.Probe(ctx); err == nil {
			replayed = p.ReplayLSN
		}
		if replayed >= need {
			return replayed
		}
		select {
		case <-ctx.Done():
			return replayed
		case <-time.After(20 * time.Millisecond):
		}
	}
}
