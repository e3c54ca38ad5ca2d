package pooled

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/havenha/haven/internal/pgwire"
	"github.com/havenha/haven/internal/postgres/pgtest"
)

// refusing is a server that refuses every login with that SQLSTATE.
func refusing(t *testing.T, code string) (address string, logins *atomic.Int32) {
	t.Helper()
	logins = &atomic.Int32{}
	address, wait := accepting(t, func(conn net.Conn, head []byte) {
		_, _ = conn.Write(pgwire.AppendErrorResponse(nil, &pgwire.Error{Code: code, Message: "no"}))
		_, _ = io.CopyN(io.Discard, conn, int64(head[3])-8)
		logins.Add(1)
	})
	t.Cleanup(wait)
	return address, logins
}

// TestACertificateThatIsNotAcceptedIsTold: it will not be accepted the next time either.
func TestACertificateThatIsNotAcceptedIsTold(t *testing.T) {
	config := selfSigned(t)
	address, wait := accepting(t, func(conn net.Conn, _ []byte) {
		_, _ = conn.Write([]byte("S"))
		_ = tls.Server(conn, config).Handshake()
	})
	t.Cleanup(wait)
	p := newPlace()
	p.admit(address)
	h := open(t, Transaction, p, func(o *Options) {
		o.ServerTLS.SSLMode, o.ServerTLS.TLS = pgwire.SSLVerifyCA, &tls.Config{RootCAs: x509.NewCertPool()}
	})
	conn := h.knock()
	pgtest.Must(t, conn.SetReadDeadline(time.Now().Add(patience)))
	told, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(told), "08P01") || !strings.Contains(string(told), "certificate is not accepted") {
		t.Errorf("%q, %v", told, err)
	}
}

// TestALoginThatTheServerRefusesIsTold as one of the proxy's, not of the client's: that has proved itself.
func TestALoginThatTheServerRefusesIsTold(t *testing.T) {
	address, _ := refusing(t, "28P01")
	p := newPlace()
	p.admit(address)
	conn := open(t, Transaction, p, nil).knock()
	pgtest.Must(t, conn.SetReadDeadline(time.Now().Add(patience)))
	told, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(told), "08P01") || !strings.Contains(string(told), "server login failed: no") {
		t.Errorf("%q, %v", told, err)
	}
}

// TestWhatARefusedLoginSaysOfTheServer: only a server that says that all of it is down is not what it was taken for. Other troubles that pass are
// those of one database, one user, or one moment: who waits goes on waiting.
func TestWhatARefusedLoginSaysOfTheServer(t *testing.T) {
	for code, down := range map[string]bool{
		"57P02": true, "57P03": true,
		"57P01": false, "57P04": false, "57P05": false, "53000": false, "53100": false, "53200": false, "53300": false, "53400": false,
	} {
		t.Run(code, func(t *testing.T) {
			address, logins := refusing(t, code)
			p := newPlace()
			p.admit(address)
			h := open(t, Transaction, p, nil)
			h.knock()
			pgtest.Eventually(t, "three logins", func() error {
				if logins.Load() < 3 {
					return errUnasked
				}
				return nil
			})
			if n := p.fails.Load(); (n > 0) != down {
				t.Errorf("%d times the server was taken for another", n)
			}
			if n := h.door.Snapshot()[0].ClientsWaiting; n != 1 {
				t.Errorf("%d clients wait", n)
			}
		})
	}
}
