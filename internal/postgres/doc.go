// Package postgres is the local PostgreSQL instance: its processes, control data, configuration files, probes, copies,
// rewind and promotion, for PostgreSQL 13 to 18 on Linux.
//
// Guarantees:
//   - Everything of PostgreSQL runs as Options.RunAs, in a session of its own, and outlives us.
//   - "Stopped" and "killed" mean that every process of the server is gone, not only the postmaster.
//   - Files are replaced atomically and durably (temporary file, fsync, rename, fsync of the directory).
//   - A data directory that holds data is never emptied; a copy goes only into an absent or empty directory, or into
//     one that bears our own marker of an unfinished copy.
//   - No password is written to a log, a command line or an error text.
//
// It leaves to the caller to decide when any of this is to be done, who the upstream is, and which settings hold for a
// role; in particular nothing here knows of leases or terms. Methods may be called from several goroutines, but two
// long actions (InitDB, Clone, Rewind, Start, Stop, Kill, MoveAside) must not run at the same time. Close ends the
// goroutines that watch a server; it does not stop the server.
package postgres
