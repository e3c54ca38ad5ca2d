package app

import (
	"context"
	"errors"
	"fmt"

	"github.com/havenha/haven/internal/guard"
)

// openGuard connects the node to its guard process where haven.guard is on; that there is none ends the start. A guard that an earlier run left is taken over;
// with the guard switched off, it is let go of, since nobody would move its deadline.
func (n *Node) openGuard(context.Context) error {
	if n.server == nil {
		return nil
	}
	o := guard.Options{Dir: n.opt.Node.Dir(), Log: n.log.With("component", "guard")}
	if !n.opt.Node.Haven.Guard {
		if err := guard.Retire(o); err != nil {
			return &PreconditionError{fmt.Errorf("haven.guard is off, but a guard process runs and cannot be let go of: %w", err)}
		}
		return nil
	}
	link, _, err := guard.Open(o)
	if errors.Is(err, guard.ErrProtocol) { // it says what to do
		return &PreconditionError{fmt.Errorf("haven.guard is on: %w", err)}
	}
	if err != nil {
		return &PreconditionError{fmt.Errorf("haven.guard is on, but there is no guard process, and without one this node must not lead: %w: mend that (guard.log in %s may say more), or set haven.guard off", err, o.Dir)}
	}
	n.guard = link
	n.stack.push("guard", link.Close)
	n.server.LaunchBy(link)
	return nil
}
