package pgwire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"
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
	// Params are what the server reported of its settings (ParameterStatus), each once, in its order.
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
	// ErrCertificate: the server's certificate is not what SSLMode wants.
	ErrCertificate = errors.New("the server's certificate is not accepted")
	// ErrOwnCertificate: the server does not accept the certificate that it was shown.
	ErrOwnCertificate = errors.New("the server does not accept the certificate of this proxy")
	// ErrImposter: the server began a SCRAM exchange and did not prove that it knows the secret.
	ErrImposter = errors.New("the server did not prove that it knows the password")
)

// Login is the client's part of a login: TLS, startup packet, authentication, until the server is ready for the first
// command. The context bounds it. On an error the connection is closed.
//
// Deadlines of the connection are Login's own; afterwards there is none.
func Login(ctx context.Context, conn net.Conn, o LoginOptions) (*Server, error) {
	l := &login{o: &o, server: &Server{Conn: conn, Version: Version30}}
	if o.Version != 0 {
		l.server.Version = o.Version
	}
	err := bounded(ctx, conn, func() error { return l.run(conn) })
	if err != nil {
		l.server.Conn.Close()
		if refusesCertificate(err) {
			err = fmt.Errorf("%w: %w", ErrOwnCertificate, err)
		}
		return nil, fmt.Errorf("log in as %q: %w", o.User, err)
	}
	return l.server, nil
}

// login is one login at a server.
type login struct {
	o        *LoginOptions
	server   *Server
	scram    *scramClient // an exchange that was begun
	proved   bool         // the server has proved itself in it
	admitted bool         // AuthenticationOk came
}

func (l *login) run(conn net.Conn) error {
	t, err := encryptToServer(conn, l.o.SSLMode, l.o.TLS, l.o.Host)
	if err != nil {
		return err
	}
	if t != nil {
		state := t.ConnectionState()
		l.server.Conn, l.server.TLS = t, &state
	}
	params := []Param{{"user", l.o.User}}
	if l.o.Database != "" {
		params = append(params, Param{"database", l.o.Database})
	}
	packet := appendStartup(nil, l.server.Version, append(params, l.o.Params...))
	if len(packet)-4 > maxStartup {
		return fmt.Errorf("startup packet: %w", errTooLong)
	}
	if _, err := l.server.Conn.Write(packet); err != nil {
		return err
	}
	for range maxReplies {
		ready, err := l.step()
		if ready || err != nil {
			return err
		}
	}
	return errors.New("the server sends messages without end")
}

// step takes one message of the server's.
func (l *login) step() (ready bool, err error) {
	kind, body, err := readMessage(l.server.Conn, maxReply)
	if err != nil {
		return false, err
	}
	switch kind {
	case 'R':
		return false, l.authenticate(body)
	case 'E':
		return false, serverError(body)
	case 'N':
		return false, nil
	case 'v':
		return false, l.negotiate(body)
	}
	if !l.admitted {
		return false, fmt.Errorf("the server sends message %q before it has admitted us", kind)
	}
	switch kind {
	case 'S':
		return false, l.server.report(body)
	case 'K':
		return false, l.key(body)
	case 'Z':
		if len(body) != 1 || body[0] != Idle {
			return false, fmt.Errorf("the server is ready in state %q", body)
		}
		return true, nil
	}
	return false, fmt.Errorf("the server sends message %q during the login", kind)
}

// serverError is the content of an ErrorResponse.
func serverError(body []byte) error {
	e, err := ParseError(body)
	if err != nil {
		return err
	}
	return e
}

// report takes a ParameterStatus.
func (s *Server) report(body []byte) error {
	r := reader{b: body}
	p := Param{r.string(), r.string()}
	if r.failed {
		return fmt.Errorf("parameter status: %w", errTooShort)
	}
	for i := range s.Params {
		if s.Params[i].Name == p.Name {
			s.Params[i].Value = p.Value
			return nil
		}
	}
	s.Params = append(s.Params, p)
	return nil
}

// key takes a BackendKeyData.
func (l *login) key(body []byte) error {
	r := reader{b: body}
	key := CancelKey{PID: r.uint32(), Secret: r.b}
	if r.failed || len(key.Secret) < 4 || len(key.Secret) > maxCancelKey {
		return fmt.Errorf("the server's cancel key has %d bytes", len(key.Secret))
	}
	l.server.Key = &key
	return nil
}

// negotiate takes a NegotiateProtocolVersion: the server does not speak the version that we asked for.
func (l *login) negotiate(body []byte) error {
	r := reader{b: body}
	v, unknown := Version(r.uint32()), r.uint32()
	if r.failed || l.admitted {
		return errors.New("malformed negotiation of the protocol's version")
	}
	if v.Major() != 3 || v > l.server.Version || unknown != 0 {
		return fmt.Errorf("the server speaks protocol %s and does not know %d options; asked for was %s without any",
			v, unknown, l.server.Version)
	}
	l.server.Version = v
	return nil
}

// Terminate says good-bye to the server (so that it does not log a lost connection) and closes the connection.
func (s *Server) Terminate() error {
	s.Conn.SetDeadline(time.Now().Add(farewell))
	_, err := s.Conn.Write([]byte{'X', 0, 0, 0, 4})
	return errors.Join(err, s.Conn.Close())
}
