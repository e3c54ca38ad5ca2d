// Package pooled lends server connections to clients: for a session, for a transaction, or for a statement. It is the
// part of the proxy that speaks PostgreSQL's protocol.
//
// It guarantees:
//   - Bytes of a server connection reach the client that it is lent to, and no other. A connection changes hands only in
//     one critical section that finds nothing owed, begun, unread or unwritten in either direction; whatever is not
//     understood ends it.
//   - A client that does not read, sends rubbish or half a message costs itself only.
//   - A success is passed on only if the server said so, a statement is sent again only if not a byte of it left this
//     process, or the server's last words prove that none was read, and an outcome that cannot be known is SQLSTATE 08007.
//   - No connection is lent whose server's admission has ended. Who has one then, in a session or an open transaction, keeps it
//     until the cluster cuts it, which it does at once.
//
// It leaves to the caller which server to connect to (Cluster), and to pgwire everything before the first statement.
//
// Two goroutines per pair: client.go reads the client and writes to the server, server.go reads the server and writes to
// the client. What they share is guarded by the server's mutex; lend.go is the only place where a connection changes hands.
package pooled
