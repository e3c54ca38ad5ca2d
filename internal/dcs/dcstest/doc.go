// Package dcstest holds every implementation of dcs.Store to what package dcs promises.
//
// Run is the conformance suite; Start and StartEtcd run the distribution's own etcd as a process, which is stopped and
// whose data are removed when the test ends. It leaves to the caller faults that only one implementation knows.
package dcstest
