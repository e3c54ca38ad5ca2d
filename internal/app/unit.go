package app

import (
	"context"
	"time"

	"github.com/havenha/haven/internal/doctor"
)

// warnOfUnit says so when the death of this process would take the server with it: systemd ends all processes of a unit
// with its first one, unless the unit says otherwise (systemd.kill(5)).
func (n *Node) warnOfUnit(ctx context.Context) error {
	if n.server == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	host := doctor.RealHost()
	if mode := host.KillMode(ctx); mode != "" && mode != "process" && mode != "none" {
		n.log.Warn("the death of this process would take the server with it: set KillMode=process in its unit", "unit", host.Unit, "kill_mode", mode)
	}
	return nil
}
