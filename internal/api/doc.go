// Package api serves a node's REST interface and calls that of other nodes.
//
// The interface is Patroni's (its documentation, REST API), so that load balancers, monitoring and Patroni's own tools
// work with it unchanged; GET /haven/status is ours. It guarantees that a role check answers 200 only for what the
// server itself said at that moment: a server that does not answer is never a primary, and a member whose leadership is
// not proven, or whose term is not promoted yet, is none either.
//
// It leaves to the caller what the node knows of itself (Source), and the doing: an accepted switchover is a key in the
// consensus store, which the leader's agent acts upon.
package api
