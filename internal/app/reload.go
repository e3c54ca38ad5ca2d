package app

import (
	"github.com/havenha/haven/internal/config"
	"strings"
)

// Reload reads the configuration again and takes into use what may change. With any fault nothing changes.
func (n *Node) Reload() error {
	next, report := n.opt.Load()
	if !report.OK() {
		n.log.Error("the configuration has faults: the former one stays in force", "faults", report.String())
		return &ConfigError{Report: report}
	}
	for _, f := range report.Faults {
		n.log.Warn(f.String())
	}
	apply, restart := config.Diff(n.opt.Node, next)
	if len(apply)+len(restart) == 0 {
		n.log.Info("No local configuration items changed.")
	}
	if len(restart) > 0 {
		n.log.Warn("changed, but only a restart of haven takes it into use", "keys", strings.Join(restart, " "))
	}
	if err := n.opt.Relog(next.Log); err != nil {
		n.log.Error("the log could not be changed: it is written as before", "error", err)
	}
	if n.agent != nil && next.Postgres != nil {
		n.agent.Reload(next)
	}
	if n.proxy != nil && next.Proxy != nil {
		if err := n.proxy.Reload(next.Proxy); err != nil {
			return err
		}
	}
	if err := n.api.Reload(next.RESTAPI); err != nil {
		return err
	}
	n.opt.Node = next
	n.node.Store(next)
	n.log.Info("configuration reloaded", "applied", strings.Join(apply, " "))
	return nil
}
