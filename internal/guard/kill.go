package guard

import (
	"errors"
	"os"
	"time"

	"github.com/havenha/haven/internal/postgres/processes"
	"golang.org/x/sys/unix"
)

// killing is the end of a server that is under way.
type killing struct {
	reason string
	rounds int
	found  bool // there is something to end, or it cannot be told
}

// pause is how long to wait before the next look: short at first, since a busy backend may be committing.
func (k *killing) pause() time.Duration {
	if k.rounds < 200 {
		return time.Millisecond
	}
	return 20 * time.Millisecond
}

// kill begins to end every process of the server, and goes on until none is left.
func (c *core) kill(reason string) {
	if c.killing != nil {
		return
	}
	c.killing = &killing{reason: reason}
	if c.postmaster != nil {
		c.foundSome([]int{c.postmaster.pid})
		if err := c.postmaster.kill(); err != nil { // first, so that it starts nothing new
			c.log.Error("the postmaster could not be killed", "pid", c.postmaster.pid, "error", err)
		}
	}
	c.state.Killing, c.state.Deadline = true, 0
	if err := c.alarm.set(0); err != nil {
		c.log.Error("the alarm could not be put off", "error", err)
	}
	c.strike()
}

// strike kills all that is left, and ends the killing when that is nothing.
func (c *core) strike() {
	k := c.killing
	if k == nil {
		return
	}
	k.rounds++
	killDescendants()
	c.reap()
	left, err := c.remaining()
	if len(left) > 0 || err != nil {
		c.foundSome(left)
	}
	if err == nil && len(left) == 0 && c.postmaster == nil {
		c.verified()
		return
	}
	for _, pid := range left {
		if serr := c.state.Target.Signal(pid, unix.SIGKILL); serr != nil {
			err = errors.Join(err, serr)
		}
	}
	if err != nil || k.rounds%1000 == 0 {
		c.report(left, err)
	}
}

// foundSome notes once that there is something to end.
func (c *core) foundSome(pids []int) {
	if k := c.killing; !k.found {
		k.found = true
		c.state.Killed = &Killed{Reason: k.reason, At: time.Now()}
		c.log.Warn("ending every process of the server", "reason", k.reason, "pids", pids)
	}
}

// report says of a server that does not end why, as far as is known.
func (c *core) report(left []int, err error) {
	text := processes.Describe(left)
	if err != nil {
		text += ": " + err.Error()
	}
	if c.state.Killed.Left != text {
		now := *c.state.Killed // a copy: replies that are being written hold the former
		now.Left = text
		c.state.Killed = &now
		c.log.Error("the server has not ended", "left", text)
	}
}

func (c *core) verified() {
	k := c.killing
	c.killing, c.state.Killing = nil, false
	c.generation, c.armedBy = 0, 0
	c.letDogGo()
	if !k.found {
		return
	}
	now := *c.state.Killed
	now.Verified, now.Left = time.Now(), ""
	c.state.Killed = &now
	c.log.Warn("no process of the server is left", "rounds", k.rounds)
}

// killDescendants kills what was started by the server and is below us, also what has another program by now, such as an
// archive command. It looks into /proc only, and so does not wait for a disk.
func killDescendants() {
	pids, err := processes.Descendants(os.Getpid())
	if err != nil {
		return // the look at the server's processes will say so too
	}
	for _, pid := range pids {
		_ = processes.KillDescendant(pid, os.Getpid()) // what is left is found again
	}
}

// remaining are the living processes of the server, and all below us.
func (c *core) remaining() ([]int, error) {
	left, err := processes.Descendants(os.Getpid())
	if err != nil || c.state.Target == nil {
		return left, err
	}
	standing, err := c.state.Target.List()
	return append(left, standing...), err
}
