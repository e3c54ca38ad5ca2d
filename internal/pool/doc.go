// Package pool keeps the accounts of pools of server connections: who has which connection, who waits, and what is to be
// opened or closed next. It is pure: the time is a value, and nothing is connected, written or waited for here.
//
// It guarantees:
//   - A connection is lent to one waiter at a time, and to nobody once it is retired or being closed.
//   - No pool, database or user has more connections than its limits allow; those being opened and closed count.
//   - Waiters are served in the order in which they came, and none waits while its pool has a connection to lend, unless
//     all are held.
//   - Each waiter gets exactly one of: a connection, a failure, nothing because it left.
//
// It leaves to the caller to serialize the calls, to carry out each Step, and to say what came of it.
package pool
