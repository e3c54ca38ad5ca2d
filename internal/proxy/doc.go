// Package proxy leads clients to the servers of a cluster: to the primary, or to the replicas. It passes bytes through
// as they are (plain TCP) and knows the protocol only far enough to ask a server whether it is there.
//
// It guarantees:
//   - A session reaches a primary only after the member itself said, in this leadership, that it is a writable primary.
//   - Sessions of two leaderships never exist at once: those of the older are reset before the newer admits any.
//   - What is unknown is not absent: while the consensus store does not answer, the admitted leadership stays.
//   - Connections wait while there is no server for them, bounded in time and in number, and go on the moment there is.
//   - Once a leadership is admitted nothing is polled (but with discover: rest), and no name is looked up to follow one.
//
// It leaves to the caller to watch the store, to validate the configuration, and to end Run by its context.
//
// The decisions are pure: picture.go (what the store shows), route.go (which server, or why none). board.go is the state
// that all connections share, follow.go moves it on, check.go asks servers, listener.go and session.go carry bytes.
package proxy
