// Package cluster is Haven's vocabulary: members, leaders, terms, positions in the WAL and the values that stand in
// the consensus store.
//
// It holds data and pure functions on data; it imports none of our packages, reads no clock and touches no file or
// socket. JSON field names are those of Patroni 4.1's layout (docs/reference/dcs-layout.md), so that Patroni's own
// tools read what Haven writes. The words are those of docs/glossary.md.
package cluster
