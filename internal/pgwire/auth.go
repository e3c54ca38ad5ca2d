package pgwire

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
)

// Method is how a client proves who it is: PgBouncer's auth_type, or the method in a line of its HBA file.
type Method string

// Methods. Password and MD5 take any kind of stored secret that allows for them: with a SCRAM secret, MD5 asks for SCRAM
// as PostgreSQL does. SCRAM takes plain text and SCRAM secrets.
const (
	Trust    Method = "trust"
	Reject   Method = "reject"
	Password Method = "password" // in clear; PgBouncer's auth_type calls it plain
	MD5      Method = "md5"
	SCRAM    Method = "scram-sha-256"
	Cert     Method = "cert" // the common name of a client certificate is the user's
	Peer     Method = "peer" // Unix sockets: the user of the operating system has the user's name
)

// ParseMethod reads PgBouncer's auth_type. hba is not a method but says that rules have to be given, and is an error here;
// any is trust.
func ParseMethod(s string) (Method, error) {
	switch m := Method(s); m {
	case Trust, Reject, Password, MD5, SCRAM, Cert, Peer:
		return m, nil
	case "plain":
		return Password, nil
	case "any":
		return Trust, nil
	}
	return "", fmt.Errorf("unknown method %q: use scram-sha-256, md5, plain, cert, peer, trust or reject", s)
}

// ErrUnknownUser is what Secrets return for a user that they know to be absent. Any other error means that they do not
// know.
var ErrUnknownUser = errors.New("unknown user")

// Secrets look up what a user's password is compared with. An implementation may be asked by many at once.
type Secrets interface {
	Secret(ctx context.Context, user string) (Secret, error)
}

// First asks one after the other until one knows the user, as PgBouncer asks auth_file before auth_query.
func First(s ...Secrets) Secrets { return first(s) }

type first []Secrets

func (f first) Secret(ctx context.Context, user string) (Secret, error) {
	for _, s := range f {
		secret, err := s.Secret(ctx, user)
		if !errors.Is(err, ErrUnknownUser) {
			return secret, err
		}
	}
	return Secret{}, ErrUnknownUser
}

// AuthOptions are the rules by which clients are let in.
type AuthOptions struct {
	// Method holds for every client if there are no Rules.
	Method Method
	// Rules, if not nil, choose the method by connection, database, user and address (PgBouncer: auth_type hba).
	Rules *Rules
	// Secrets look up passwords. Trust, Cert and Peer ask them too, for a credential to log in to the server with, and
	// do without.
	Secrets Secrets
	// MockKey, if not nil, makes what unknown users are shown the same in all processes that share it, and after a
	// restart; else it is random.
	MockKey []byte
}

// Authenticator lets clients in by rules and secrets. It never changes; make a new one when the configuration does.
type Authenticator struct{ o AuthOptions }

// NewAuthenticator checks the options.
func NewAuthenticator(o AuthOptions) (*Authenticator, error) {
	if o.Rules == nil {
		if _, err := ParseMethod(string(o.Method)); err != nil {
			return nil, err
		}
		o.Method, _ = ParseMethod(string(o.Method))
	}
	if o.Secrets == nil {
		o.Secrets = first(nil) // knows nobody
	}
	if o.MockKey == nil {
		o.MockKey = make([]byte, 32)
		rand.Read(o.MockKey) // never fails
	}
	return &Authenticator{o}, nil
}

// method is what that client has to prove itself by. The error is for the client.
func (a *Authenticator) method(c candidate) (Method, *Error) {
	m := a.o.Method
	if a.o.Rules != nil {
		found, ok := a.o.Rules.match(c)
		if !ok {
			return "", c.refused("no line of the HBA file is for")
		}
		m = found
	}
	if m == Reject {
		return "", c.refused("the HBA file rejects")
	}
	return m, nil
}

// refused is the error of a client that is not let in whatever it proves.
func (c candidate) refused(what string) *Error {
	return &Error{Code: "28000", Message: fmt.Sprintf("%s host %q, user %q, database %q, %s",
		what, c.host(), c.user, c.database, c.encryption())}
}

// mock is the verifier that a user without a proper one is shown.
func (a *Authenticator) mock(user string) *verifier { return mockVerifier(a.o.MockKey, user) }
