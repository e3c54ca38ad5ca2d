package ha

import "github.com/havenha/haven/internal/cluster"

// Published puts the server's state into the words of the member key: while that action runs (None: none does), of a
// member that holds the leader key or does not, whose server was tried to be started in vain so many times.
func (s Server) Published(running Kind, leads bool, startFailures int) (cluster.State, cluster.Role) {
	role := s.role(leads)
	switch running {
	case Bootstrap:
		return cluster.StateInitdb, role
	case Clone:
		return cluster.StateCreatingReplica, role
	case RestartServer:
		return cluster.StateRestarting, role
	case Start, Rewind:
		return cluster.StateStarting, role
	case Switch, StopFast, Kill:
		return cluster.StateStopping, cluster.RoleDemoted
	}
	switch {
	case s.Probed:
		return cluster.StateRunning, role
	case s.Process == ProcessUp:
		return cluster.StateStarting, role
	case startFailures > 0: // that it ended is its crash, too
		return cluster.StateStartFailed, role
	case s.Crash != nil:
		return cluster.StateCrashed, role
	}
	return cluster.StateStopped, role
}

func (s Server) role(leads bool) cluster.Role {
	switch {
	case s.Disk == DiskEmpty || s.Disk == DiskUnfinished:
		return cluster.RoleUninitialized
	case s.Primary() && leads:
		return cluster.RolePrimary
	case s.RunningStandby() && leads && Remote(s.Upstream):
		return cluster.RoleStandbyLeader
	case s.MayWrite() || s.Process == ProcessDown && s.WasPrimary:
		return cluster.RoleDemoted
	}
	return cluster.RoleReplica
}
