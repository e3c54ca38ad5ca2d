package ha

// Codes of causes. They are stable: explain, metrics and documentation use them (docs/reference/causes.md).
const (
	CauseSwitchover = "switchover_requested"
	CauseFailover   = "failover_requested"
	CauseStopped    = "agent_stopped"     // the leader's agent was told to end
	CauseCrash      = "server_crashed"    // the leader's server ended by itself
	CauseDeadline   = "deadline_passed"   // the leader could not prove its leadership in time, and its server was ended
	CauseHung       = "server_hung"       // the leader's server answered no new connection, and was ended
	CauseDiskFull   = "disk_full"         // the leader's disk was full, and a standby had room
	CauseStart      = "start_failed"      // the leader's server could not be started again
	CauseVanished   = "key_vanished"      // the leader key was gone while its holder led
	CauseReleased   = "released"          // the leader gave the key up
	CauseAgentGone  = "agent_gone"        // lease ended, its host refuses connections
	CauseNotRenewed = "lease_not_renewed" // lease ended, its agent answers
	CauseSilent     = "host_silent"       // lease ended, nothing answers
	CauseOwnLease   = "own_lease_ended"   // this member led, and its lease ended
	CauseBootstrap  = "bootstrap"
	CauseNoLeader   = "no_leader" // nothing is known about an older leader
)
