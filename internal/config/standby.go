package config

import (
	"fmt"
	"net"
	"strings"

	"github.com/havenha/haven/internal/config/schema"
	"github.com/havenha/haven/internal/config/tree"
)

// StandbyCluster says of what other cluster this one is a standby: of a server, of an archive, or of both.
type StandbyCluster struct {
	Host, Port, SlotName string // Host empty: the archive only
	// Recovery are the settings of the standby leader's recovery: restore_command, archive_cleanup_command and
	// recovery_min_apply_delay, as far as they are given.
	Recovery map[string]string
}

// Name is what is shown of it: host, port and slot, or that it is an archive.
func (s StandbyCluster) Name() string {
	switch {
	case s.Host == "":
		return "archive"
	case s.SlotName == "":
		return net.JoinHostPort(s.Host, s.Port)
	}
	return net.JoinHostPort(s.Host, s.Port) + "/" + s.SlotName
}

// remoteMethods are the names in standby_cluster.create_replica_methods.
func (d Dynamic) remoteMethods() []string {
	section, err := tree.FromJSON(d.StandbyCluster, tree.Place{Note: "dynamic configuration"})
	if err != nil {
		return nil
	}
	return schema.StringsOf(section.Find("create_replica_methods"))
}

// IsStandby tells whether this is a standby cluster (see Standby).
func (d Dynamic) IsStandby() bool {
	_, is := d.Standby()
	return is
}

// Standby reads the section standby_cluster; false: this cluster is one of its own, since the section is absent or names none of
// host, port and restore_command (Patroni, standby cluster).
func (d Dynamic) Standby() (StandbyCluster, bool) {
	m, err := tree.Object(d.StandbyCluster)
	if err != nil {
		return StandbyCluster{}, false
	}
	text := func(key string) string {
		if m[key] == nil {
			return ""
		}
		return strings.TrimSpace(fmt.Sprint(m[key]))
	}
	s := StandbyCluster{Host: text("host"), Port: text("port"), SlotName: text("primary_slot_name"), Recovery: map[string]string{}}
	for _, key := range []string{"restore_command", "archive_cleanup_command", "recovery_min_apply_delay"} {
		if v := text(key); v != "" {
			s.Recovery[key] = v
		}
	}
	if s.Host == "" && s.Port == "" && s.Recovery["restore_command"] == "" {
		return StandbyCluster{}, false
	}
	if s.Host == "" && s.Port != "" {
		s.Host = "localhost"
	}
	if s.Port == "" {
		s.Port = "5432"
	}
	return s, true
}
