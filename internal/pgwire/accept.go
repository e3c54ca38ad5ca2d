package pgwire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

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
func (o *AcceptOptions) Validate() error {
	if o.SSLMode != "" {
		if _, err := ParseSSLMode(string(o.SSLMode)); err != nil {
			return err
		}
	}
	switch {
	case o.Auth == nil:
		return errors.New("nothing says how clients prove who they are")
	case o.TLS == nil && o.SSLMode.offers():
		return fmt.Errorf("mode %s needs a certificate and its key", o.SSLMode)
	case o.SSLMode.verifies() && o.TLS.ClientCAs == nil:
		return fmt.Errorf("mode %s needs the authorities of the clients' certificates", o.SSLMode)
	}
	return nil
}

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
// load balancers do; io.ErrUnexpectedEOF that it left in between, as psql does to ask its user for a password;
// os.ErrDeadlineExceeded that the login took too long.
//
// Deadlines of the connection are Accept's own; afterwards there is none.
func Accept(ctx context.Context, conn net.Conn, o AcceptOptions) (*Client, error) {
	if o.LoginTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.LoginTimeout)
		defer cancel()
	}
	a := &acceptance{o: &o, raw: conn, client: &Client{Conn: conn}}
	_, a.local = conn.RemoteAddr().(*net.UnixAddr)
	err := bounded(ctx, conn, func() error { return a.run(ctx) })
	if err != nil {
		a.farewell(err)
		a.client.Conn.Close()
		return nil, err
	}
	return a.client, nil
}

// acceptance is one login of a client.
type acceptance struct {
	o      *AcceptOptions
	raw    net.Conn
	local  bool // a Unix socket
	client *Client
	leaf   *x509.Certificate // ours, which the client was shown
	known  bool              // the client speaks the protocol: it understands an ErrorResponse
	out    []byte            // not sent yet
}

// alpn is the name of the protocol in TLS.
const alpn = "postgresql"

func (a *acceptance) run(ctx context.Context) error {
	if err := a.open(); err != nil {
		return fmt.Errorf("startup: %w", err)
	}
	if a.client.Cancel != nil {
		return nil
	}
	if a.o.Admit != nil {
		if e := a.o.Admit(ctx, a.client); e != nil {
			return refused(e, e)
		}
	}
	if err := a.authenticate(ctx); err != nil {
		return fmt.Errorf("authenticate user %q: %w", a.client.User, err)
	}
	a.client.Unsent = a.out
	return nil
}

// open reads packets until one is a startup packet or a cancel request. Each kind of encryption can be asked for once.
func (a *acceptance) open() error {
	ssl, gss := false, false // asked for
	for round := 0; ; round++ {
		var first [1]byte
		if _, err := io.ReadFull(a.client.Conn, first[:]); err != nil {
			if round > 0 {
				err = cut(err)
			}
			return err
		}
		if first[0] == tlsRecord && round == 0 {
			if err := a.encryptDirectly(first[0]); err != nil {
				return err
			}
			continue
		}
		code, rest, err := readOpening(a.client.Conn, first[0])
		if err != nil {
			return err
		}
		switch {
		case code == codeCancel:
			a.client.Cancel, err = parseCancel(rest)
			return err
		case code == codeSSL && a.client.TLS == nil && len(rest) == 0 && !ssl:
			ssl = true
			err = a.answerSSL()
		case code == codeGSS && a.client.TLS == nil && len(rest) == 0 && !gss:
			gss = true
			_, err = a.client.Conn.Write([]byte{'N'})
		default:
			return a.start(Version(code), rest)
		}
		if err != nil {
			return err
		}
	}
}

// start reads the startup packet.
func (a *acceptance) start(v Version, body []byte) error {
	a.known = true
	spoken, err := agreed(v)
	if err != nil {
		return refused(&Error{Code: "0A000", Message: fmt.Sprintf(
			"unsupported frontend protocol %s: server supports %s to %s", v, Version30, Version32)}, nil)
	}
	s, told := parseStartup(body)
	if told != nil {
		return refused(told, nil)
	}
	if a.o.SSLMode.requires() && a.client.TLS == nil && !a.local {
		return refused(&Error{Code: "28000", Message: "TLS is required", Hint: "Connect with sslmode=require or stronger."}, nil)
	}
	c := a.client
	c.User, c.Database, c.Params, c.Version, c.Replication = s.user, s.database, s.params, spoken, s.replication
	if spoken != v || len(s.unknown) > 0 {
		a.out = appendNegotiation(a.out, spoken, s.unknown)
	}
	return nil
}

// refused is an error of which the client is told a part. A reason of nil: all.
func refused(told *Error, reason error) *Refused {
	if reason == nil {
		reason = told
	}
	return &Refused{Told: told, Reason: reason}
}

// malformed is a message of the client's that cannot be understood.
func malformed(reason error) *Refused {
	return refused(&Error{Code: "08P01", Message: reason.Error()}, nil)
}

// farewell tells the client why it is not let in, if it is still there.
func (a *acceptance) farewell(err error) {
	var r *Refused
	var told *Error
	switch {
	case errors.As(err, &r):
		told = r.Told
	case a.known && errors.Is(err, os.ErrDeadlineExceeded):
		told = &Error{Code: "57014", Message: "canceling authentication due to timeout"}
	default:
		return
	}
	a.raw.SetDeadline(time.Now().Add(farewell))
	// An error here changes nothing: the connection is about to be closed.
	_, _ = a.client.Conn.Write(AppendErrorResponse(a.out, told))
}

// send sends what is to be sent, with another message, at once.
func (a *acceptance) send(message []byte) error {
	_, err := a.client.Conn.Write(append(a.out, message...))
	a.out = nil
	return err
}
