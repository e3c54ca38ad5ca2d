// Package ha decides what a member does next. It is pure: no clock, no file, no socket, no log.
//
// Decide looks at a View (everything that was observed, and what is not known) and a Memory (what earlier decisions
// left behind) and returns one Decision: at most one Action of a closed set, with a typed Reason. The agent observes,
// calls Decide, acts, and records.
//
// What the caller owes it:
//   - Unknown is not absent. Where the store could not be read, Store.Known is false and the rest of it is ignored.
//   - Instants are readings of one boot clock; wall time is carried along for people and never compared.
//   - Lease.Deadline is the last proven renewal plus the granted TTL less a margin, never an assumption.
//   - A long action is reported as View.Task until it ends, and its Outcome is given to the next call once.
//   - An action that stops, rewinds, deletes or promotes carries the Basis it was decided on; the caller reads that
//     evidence again and refuses if it moved.
//
// What it guarantees, given that: the invariants in docs/invariants.md. The argument for each rule stands in DESIGN.md
// beside this file.
package ha
