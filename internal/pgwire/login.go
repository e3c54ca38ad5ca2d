package pgwire

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
)

// LoginOptions are how to log in to a server.
type LoginOptions struct {
	User     string
	Database string // empty: the server takes the user's name
	// Params are further startup parameters: client_encoding, application_name, options, …
	Params []Param
	// Version to ask for; 0: Version30. A server that speaks only an older one says so, and that holds.
	Version Version

	// SSLMode is PgBouncer's server_tls_sslmode. Empty: SSLDisable. Without effect on Unix sockets.
	SSLMode SSLMode
	// TLS has RootCAs and, if the server is to be shown one, our certificate; nil: the system's authorities, none. What
	// is verified follows from SSLMode, not from the configuration.
	TLS *tls.Config
	// Host is the server's name for verify-full and for SNI.
	Host string

	Credential Credential
}

// Server is a session at a server that waits for its first command, outside of a transaction.
type Server struct {
	// Conn is the connection that was given to Login, or the *tls.Conn over it.
	Conn    net.Conn
	Version Version
	// Params are what the server reported of its settings (ParameterStatus), in its order.
	Params []Param
	// Key cancels the session's statements; nil: the server gave none.
	Key *CancelKey
	// TLS is the state of the connection; nil: not encrypted.
	TLS *tls.ConnectionState
}

// Errors of Login besides what the server says (an *Error in the chain, to be passed on to the client as it is).
var (
	// ErrCredential: the server asks for a proof that the credential does not allow for: of another password than the
	// client's (the secret was changed, or is not the same at that server), or of another kind.
	ErrCredential = errors.New("the credential does not serve this server")
	// ErrNoTLS: SSLMode wants TLS, and the server has none.
	ErrNoTLS = errors.New("the server has no TLS")
	// ErrImposter: the server could not prove that it knows the secret, or did not want to.
	ErrImposter = errors.New("the server did not prove that it knows the password")
)

// Login is the client's part of a login: TLS, startup packet, authentication, until the server is ready for the first command.
// The context bounds it. On an error the connection is closed.
//
// Deadlines of the connection are Login's own; afterwards there is none.
func Login(ctx context.Context, conn net.Conn, o LoginOptions) (*Server, error) {
	return nil, errUnfinished
}

// Terminate says good-bye to the server (so that it does not log a lost connection) and closes the connection.
func (s *Server) Terminate() error { return errUnfinished }

// DefaultAuthQuery is PgBouncer's auth_query.
const DefaultAuthQuery = "SELECT usename, passwd FROM pg_shadow WHERE usename=$1"

// QuerySecret runs PgBouncer's auth_query with the name as its only parameter: the second column of the first row is the
// secret, null means none. ErrUnknownUser: the query found no row. After that, or an *Error of severity ERROR, the
// session can be used again; after any other error it cannot, and the caller closes it.
func QuerySecret(ctx context.Context, s *Server, query, user string) (Secret, error) {
	return Secret{}, errUnfinished
}

// CancelOptions are how to reach the server of a cancel request: as its session was.
type CancelOptions struct {
	SSLMode SSLMode
	TLS     *tls.Config
	Host    string
}

// Cancel asks the server at the other end of a new connection to cancel what the session of that key does, and waits until it
// has closed the connection: by then it has sent the signal. The connection is closed in any case. Nobody says
// whether there was such a session.
func Cancel(ctx context.Context, conn net.Conn, key CancelKey, o CancelOptions) error {
	return errUnfinished
}
