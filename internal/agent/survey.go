package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/havenha/haven/internal/bootclock"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
	"github.com/havenha/haven/internal/postgres"
	"github.com/havenha/haven/internal/postgres/wal"
)

// askTimeout bounds one question to another member (Patroni, leader race).
const askTimeout = 2 * time.Second

// stragglers is how long a race goes on to wait for those whose answers do not count, once all others are there: a lost host answers
// never.
const stragglers = 300 * time.Millisecond

// ask asks all other members at once. The last leader is asked too, though its key may be gone, so that the cause of
// its loss can be told.
func (a *Agent) ask(ctx context.Context, in input, e *effects) error {
	s := &ha.Survey{At: bootclock.Now()}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	targets := a.targets(in)
	lastLeader := ""
	if in.story.oldLeader != nil {
		lastLeader = in.story.oldLeader.Name
	}
	leads := in.holder != nil && in.snap.Leader != nil && in.snap.Leader.Name == in.node.Name
	answers := make(chan ha.Answer, len(targets))
	missing := map[string]bool{} // those who are waited for
	var asked sync.WaitGroup
	for _, m := range targets {
		ask := a.question
		if ha.Awaited(m, in.snap, lastLeader, leads, in.dynamic.Pause) {
			missing[m.Name] = true
			if m.Name != lastLeader || m.Role == cluster.RoleReplica || ha.Unfenced(m, in.dynamic.Pause) { // else that its server has ended is an answer, too
				ask = a.insist
			}
		}
		asked.Go(func() { answers <- ask(ctx, m) })
	}
	defer asked.Wait()
	grace, sufficient := stragglers, false
	if leads { // who hands over reads no other answers
		grace = 0
	}
	late := time.NewTimer(askTimeout)
	defer late.Stop()
	if len(missing) == 0 {
		late.Reset(grace)
	}
	for left := len(targets); left > 0; left-- {
		select {
		case answer := <-answers:
			s.Answers = append(s.Answers, answer)
			if !missing[answer.Name] {
				continue
			}
			delete(missing, answer.Name)
			switch {
			case len(missing) == 0:
				late.Reset(grace)
			case leads && !sufficient && ha.Sufficient(in.snap, s.Answers):
				sufficient = true
				late.Reset(stragglers)
			}
		case <-late.C:
			cancel()
			for ; left > 0; left-- {
				s.Answers = append(s.Answers, <-answers)
			}
			left = 1
		}
	}
	e.survey = s
	return nil
}

func (a *Agent) targets(in input) []cluster.Member {
	var out []cluster.Member
	for _, m := range in.snap.Members {
		if m.Name != in.node.Name {
			out = append(out, m)
		}
	}
	if old := in.story.oldLeader; old != nil && old.Name != in.node.Name {
		if _, ok := in.snap.Member(old.Name); !ok {
			out = append(out, *old)
		}
	}
	return out
}

// insist asks a member again whose server runs, as its key says, and whose answer says nothing of it: it was slow a moment ago.
func (a *Agent) insist(ctx context.Context, m cluster.Member) ha.Answer {
	answer := a.question(ctx, m)
	for !answer.Reachable && !answer.Refused && m.State == cluster.StateRunning {
		if pause(ctx, 100*time.Millisecond); ctx.Err() != nil {
			break
		}
		answer = a.question(ctx, m)
	}
	return answer
}

func (a *Agent) askOne(ctx context.Context, s cluster.Snapshot, name string) (ha.Answer, error) {
	m, ok := s.Member(name)
	if !ok {
		return ha.Answer{}, fmt.Errorf("%s has no member key", name)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answer := a.question(ctx, m)
	if !answer.Reachable {
		return answer, errors.New(answer.Error)
	}
	return answer, nil
}

// peerStatus is what is read of a member's GET /patroni.
type peerStatus struct {
	Role string `json:"role"`
	Xlog *struct {
		Location cluster.LSN `json:"location"`
		Received cluster.LSN `json:"received_location"`
		Replayed cluster.LSN `json:"replayed_location"`
	} `json:"xlog"`
	Timeline cluster.Timeline `json:"timeline"`
	Tags     map[string]any   `json:"tags"`
}

// question asks one member. An answer without xlog counts as none (Patroni).
func (a *Agent) question(ctx context.Context, m cluster.Member) ha.Answer {
	out := ha.Answer{Name: m.Name}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.APIURL, nil)
	if err != nil {
		out.Error = err.Error()
		return out
	}
	resp, err := a.opt.Peers.Do(req)
	if err != nil {
		out.Error, out.Refused = err.Error(), errors.Is(err, syscall.ECONNREFUSED)
		return out
	}
	defer resp.Body.Close()
	var st peerStatus
	if err := json.NewDecoder(resp.Body).Decode(&st); err != nil {
		out.Error = fmt.Sprintf("unreadable answer: %v", err)
		return out
	}
	if st.Xlog == nil {
		out.Error = "its agent answers, its PostgreSQL does not"
		return out
	}
	asked := cluster.Member{Tags: st.Tags, Role: cluster.Role(st.Role)}
	out.Reachable, out.Timeline = true, st.Timeline
	out.Primary = asked.Is(cluster.RolePrimary) || st.Xlog.Location > 0
	out.Position = max(st.Xlog.Location, st.Xlog.Received, st.Xlog.Replayed)
	out.MayLead, out.Priority = asked.MayLead(), asked.Priority()
	return out
}

// compare holds the local timeline history against that of a leader, ids and switch points.
func (a *Agent) compare(ctx context.Context, in input, e *effects) error {
	up, err := in.upstream(in.action.Member)
	if err != nil {
		return err
	}
	id, remoteTL, _, err := a.server.Identify(ctx, *up)
	if err != nil {
		return fmt.Errorf("compare with %s: %w", up.Name, err)
	}
	if i := in.snap.Initialize; i.Valid() && id != i.SystemID {
		return fmt.Errorf("compare with %s: the server there is of system %s, the cluster is %s", up.Name, id, i.SystemID)
	}
	remote, err := a.server.TimelineHistory(ctx, *up, remoteTL)
	if err != nil {
		return fmt.Errorf("compare with %s: %w", up.Name, err)
	}
	tl, end, wasPrimary, err := a.localEnd(ctx, in)
	if err != nil {
		return fmt.Errorf("compare with %s: %w", up.Name, err)
	}
	local, err := a.server.LocalHistory(tl)
	if err != nil {
		return fmt.Errorf("compare with %s: %w", up.Name, err)
	}
	c := &ha.Compare{With: up.Name, LeaderRev: in.snap.Leader.ModRev, At: bootclock.Now()}
	c.Diverged, c.Text = wal.Diverged(local, tl, end, wasPrimary, remote, remoteTL)
	mark, err := a.readMark()
	if err != nil {
		return fmt.Errorf("compare with %s: %w", up.Name, err)
	}
	if twin := mark.Twin(in.snap.History, tl, remoteTL); twin != 0 {
		c.Diverged, c.Twin = true, true
		c.Text = fmt.Sprintf("this member began timeline %d, and so did another, whose is the leader's", twin)
	}
	if c.Close = in.action.Close; c.Close && !c.Diverged {
		if err := a.compareWAL(ctx, *up, c, tl, end); err != nil {
			return fmt.Errorf("compare with %s: %w", up.Name, err)
		}
	}
	a.log.Info("compared histories", "with", up.Name, "diverged", c.Diverged, "text", c.Text)
	e.compare = c
	return nil
}

// compareWAL holds the end of the local WAL against a leader's whose history it is part of: there may be another's records, or
// the leader may not have it any more. Only whole records count: of the last one a part may have come that the leader has
// taken back since.
func (a *Agent) compareWAL(ctx context.Context, up postgres.Upstream, c *ha.Compare, tl cluster.Timeline, end cluster.LSN) error {
	if onDisk, whole, err := a.server.LocalEnd(); err == nil && onDisk == tl {
		end = min(end, whole)
	}
	if end == 0 || end == ^cluster.LSN(0) {
		return nil
	}
	tail, text, err := a.server.CompareTail(ctx, up, tl, end)
	if err != nil {
		return err
	}
	c.Text = text
	c.Gone = tail == postgres.TailGone
	c.Diverged = tail == postgres.TailOther
	c.Twin = c.Diverged // pg_rewind would find nothing to do
	return nil
}

// localEnd is the local timeline and the end of the local WAL. A running standby tells by IDENTIFY_SYSTEM the timeline that
// it replays, its control file an older one: the WAL on its disk may be of a newer one, and go on much further. Of a server that did not stop cleanly the end may not be known, and is then
// counted as beyond everything.
func (a *Agent) localEnd(ctx context.Context, in input) (tl cluster.Timeline, end cluster.LSN, wasPrimary bool, err error) {
	if p := in.seen.probe; p != nil {
		self, err := in.upstream(in.node.Name)
		if err != nil {
			return 0, 0, false, err
		}
		_, tl, _, err := a.server.Identify(ctx, *self)
		end = max(p.ReceiveLSN, p.ReplayLSN)
		if p.InRecovery {
			a.dropPending()
			// Of the last record a part may have come that the primary never finished: only whole ones count.
			if onDisk, to, unread := a.server.LocalEnd(); unread == nil && onDisk >= tl && to >= p.ReplayLSN {
				tl, end = onDisk, to
			}
		}
		return tl, end, !p.InRecovery, err
	}
	a.settleMark()
	d := in.seen.disk
	wasPrimary = !d.StandbySignal && !d.Copy && d.Control.Primary()
	tl, end, unknown := a.server.LocalEnd()
	if unknown != nil {
		tl, end = d.Control.Timeline, ^cluster.LSN(0)
	}
	return tl, end, wasPrimary, nil
}
