package pgwire

import "fmt"

// SSLMode is PgBouncer's client_tls_sslmode or server_tls_sslmode.
type SSLMode string

// Modes. To clients: disable (a request for TLS is answered with no), allow and prefer (as the client likes), require
// (plain is refused), verify-ca and verify-full (a client certificate of a known authority is required). To servers:
// disable, allow and prefer (TLS if the server has it; what it shows is not checked), require (TLS, not checked),
// verify-ca (its certificate comes from a known authority), verify-full (and names the host).
const (
	SSLDisable    SSLMode = "disable"
	SSLAllow      SSLMode = "allow"
	SSLPrefer     SSLMode = "prefer"
	SSLRequire    SSLMode = "require"
	SSLVerifyCA   SSLMode = "verify-ca"
	SSLVerifyFull SSLMode = "verify-full"
)

// ParseSSLMode reads a mode as it stands in a configuration.
func ParseSSLMode(s string) (SSLMode, error) {
	switch m := SSLMode(s); m {
	case SSLDisable, SSLAllow, SSLPrefer, SSLRequire, SSLVerifyCA, SSLVerifyFull:
		return m, nil
	}
	return "", fmt.Errorf("unknown mode %q: use disable, allow, prefer, require, verify-ca or verify-full", s)
}

// offers tells whether TLS is used if the other side likes to.
func (m SSLMode) offers() bool { return m != "" && m != SSLDisable }

// requires tells whether nothing goes without TLS.
func (m SSLMode) requires() bool { return m == SSLRequire || m.verifies() }

// verifies tells whether the other side's certificate has to be vouched for.
func (m SSLMode) verifies() bool { return m == SSLVerifyCA || m == SSLVerifyFull }
