package cli

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/havenha/haven/internal/api"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
)

// rollingStep is one step of a rolling restart.
type rollingStep struct {
	Step   int    `json:"step"`
	Action string `json:"action"` // restart, switchover, return
	Member string `json:"member"` // of a switchover: whom leadership goes to; empty: a restarted replica
	Text   string `json:"text"`
	Done   bool   `json:"done,omitempty"`
	// Seconds is how long it took.
	Seconds float64 `json:"seconds,omitempty"`
}

// rollingPlan are the steps for these members, which are in order: replicas, then the leader if it is among them.
func rollingPlan(p picture, members []cluster.Member) ([]rollingStep, error) {
	var steps []rollingStep
	add := func(action, member, text string) {
		steps = append(steps, rollingStep{Step: len(steps) + 1, Action: action, Member: member, Text: text})
	}
	var replicas []string
	for _, m := range members {
		if m.Name == p.leader() {
			continue
		}
		add("restart", m.Name, fmt.Sprintf("restart %s, wait until it streams again", m.Name))
		if m.MayLead() {
			replicas = append(replicas, m.Name)
		}
	}
	if len(members) == 0 || members[len(members)-1].Name != p.leader() {
		return steps, nil
	}
	if len(replicas) == 0 { // earlier ones may have been restarted already
		for _, m := range p.snap.Members {
			if m.Name != p.leader() && m.MayLead() && !m.PendingRestart {
				replicas = append(replicas, m.Name)
			}
		}
	}
	if len(replicas) == 0 {
		return nil, refused(fmt.Sprintf("no replica may take over from %s, so it cannot be restarted without stopping writes", p.leader()),
			fmt.Sprintf("haven restart %s restarts it in place", p.leader()))
	}
	add("switchover", "", fmt.Sprintf("switchover from %s to %s", p.leader(), strings.Join(replicas, " or ")))
	add("return", p.leader(), fmt.Sprintf("%s restarts by that, wait until it streams", p.leader()))
	return steps, nil
}

// rolled is the outcome for machines.
type rolled struct {
	Steps []rollingStep `json:"steps"`
	Done  bool          `json:"done"`
}

// roll restarts one member after the other, and stops at the first trouble.
func (r *restart) roll(ctx context.Context, t target, members []cluster.Member) error {
	steps, err := rollingPlan(t.p, members)
	if err != nil {
		return err
	}
	if r.planOnly {
		return r.rolled(steps, false)
	}
	if err := sound(t.p); err != nil {
		return err
	}
	if !r.yes && !r.c.structured() {
		for _, s := range steps {
			fmt.Fprintf(r.c.err, "  %d  %s\n", s.Step, s.Text)
		}
	}
	if err := r.c.agree(ctx, r.yes, fmt.Sprintf("Restart %d members of cluster %s one after the other?", len(members), t.p.scope)); err != nil {
		return err
	}
	size, first := syncSize(t.p), t.p.leader()
	former := standing{}
	for i := range steps {
		s := &steps[i]
		began := time.Now()
		err := r.step(ctx, t, s, first, &former, size)
		if s.Seconds = time.Since(began).Seconds(); err != nil {
			return r.stopped(t.p, steps, i, err)
		}
		s.Done = true
		if !r.c.structured() {
			fmt.Fprintf(r.c.out, "%d/%d  %s: done after %s\n", s.Step, len(steps), s.Text, took(time.Since(began)))
		}
	}
	if r.c.structured() {
		return r.rolled(steps, true)
	}
	return nil
}

func (r *restart) rolled(steps []rollingStep, done bool) error {
	if r.c.structured() {
		return r.c.emit(r.c.out, rolled{steps, done})
	}
	for _, s := range steps {
		fmt.Fprintf(r.c.out, "%d  %s\n", s.Step, s.Text)
	}
	return nil
}

// sound refuses to begin, or go on, while the cluster is not whole: one more member that is away could stop the writes.
func sound(p picture) error {
	switch {
	case p.dynamic.Pause:
		return refused("maintenance mode is on: nobody would take over should a server not come back", "haven resume")
	case p.leader() == "":
		return refused("This cluster has no leader", "haven status")
	}
	for _, m := range p.snap.Members {
		if m.Name != p.leader() && (m.State != cluster.StateRunning || m.ReplicationState != "streaming") {
			return refused(fmt.Sprintf("%s does not stream (%s)", m.Name, or(string(m.State), "?")), "haven status, until all members stream")
		}
	}
	return nil
}

func syncSize(p picture) int {
	if !p.snap.Sync.Active() {
		return 0
	}
	return len(p.snap.Sync.Standbys)
}

// stepLimit bounds the waiting for the cluster to be whole after a step.
const stepLimit = 5 * time.Minute

func (r *restart) step(ctx context.Context, t target, s *rollingStep, leader string, former *standing, size int) error {
	ctx, cancel := context.WithTimeout(ctx, stepLimit+restartLimit+time.Duration(r.start))
	defer cancel()
	p, err := t.read(ctx)
	if err != nil {
		return err
	}
	m, there := p.snap.Member(s.Member)
	switch {
	case s.Action != "return" && p.leader() != leader:
		return &Failure{Code: ExitConflict, What: fmt.Sprintf("%s leads now, and %s did when this began", or(p.leader(), "nobody"), leader)}
	case s.Action == "switchover":
		l, _ := p.snap.Member(leader)
		if *former, err = t.standing(ctx, l); err != nil {
			return err
		}
		return r.handOver(ctx, t, p, s)
	case !there:
		return &Failure{Code: ExitNotFound, What: s.Member + " has no member key any more"}
	case s.Action == "return":
		return r.comeBack(ctx, t, m, *former, size)
	}
	before, err := t.standing(ctx, m)
	if err != nil {
		return err
	}
	if err := r.restartOne(ctx, t, m); err != nil {
		return err
	}
	return r.whole(ctx, t, m, before, size)
}

func (r *restart) restartOne(ctx context.Context, t target, m cluster.Member) error {
	if o := r.one(ctx, t, m); !o.Done {
		return &Failure{Code: o.code, What: o.Text}
	}
	return nil
}

// whole waits until the member streams again, and all others do, and as many are synchronous as before.
func (r *restart) whole(ctx context.Context, t target, m cluster.Member, before standing, size int) error {
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	if err := t.awaitBack(ctx, m, before, true); err != nil {
		return &Failure{Code: ExitTimeout, What: fmt.Sprintf("%s was restarted, and is not back within %s: %v", m.Name, stepLimit, err)}
	}
	for {
		p, err := t.read(ctx)
		if err == nil {
			if err = sound(p); err == nil && syncSize(p) >= size {
				return nil
			}
		}
		pauseFor(ctx, 200*time.Millisecond)
		if ctx.Err() != nil {
			return &Failure{Code: ExitTimeout, What: fmt.Sprintf("the cluster is not whole again within %s: %d of %d synchronous (%v)", stepLimit, syncSize(p), size, err)}
		}
	}
}

// handOver switches over to a replica that was restarted.
func (r *restart) handOver(ctx context.Context, t target, p picture, s *rollingStep) error {
	to := r.successor(p)
	if to == "" {
		return refused("no restarted replica may take over at the moment", "haven status says why no standby is eligible")
	}
	s.Member, s.Text = to, fmt.Sprintf("switchover from %s to %s", p.leader(), to)
	l, _ := p.snap.Member(p.leader())
	a, err := t.client.Do(ctx, http.MethodPost, l.APIBase(), "/switchover", api.Request{Leader: p.leader(), Candidate: to})
	switch {
	case err != nil:
		return &Failure{Code: ExitUnreachable, What: fmt.Sprintf("switchover: %v", err)}
	case a.Code != http.StatusOK:
		return &Failure{Code: exitOfAnswer(a), What: fmt.Sprintf("switchover failed: %s (code %d)", a.Text(), a.Code)}
	}
	return nil
}

// successor is the replica that is to lead: one with nothing pending, and in a synchronous mode a synchronous one.
func (r *restart) successor(p picture) string {
	members := slices.Clone(p.snap.Members)
	slices.SortStableFunc(members, func(a, b cluster.Member) int { return b.Priority() - a.Priority() })
	for _, m := range members {
		inSync := p.dynamic.SynchronousMode == config.SyncOff || p.snap.Sync.Has(m.Name)
		if m.Name != p.leader() && m.MayLead() && inSync && !m.PendingRestart && m.ReplicationState == "streaming" {
			return m.Name
		}
	}
	return ""
}

// comeBack waits for the former leader, which the switchover has stopped; should its server be the same as before, it is
// restarted.
func (r *restart) comeBack(ctx context.Context, t target, m cluster.Member, former standing, size int) error {
	limited, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	if err := t.awaitBack(limited, m, former, false); err != nil {
		return &Failure{Code: ExitTimeout, What: fmt.Sprintf("%s is not back within %s: %v", m.Name, stepLimit, err)}
	}
	if now, err := t.standing(ctx, m); err != nil || now.Started == former.Started {
		if err := r.restartOne(ctx, t, m); err != nil {
			return err
		}
	}
	return r.whole(ctx, t, m, former, size)
}

// stopped tells where a rolling restart has stopped, and how to go on.
func (r *restart) stopped(p picture, steps []rollingStep, at int, err error) error {
	if r.c.structured() {
		if err := r.rolled(steps, false); err != nil {
			return err
		}
	}
	f := &Failure{Code: ExitFailed, What: fmt.Sprintf("stopped at step %d of %d (%s): %v", steps[at].Step, len(steps), steps[at].Text, err)}
	if code := exitOf(context.Background(), err); code != ExitOK {
		f.Code = code
	}
	var done, left []string
	for i, s := range steps {
		switch {
		case s.Action == "switchover":
		case i < at:
			done = append(done, s.Member)
		default:
			left = append(left, s.Member)
		}
	}
	f.Means = "Restarted so far: " + or(strings.Join(done, ", "), "none") + ". The others run as before."
	f.Next = fmt.Sprintf("haven status; when it is mended: haven restart %s %s --rolling", p.scope, strings.Join(left, " "))
	return f
}
