package app

import (
	"errors"
	"strings"

	"github.com/havenha/haven/internal/config"
)

// Reload reads the configuration again and takes into use what may change. With any fault nothing changes. What goes wrong is logged.
func (n *Node) Reload() error {
	n.reloading.Lock()
	defer n.reloading.Unlock()
	next, apply, restart, report := config.Reload(n.node.Load())
	if next == nil {
		n.log.Error("the configuration has faults: the former one stays in force", "faults", report.String())
		return &ConfigError{Report: report}
	}
	for _, f := range report.Faults {
		n.log.Warn(f.String())
	}
	if len(apply)+len(restart) == 0 {
		n.log.Info("No local configuration items changed.")
	}
	if len(restart) > 0 {
		n.log.Warn("changed, but only a restart of haven takes it into use", "keys", strings.Join(restart, " "))
	}
	if err := n.apply(next); err != nil {
		n.log.Error("the configuration was not taken into use as a whole: mend the cause, and reload again", "error", err)
		return err
	}
	n.log.Info("configuration reloaded", "applied", strings.Join(apply, " "))
	return nil
}

// apply hands a new configuration on: first to what opens files and ports, which may fail.
func (n *Node) apply(next *config.Node) error {
	transport, err := peerTransport(next)
	if err != nil {
		return err
	}
	if err := n.api.Reload(next.RESTAPI); err != nil {
		return err
	}
	if n.proxy != nil && next.Proxy != nil {
		if err := n.proxy.Reload(next.Proxy); err != nil {
			return errors.Join(err, n.api.Reload(n.node.Load().RESTAPI))
		}
	}
	n.roads.Store(transport)
	if n.server != nil && next.Postgres != nil {
		n.server.SetLogins(logins(next.Postgres))
	}
	if err := n.opt.Relog(next.Log); err != nil {
		n.log.Error("the log could not be changed: it is written as before", "error", err)
	}
	n.node.Store(next)
	if n.agent != nil && next.Postgres != nil {
		n.agent.Reload(next)
	}
	return nil
}
