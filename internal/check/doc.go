// Package check judges what the clients of a cluster saw: a history of operations, the faults made meanwhile, and what
// stood in the database once all had healed.
//
// It guarantees that the same history always gets the same report, that a violation is named with the operations that
// show it, and that what it cannot decide is called inconclusive, never a pass. It is pure: it reads no clock and no
// file. It leaves recording to drill, files to journal, and it judges only what the history holds: a cluster is not
// proven right by it. The format of a history is told in docs/reference/history.md.
package check
