package app

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/havenha/haven/internal/agent"
	"github.com/havenha/haven/internal/bootclock"
)

// ErrUpgrade is what Run returns when the program is to be replaced: the server, its guard, keys and lease are left as they
// are, for the next program of this node to take up.
var ErrUpgrade = errors.New("the node goes on as another program")

// upgradeBefore is how far a leader's deadline must be away: by then the next program has to have renewed.
const upgradeBefore = 4 * time.Second

// upgradeCheck bounds the start of the next program to see whether it takes the configuration.
const upgradeCheck = 20 * time.Second

// Upgrade has Run return ErrUpgrade soon, unless this is no time for it; then it says why, and nothing has changed.
func (n *Node) Upgrade(ctx context.Context) error {
	if len(n.opt.Next) == 0 {
		return errors.New("it is not known how this program was started: restart it by hand")
	}
	if err := n.checkNext(ctx); err != nil {
		return err
	}
	if n.agent != nil {
		if task := n.agent.Status().Task; task != nil {
			return fmt.Errorf("%s is under way: try again when it is over", task.Kind)
		}
		if err := n.awaitRenewal(ctx); err != nil {
			return err
		}
	}
	n.log.Info("going on as another program", "program", n.opt.Next[0])
	n.upgrading.Store(true)
	n.leave(agent.ErrAbandon)
	return nil
}

// checkNext has the next program read the configuration.
func (n *Node) checkNext(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, upgradeCheck)
	defer cancel()
	cmd := exec.CommandContext(ctx, n.opt.Next[0], n.opt.Next[1:]...)
	cmd.Env = n.opt.Env
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s does not take this node's configuration (%w):\n%s", n.opt.Next[0], err, strings.TrimSpace(string(out)))
	}
	return nil
}

// awaitRenewal waits until a leader's deadline is far enough away.
func (n *Node) awaitRenewal(ctx context.Context) error {
	for end := time.Now().Add(2 * upgradeBefore); ; {
		s := n.agent.Status()
		left := s.Deadline.Sub(bootclock.Now())
		switch {
		case !s.Holds || left >= upgradeBefore:
			return nil
		case time.Now().After(end):
			return fmt.Errorf("this member leads, and has %s until its lease must be renewed: too little for another program to start (ttl is %s): hand leadership over first (haven switchover), or raise ttl",
				left.Round(100*time.Millisecond), s.Dynamic.TTL)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
