package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/havenha/haven/internal/api"
	"github.com/havenha/haven/internal/cluster"
)

// changeTimeout bounds a switchover or failover, and the waiting for it.
const changeTimeout = 60 * time.Second

// request asks the leader (without one, the candidate) for the change and waits for it.
func (ch *change) request(ctx context.Context, r *reader, p picture) error {
	ctx, cancel := context.WithTimeout(ctx, ch.c.wait(changeTimeout))
	defer cancel()
	began := time.Now()
	base := ch.base(r, p)
	body := api.Request{Candidate: ch.candidate}
	if ch.action == "switchover" {
		body.Leader = p.leader()
	}
	if ch.at != nil {
		body.ScheduledAt = ch.at.Format(cluster.TimeFormat)
	}
	stop := ch.progress(ctx, r, began)
	a, err := r.client.Do(ctx, http.MethodPost, base, "/"+ch.action, body)
	stop()
	switch {
	case err == nil && ch.c.ctl != nil:
		return ch.classicAnswer(ctx, r, a)
	case err == nil:
		return ch.answered(a, began)
	case ctx.Err() != nil:
		return ch.timedOut()
	case r.store == nil:
		return &Failure{Code: ExitUnreachable, What: err.Error(), Means: "It is not known whether the request arrived.", Next: "haven status"}
	}
	return ch.through(ctx, r, p, err, began)
}

// base is the REST API that is asked: the leader's, or without a leader the candidate's.
func (ch *change) base(r *reader, p picture) string {
	name := p.leader()
	if name == "" {
		name = ch.candidate
	}
	if m, found := p.snap.Member(name); found && m.APIBase() != "" {
		return m.APIBase()
	}
	if len(r.bases) > 0 {
		return r.bases[0]
	}
	return ""
}

// answered turns the answer of the REST API into the command's.
func (ch *change) answered(a api.Answer, began time.Time) error {
	text := a.Text()
	f := &Failure{Code: ExitFailed, What: fmt.Sprintf("%s failed: %s (code %d)", title(ch.action), text, a.Code), Next: "haven status; haven explain"}
	switch {
	case a.Code == http.StatusOK:
		return ch.done(text, began)
	case a.Code == http.StatusAccepted:
		return ch.done(text, time.Time{})
	case a.Code == http.StatusUnauthorized || a.Code == http.StatusForbidden:
		f.Code, f.Means, f.Next = ExitForbidden, "Nothing has changed.", "give ctl.authentication in the configuration, or http://USER:PASSWORD@MEMBER:8008"
	case a.Code == http.StatusPreconditionFailed && strings.Contains(text, "leader name does not match"), a.Code == http.StatusConflict:
		f.Code, f.Means, f.Next = ExitConflict, "Leadership moved meanwhile. Nothing has changed.", "haven status, then try again"
	case strings.Contains(text, "sync_standby"):
		f.Code, f.Means, f.Next = ExitRefused, "Commits wait for synchronous standbys, so only one of them may take over. Nothing has changed.", "haven status --watch, until the candidate is synchronous"
	case a.Code >= 400 && a.Code < 500:
		f.Code, f.Means = ExitRefused, "Nothing has changed."
	case strings.Contains(text, "failed to write"):
		f.Code, f.Means = ExitUnreachable, "The member cannot write to etcd. Nothing has changed."
	case strings.Contains(text, "may still be in progress"):
		f.Code, f.Means = ExitTimeout, "It may still happen."
	case a.Code == http.StatusServiceUnavailable:
		f.Means = "The request was dropped; the leader is the same as before."
	}
	return f
}

func title(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// result is the outcome for machines.
type result struct {
	Result  string  `json:"result"`
	Seconds float64 `json:"seconds,omitempty"`
}

func (ch *change) done(text string, began time.Time) error {
	res := result{Result: text}
	if !began.IsZero() {
		res.Seconds = time.Since(began).Seconds()
	}
	if ch.c.structured() {
		return ch.c.emit(ch.c.out, res)
	}
	if began.IsZero() {
		fmt.Fprintln(ch.c.out, text)
		return nil
	}
	fmt.Fprintf(ch.c.out, "%s, after %s\n", text, took(time.Since(began)))
	return nil
}

func (ch *change) timedOut() error {
	return &Failure{Code: ExitTimeout, What: fmt.Sprintf("%s: no result within %s", ch.action, ch.c.wait(changeTimeout)),
		Means: "It may still happen.", Next: "haven status --watch"}
}

// progress tells each second on a terminal where the change is, until it is stopped.
func (ch *change) progress(ctx context.Context, r *reader, began time.Time) (stop func()) {
	if !ch.c.outTTY || ch.c.quiet || r.store == nil || ch.at != nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if snap, err := r.store.Snapshot(ctx); err == nil {
					ch.c.say("%5.1f s  %s", time.Since(began).Seconds(), stage(snap))
				}
			}
		}
	})
	return func() { cancel(); running.Wait() }
}

// stage says where a change is.
func stage(s cluster.Snapshot) string {
	switch {
	case s.Leader == nil:
		return "no member holds the leader key"
	case s.Term.Binds(s.Leader) && s.Term.State == cluster.TermClaimed:
		return s.Leader.Name + " has taken the leader key and is being promoted"
	case !s.Failover.Empty():
		return s.Leader.Name + " still leads and works on the request"
	}
	return s.Leader.Name + " leads"
}

// through writes the request into etcd itself, when the REST API did not answer. Where it may have arrived all the same,
// only the outcome is watched: two requests could move leadership twice.
func (ch *change) through(ctx context.Context, r *reader, p picture, cause error, began time.Time) error {
	var dial *net.OpError
	if errors.As(cause, &dial) && dial.Op == "dial" {
		ch.c.say("%s", ch.fallsBack(cause))
		f := cluster.Failover{Candidate: ch.candidate, ScheduledAt: ch.at}
		if ch.action == "switchover" {
			f.Leader = p.leader()
		}
		seen := int64(0)
		if p.snap.Failover != nil {
			seen = p.snap.Failover.ModRev
		}
		if err := r.store.PutFailover(ctx, f, seen); err != nil {
			return fmt.Errorf("%s: write the request into etcd: %w", ch.action, err)
		}
		if ch.at != nil {
			return ch.done(title(ch.action)+" scheduled", time.Time{})
		}
	} else {
		ch.c.say("the connection to the REST API broke (%v): watching etcd for the outcome", cause)
	}
	return ch.watch(ctx, r, p, began)
}

func (ch *change) watch(ctx context.Context, r *reader, p picture, began time.Time) error {
	stop := ch.progress(ctx, r, began)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for u := range r.store.Watch(ctx) {
		l := u.Snapshot.Leader
		switch {
		case u.Err != nil || l == nil:
		case l.Name != p.leader() && u.Snapshot.Term.Settled(l):
			return ch.done(fmt.Sprintf("%s leads", l.Name), began)
		case l.Name == p.leader() && u.Snapshot.Failover.Empty() && u.Snapshot.Revision > p.snap.Revision:
			return &Failure{Code: ExitFailed, What: title(ch.action) + " failed: the request was dropped", Means: l.Name + " leads as before.", Next: "haven status; the log of " + l.Name}
		}
	}
	return ch.timedOut()
}
