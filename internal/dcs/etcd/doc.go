// Package etcd is the consensus store on etcd v3: the client that implements dcs.Store, and the server that Haven runs
// inside its own process.
//
// The client keeps keys and values of Patroni 4.1's layout (docs/reference/dcs-layout.md) and adds haven/term and
// haven/events/<term, 20 digits> below the same prefix. Keys that it does not know are never touched.
//
// It guarantees, beyond what package dcs promises:
//   - Every call is bounded by its context and by Options.RetryTimeout, whichever ends first. An endpoint that does not
//     answer is left after two seconds at the latest, by a renewal after a tenth of the lease or, where answers are slow, a third, and
//     the next one is tried.
//   - An answer of a lower raft term than was seen before from the same etcd cluster is passed over: its member is stale.
//   - A renewal counts only with the same raft term and cluster id before, during and after its keepalive.
//   - A watch whose connection is silent for 2.5 s is reported as lost, even if TCP still stands.
//
// The server never forms a second cluster beside a living one: a member with an empty disk forms a cluster only after
// every other member of the list has said that its disk is empty too.
//
// It leaves to the caller which endpoints there are, what to write, and what to do while the store is unknown.
package etcd
