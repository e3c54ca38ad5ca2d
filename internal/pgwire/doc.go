// Package pgwire speaks the PostgreSQL protocol until the first ReadyForQuery, in both directions, for a pooler: Accept
// is the server's part towards a client, Login the client's part towards a server.
//
// It guarantees:
//   - Nothing is read ahead: what the connection yields after Accept or Login is exactly what the other side sent after
//     its part of the login, and bytes that stand behind an SSLRequest in plain never pass for bytes of the TLS session.
//   - Every message is bounded before memory is taken for it, every exchange in the number of its messages and, through
//     deadlines, in time. It starts no goroutine that outlives a call.
//   - Nobody who does not know a password learns whether a user exists, or what kind of password it has, from the
//     messages: the exchange for an unknown user is a whole SCRAM exchange which fails in the end. Comparisons of
//     secrets take the same time whatever they find. It holds in part for method md5: who has a SCRAM
//     secret is asked for SCRAM, everybody else, unknown users included, for MD5.
//   - A client that proves a password by SCRAM leaves the keys to log in with at a server which stores the same secret
//     (Credential), and no password.
//
// It leaves to the caller: what follows the login (ParameterStatus, BackendKeyData, ReadyForQuery; Append… makes them),
// limits of connections (AcceptOptions.Admit is the place for them), caching of secrets, and logging: errors are returned.
//
// The message formats are those of the manual, chapter 55 ("Frontend/Backend Protocol"); SCRAM is RFC 5802, 7677 and
// 5929 as the manual's section 55.3 ("SASL Authentication") narrows them.
package pgwire
