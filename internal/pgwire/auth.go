package pgwire

import (
	"context"
	"errors"
)

// Method is how a client proves who it is: PgBouncer's auth_type, or the last word of a line of its HBA file.
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

// ParseMethod reads PgBouncer's auth_type; hba is not a method but says that rules have to be given. any is trust.
func ParseMethod(s string) (Method, error) { return "", errUnfinished }

// ErrUnknownUser is what Secrets return for a user that they know to be absent. Any other error means that they do not know.
var ErrUnknownUser = errors.New("unknown user")

// Secrets look up what a user's password is compared with. An implementation may be asked by many at once.
type Secrets interface {
	Secret(ctx context.Context, user string) (Secret, error)
}

// First asks one after the other until one knows the user, as PgBouncer asks auth_file before auth_query.
func First(s ...Secrets) Secrets { return nil }

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
func NewAuthenticator(o AuthOptions) (*Authenticator, error) { return nil, errUnfinished }

// Rules are the lines of an HBA file; the first that matches decides.
type Rules struct{}

// ParseRules reads a file in the format of PgBouncer's auth_hba_file, which is that of pg_hba.conf without names of
// hosts and groups. file is for error texts. All faults are reported, each with its line; with one, there are no rules.
func ParseRules(file, text string) (*Rules, error) { return nil, errUnfinished }
