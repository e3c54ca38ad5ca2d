// Package sim is a deterministic world for ha.Decide: members with agents, PostgreSQL servers, disks and clocks, an etcd
// and a network, all modelled, in virtual time. It is pure: one seed gives one history, byte for byte.
//
// The decisions are the product's own. What carries them out is a model of the agent: the same order of steps, the same
// evidence read again, the same staleness, with a possible crash, freeze or lost message between any two steps. The
// model of PostgreSQL and etcd does what was measured of them, the unpleasant included: processes that outlive their
// postmaster and go on acknowledging, commits released by emptying synchronous_standby_names, a restarted standby that
// tells less than it holds, a deposed etcd leader that answers keepalives.
//
// It guarantees that the invariants of docs/invariants.md are looked at after every event (invariants.go says in which
// words), and that a run ends. It leaves to the caller to choose seeds, scenarios or schedules, and to judge coverage.
//
// Not modelled: Patroni members, cascades, archives, failsafe mode, scheduled requests, SQL beyond a commit.
package sim
