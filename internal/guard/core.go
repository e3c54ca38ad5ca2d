package guard

import (
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/havenha/haven/internal/bootclock"
	"github.com/havenha/haven/internal/cluster"
)

// idleAfter is how long a guard without agent and server stays.
const idleAfter = 30 * time.Second

// core is all that the guard knows. One goroutine owns it, which never waits for a disk or a peer except in looking for
// the processes of a server, and for that only after the first blow.
type core struct {
	log   *slog.Logger
	alarm *alarm

	requests chan request
	left     chan int64 // connections that have ended
	children <-chan os.Signal
	gone     chan int                             // pids of adopted postmasters that have ended
	become   func(program string, l legacy) error // replaces the program, with what it is to know; returns only when it fails

	state      State
	postmaster *handle // on the first process of the server; nil: none runs
	generation int64
	armedBy    int64 // connection that has set generation

	connections map[int64]bool
	agent       int64 // connection of the present agent; 0: none
	killing     *killing
	dog         *dog // nil: no watchdog is open
	ended       bool
}

// request is a Request with its way back.
type request struct {
	Request
	connection int64
	pid        int // of the peer
	reply      chan Reply
}

func newCore(log *slog.Logger, a *alarm, children <-chan os.Signal) *core {
	return &core{
		log: log, alarm: a, children: children, requests: make(chan request), left: make(chan int64), gone: make(chan int, 1),
		connections: map[int64]bool{}, state: State{PID: os.Getpid(), Program: programOf(os.Getpid())},
	}
}

// run returns when there is nothing to guard.
func (c *core) run() {
	defer c.letDogGo()
	idle := time.NewTimer(idleAfter)
	for !c.ended {
		var again <-chan time.Time
		if c.killing != nil {
			again = time.After(c.killing.pause())
		}
		select {
		case r := <-c.requests:
			r.reply <- c.serve(r)
		case id := <-c.left:
			delete(c.connections, id)
			idle.Reset(idleAfter)
		case <-c.children:
			c.reap()
		case pid := <-c.gone:
			c.exited(pid, unknownStatus)
		case <-c.alarm.ring:
			c.expire()
		case <-again:
			c.strike()
		case <-idle.C:
			c.ended = len(c.connections) == 0 && c.nothingLeft()
			idle.Reset(idleAfter)
		}
	}
}

// nothingLeft tells that no server runs and no process of one is left. What cannot be known is not nothing.
func (c *core) nothingLeft() bool {
	c.noticeEnd()
	if c.postmaster != nil || c.killing != nil {
		return false
	}
	left, err := c.remaining()
	return err == nil && len(left) == 0
}

func (c *core) serve(r request) Reply {
	c.connections[r.connection] = true
	reply := Reply{Protocol: Protocol}
	switch {
	case r.Protocol != Protocol:
		reply.Error = fmt.Sprintf("the guard (process %d) speaks version %d of its protocol, and was asked in version %d", os.Getpid(), Protocol, r.Protocol)
	case r.Op == opState:
	case r.Op == opHello:
		c.agent = r.connection
		c.log.Info("an agent has connected", "deadline_in", c.untilDeadline())
	case r.connection != c.agent:
		reply.Error, reply.TakenOver = "another agent has taken the guard over", true
	case r.Op == opBecome:
		reply.Error = c.renew(r.pid).Error()
	default:
		if err := c.perform(r.Request); err != nil {
			reply.Error = err.Error()
		}
	}
	reply.State, reply.Ends = c.state, c.ended
	return reply
}

func (c *core) perform(r Request) error {
	switch {
	case r.Op == opStart && r.Command != nil:
		return c.start(*r.Command)
	case r.Op == opArm && r.Server != nil:
		return c.arm(r)
	case r.Op == opDisarm:
		return c.disarm()
	case r.Op == opKill:
		if r.Server != nil {
			c.state.Target = r.Server
		}
		c.kill(r.Reason)
		return nil
	case r.Op == opBye:
		c.ended = c.nothingLeft()
		return nil
	}
	return fmt.Errorf("there is no request %q, or it lacks something", r.Op)
}

func (c *core) untilDeadline() time.Duration {
	if c.state.Deadline == 0 {
		return 0
	}
	return c.state.Deadline.Sub(bootclock.Now()).Round(time.Millisecond)
}

// arm sets the deadline. One that has passed is no protection: it is refused, and what was set stays in force.
func (c *core) arm(r Request) error {
	switch now := bootclock.Now(); {
	case c.killing != nil:
		return fmt.Errorf("the server is being ended: %s", c.killing.reason)
	case c.expired(now):
		c.expire() // nobody may be faster than the alarm
		return fmt.Errorf("the deadline before this one has passed")
	case !now.Before(r.Deadline):
		return fmt.Errorf("the deadline passed %s ago", now.Sub(r.Deadline))
	case r.Generation < c.generation && c.armedBy == c.agent:
		return fmt.Errorf("a deadline of generation %d, after one of generation %d", r.Generation, c.generation)
	}
	c.noticeEnd()
	deadline := r.Deadline
	if r.Generation == c.generation {
		deadline = max(deadline, c.state.Deadline)
	}
	reset, err := c.feed(r.Watchdog)
	if err != nil {
		return err
	}
	if reset != 0 {
		deadline = min(deadline, reset)
	}
	if err := c.alarm.set(deadline); err != nil {
		return err
	}
	c.state.Target, c.generation, c.armedBy, c.state.Deadline = r.Server, r.Generation, c.agent, deadline
	c.adopt()
	return nil
}

func (c *core) expired(now cluster.Instant) bool {
	return c.state.Deadline != 0 && !now.Before(c.state.Deadline)
}

func (c *core) disarm() error {
	if c.expired(bootclock.Now()) {
		c.expire()
	}
	if c.killing != nil {
		return fmt.Errorf("the server is being ended: %s", c.killing.reason)
	}
	c.state.Deadline, c.generation, c.armedBy = 0, 0, 0
	c.letDogGo()
	return c.alarm.set(0)
}

// expire ends the server if the deadline has passed.
func (c *core) expire() {
	if c.expired(bootclock.Now()) {
		c.kill(fmt.Sprintf("the lease was not renewed in time: its deadline passed %s ago", bootclock.Now().Sub(c.state.Deadline).Round(time.Microsecond)))
	}
}
