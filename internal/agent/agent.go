// Package agent keeps one member in step with its cluster: it observes the store and the local server, lets
// internal/ha decide, carries out at most one action at a time, and records what it did and why.
//
// The loop owns all state; it is one goroutine. Everything that may take time runs beside it (looking at the server,
// renewing the lease, writing keys, long actions) and reports back by message. What others may read is a published
// Status that is never changed afterwards.
//
// It guarantees that no action begins while another runs, that an action which does harm reads its evidence again
// first, that renewal stops when the loop does not turn, and that no renewal counts of which the guard, if there is one, does not know. It leaves to the caller the etcd server, the REST
// listener and the configuration file.
package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/havenha/haven/internal/bootclock"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/dcs"
	"github.com/havenha/haven/internal/guard"
	"github.com/havenha/haven/internal/ha"
	"github.com/havenha/haven/internal/journal"
	"github.com/havenha/haven/internal/postgres"
)

// Options are what an agent is made of.
type Options struct {
	Node    *config.Node
	Store   dcs.Store
	Server  *postgres.Instance
	Journal *journal.Journal
	// Guard ends the server at the deadline whatever becomes of the agent; nil: there is none.
	Guard *guard.Link
	// Peers asks other members; it carries the TLS settings of the REST API.
	Peers *http.Client
	// Troubles tell what else is not as it should be, in sentences. They are called by the loop, and may not block.
	Troubles []func() []string
	Version  string // of Haven
	// Clocks reads both clocks; nil: those of this host.
	Clocks func() bootclock.Reading
	Log    *slog.Logger
}

// ErrAbandon as the cause of a context's end makes the agent end as a crash would: at once, with server, keys and lease
// left as they are, for another agent of the member to take up.
var ErrAbandon = errors.New("the agent is abandoned, its server goes on")

// FatalError ends the agent because going on would do harm. The server is left as it is.
type FatalError struct{ Reason ha.Reason }

func (e *FatalError) Error() string { return e.Reason.Text }

// Agent looks after one member. Make one with New, and Run it once.
type Agent struct {
	opt    Options
	node   atomic.Pointer[config.Node]
	log    *slog.Logger
	store  dcs.Store
	server *postgres.Instance

	published atomic.Pointer[Status]
	lastTurn  atomic.Int64 // cluster.Instant of the loop's last turn
	paused    atomic.Bool
	reread    atomic.Bool // the configuration was read again: so is the server's
	// sessionLost: the server has broken its connection to us, and may have recovered from a crash since.
	sessionLost atomic.Bool
	ordered     atomic.Bool // an end of the server is expected
	wake        chan struct{}
	copied      atomic.Pointer[copied] // how far a copy of the database is

	calls     chan func() // run on the loop
	looks     chan lookResult
	done      chan taskResult
	exits     chan serverExit
	renewals  chan renewal
	keeper    *keeper
	stolen    stolen
	warden    *warden
	pledges   *pledges
	lists     lists
	knocker   *knocker
	surveyor  *surveyor
	writer    *keyWriter
	chores    *chores
	callbacks callbacks
	figures   figures
	keep      keptDynamic
	running   sync.WaitGroup

	st state // owned by the loop
}

// state belongs to the loop.
type state struct {
	snap    cluster.Snapshot
	known   bool
	seenAt  time.Time
	dynamic config.Dynamic
	inForce json.RawMessage // the dynamic configuration as it was read last; nil: never
	memory  ha.Memory

	seen       seen
	answered   answered
	reach      reach
	grounded   bool // reach holds the end of the WAL on disk as it was when the server last began to answer
	watching   bool // the loss of the connection to the server will be told
	generation int  // raised when a task begins and ends: a look from before that is stale
	looking    bool
	lookAgain  bool
	due        cluster.Instant // of the next look; 0: not set
	asked      asked

	lease    dcs.Lease
	holder   *dcs.Holder
	lost     bool
	deadline cluster.Instant
	failsafe bool // the deadline rests on the word of all members

	process  *postgres.Server
	crash    *ha.Crash
	upstream string
	// streamed: there was a receiver at the last turn. retryUntil: it was lost, or the upstream is another or has come back, and the
	// stream is tried again until then. retried: that was done last.
	streamed   bool
	retryUntil time.Time
	retried    time.Time
	survey     *ha.Survey
	compare    *ha.Compare

	task    *ha.Task
	cancel  context.CancelFunc
	ended   chan struct{} // closed when the newest task has ended and reported
	outcome *ha.Outcome
	last    ha.Decision

	applied    string    // fingerprint of the server settings that are in force
	applyAfter time.Time // settings are not applied before, since that has just failed
	checkpoint bool      // the checkpoint after the last promotion is done
	story      story
	started    cluster.Instant
	orders     orders

	startError  error     // of the last start that was tried; nil: it went well
	strictAlone bool      // commits wait in the strict mode since no standby is left, which was told
	unprotected time.Time // since when commits have been acknowledged without a standby; zero: they are not
}

// New makes an agent. Nothing is touched before Run.
func New(o Options) *Agent {
	a := &Agent{
		opt: o, log: o.Log, store: o.Store, server: o.Server,
		wake:     make(chan struct{}, 1),
		calls:    make(chan func()),
		looks:    make(chan lookResult, 1),
		done:     make(chan taskResult, 2), // of a kill, and of the task that was cancelled for it
		exits:    make(chan serverExit, 4),
		renewals: make(chan renewal, 1),
	}
	a.node.Store(o.Node)
	a.keeper = newKeeper(a)
	a.stolen = newStolen(o.Clocks)
	a.warden = &warden{a: a, link: o.Guard, kick: make(chan struct{}, 1)}
	a.knocker, a.surveyor = &knocker{a: a}, &surveyor{a: a}
	a.writer = newKeyWriter(a)
	a.chores = &chores{result: make(chan choresDone, 1)}
	a.st.checkpoint = true
	a.st.dynamic, _, _ = config.ParseDynamic(config.DefaultDCS(o.Node.Format, o.Node.Bootstrap), true)
	a.keeper.timing(a.st.dynamic.TTL, a.st.dynamic.LoopWait)
	return a
}

// Wake makes the loop look again at once.
func (a *Agent) Wake() {
	select {
	case a.wake <- struct{}{}:
	default:
	}
}

// Reload takes a new configuration into use. The caller has checked that only what may change did.
func (a *Agent) Reload(n *config.Node) {
	a.node.Store(n)
	a.reread.Store(true)
	a.Wake()
}

// Run looks after the member until ctx ends, then stops the server in an orderly way and hands leadership over if
// there is somebody to take it; with ErrAbandon as the cause of ctx's end it leaves all as it is. It returns a *FatalError if the agent must not go on.
func (a *Agent) Run(ctx context.Context) error {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer a.running.Wait()
	defer end()
	a.st.started = bootclock.Now()
	if err := a.adopt(); err != nil {
		return err
	}
	a.recallDynamic()
	a.pledges = openPledges(a.opt.Node.Dir(), a.log) // nobody asks for a word before the first status is published
	updates := a.store.Watch(life)
	a.beside(life, a.keeper.run)
	a.beside(life, a.awaitJumps)
	a.beside(life, a.warden.run)
	a.beside(life, a.knocker.run)
	a.beside(life, a.surveyor.run)
	a.beside(life, a.writer.run)
	a.look(life)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		var fatal *FatalError
		again, err := a.turn(life)
		if errors.As(err, &fatal) {
			return err
		}
		timer.Reset(again)
		if !a.receive(ctx, life, updates, timer.C) {
			break
		}
	}
	if errors.Is(context.Cause(ctx), ErrAbandon) {
		return nil
	}
	err := a.shutdown(life)
	a.callbacks.farewell(life, a)
	if a.st.dynamic.Pause { // a renewal that began before the pause may still have armed the guard
		end()
		a.running.Wait()
		a.releaseNow()
	}
	return err
}

// receive waits for something to happen and takes it into the state; false when the agent is to stop.
func (a *Agent) receive(ctx, life context.Context, updates <-chan dcs.Update, timer <-chan time.Time) bool {
	select {
	case <-ctx.Done():
		return false
	case f := <-a.calls:
		f()
	case u := <-updates:
		a.takeUpdate(u)
	case r := <-a.looks:
		a.takeLook(life, r)
	case r := <-a.done:
		a.takeOutcome(life, r)
	case e := <-a.exits:
		a.takeExit(life, e)
	case r := <-a.renewals:
		a.takeRenewal(r)
	case <-a.stolen.jumped: // the next turn looks at the clocks
	case <-a.wake:
		a.look(life)
	case <-timer:
		a.st.due = 0
		a.look(life)
	}
	return true
}

// turn decides once, and begins what was decided. It returns when to look again.
func (a *Agent) turn(ctx context.Context) (time.Duration, error) {
	if a.warden.takenOver.Load() {
		return 0, &FatalError{Reason: ha.Reason{Text: guard.ErrTakenOver.Error()}}
	}
	a.takeProofs()
	now := bootclock.Now()
	a.lastTurn.Store(int64(now))
	a.noticeStolenTime()
	a.forgetLost()
	if a.st.task == nil && a.st.holder == nil {
		a.pledges.settle()
	}
	a.lookForRequest(ctx)
	v := a.view(now)
	a.holdRequest(&v)
	a.releaseGuard(v)
	a.takeOrders(&v)
	d, m := ha.Decide(v, a.st.memory)
	a.record(v, d)
	a.figures.decided()
	a.st.memory, a.st.outcome, a.st.last = m, nil, d
	if d.Cancel && a.st.cancel != nil {
		a.st.cancel()
	}
	switch {
	case d.Action.Kind == ha.Exit:
		return 0, &FatalError{Reason: d.Reason}
	case d.Action.Kind != ha.None && (a.st.task == nil || d.Action.Kind == ha.Kill):
		a.begin(ctx, d)
	case d.Action.Kind == ha.None && a.st.task == nil:
		a.maintain(ctx)
	}
	a.publish()
	a.keepDynamic(ctx)
	a.notice(ctx)
	return a.nextTurn(now, d), nil
}

// nextTurn is when to look again: as decided, but never after the deadline of the lease.
func (a *Agent) nextTurn(now cluster.Instant, d ha.Decision) time.Duration {
	again := a.st.orders.planned.atMost(max(d.Again, 10*time.Millisecond))
	if a.st.holder != nil && !a.st.lost && now.Before(a.st.deadline) {
		again = min(again, max(a.st.deadline.Sub(now), time.Millisecond))
	}
	if at := now.Add(again); a.st.due == 0 || at.Before(a.st.due) { // what happens in between must not put a look off for ever
		a.st.due = at
	}
	return max(a.st.due.Sub(now), time.Millisecond)
}

// beside runs f beside the loop; Run waits for it.
func (a *Agent) beside(ctx context.Context, f func(context.Context)) {
	a.running.Add(1)
	go func() {
		defer a.running.Done()
		f(ctx)
	}()
}

// adopt takes a server under its wing that runs already.
func (a *Agent) adopt() error {
	p, err := a.server.Adopt()
	if err != nil {
		return fmt.Errorf("look for a running server: %w", err)
	}
	if p != nil {
		a.log.Info("adopted a running server", "pid", p.PID())
		a.st.process = p
		a.watchExit(p)
	}
	return nil
}
