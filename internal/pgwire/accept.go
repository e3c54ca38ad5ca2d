package pgwire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"time"
)

var errUnfinished = errors.New("pgwire: not implemented yet")

// AcceptOptions are what one listener does with its clients.
type AcceptOptions struct {
	// TLS is what is offered to clients; nil: none. ClientCAs are the authorities of client certificates. ClientAuth,
	// NextProtos and session tickets are set by Accept. Without effect on Unix sockets, as in PostgreSQL.
	TLS *tls.Config
	// SSLMode is PgBouncer's client_tls_sslmode. Empty: SSLDisable.
	SSLMode SSLMode
	// Auth decides how a client proves who it is.
	Auth *Authenticator
	// LoginTimeout ends a login that takes longer (PgBouncer: client_login_timeout); 0: only the context does.
	LoginTimeout time.Duration
	// Admit is asked when the startup packet is known (all of Client but Credential and Unsent), before the client has
	// to prove anything. An error refuses the client and is sent to it; nil: everybody is admitted. This is the place
	// to refuse replication connections, unknown databases, and clients above a limit. Cancel requests do not get here.
	Admit func(context.Context, *Client) *Error
}

// Validate tells what is contradictory in the options: a mode that wants TLS without a certificate, one that verifies
// certificates without authorities, no Auth.
func (o *AcceptOptions) Validate() error { return errUnfinished }

// Client is a client that has proved who it is, or a cancel request.
type Client struct {
	// Conn is the connection that was given to Accept, or the *tls.Conn over it. Close it after use.
	Conn net.Conn
	// Cancel is the key of a cancel request. If it is not nil, nothing else but Conn and TLS is set: answer nothing,
	// pass the request on, and close.
	Cancel *CancelKey

	User     string
	Database string // the user's name if the client gave none
	// Params are the other startup parameters in the client's order, `options` and `replication` included; those whose
	// name starts with _pq_. are not.
	Params []Param
	// Version is what was agreed on: what the client asked for, or the newest that is spoken here.
	Version Version
	// Replication tells that the client asks for a replication connection (physical or `database`). Accept does not
	// refuse it.
	Replication bool
	// Credential is what a server will take from us for that user.
	Credential Credential
	// TLS is the state of the connection; nil: not encrypted.
	TLS *tls.ConnectionState
	// Certificate is the client's, if it sent one that an authority of AcceptOptions.TLS vouches for; else nil.
	Certificate *x509.Certificate

	// Unsent are the last messages of the login (for SCRAM the server's proof, and AuthenticationOk). They are yet to be
	// sent, before ParameterStatus and the rest, or before an ErrorResponse: so the caller sends all of that at once.
	Unsent []byte
}

// Accept is the server's part of a login: TLS (by SSLRequest, or from the first byte as PostgreSQL 17's clients may),
// startup packet, negotiation of the version, authentication. A GSSENCRequest is answered with no.
//
// On an error the client was told why, where it could be told, and the connection is closed. A *Refused in the chain
// has what it was told. io.EOF in the chain means that the client closed without having sent a byte, as probes of
// load balancers do; os.ErrDeadlineExceeded that the login took too long.
//
// Deadlines of the connection are Accept's own; afterwards there is none.
func Accept(ctx context.Context, conn net.Conn, o AcceptOptions) (*Client, error) {
	return nil, errUnfinished
}
