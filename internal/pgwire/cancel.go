package pgwire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
)

// CancelOptions are how to reach the server of a cancel request: as its session was.
type CancelOptions struct {
	SSLMode SSLMode
	TLS     *tls.Config
	Host    string
}

// ErrCancelSent says that a cancel request may have been sent, and may be carried out at any later time.
var ErrCancelSent = errors.New("it may still be carried out")

// Cancel asks the server at the other end of a new connection to cancel what the session of that key does, and waits
// until it has closed the connection: by then it has sent the signal. The connection is closed in any case. Nobody says
// whether there was such a session. ErrCancelSent: it is not certain that nothing comes of it any more.
func Cancel(ctx context.Context, conn net.Conn, key CancelKey, o CancelOptions) error {
	defer conn.Close()
	err := bounded(ctx, conn, func() error {
		t, err := encryptToServer(conn, o.SSLMode, o.TLS, o.Host)
		if err != nil {
			return err
		}
		to := conn
		if t != nil {
			to = t
		}
		if _, err := to.Write(appendCancel(nil, key)); err != nil {
			return errors.Join(ErrCancelSent, err)
		}
		_, err = io.Copy(io.Discard, io.LimitReader(to, maxReply))
		if err == nil || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil // it is closed all the same
		}
		return errors.Join(ErrCancelSent, err)
	})
	if err != nil {
		return fmt.Errorf("cancel: %w", err)
	}
	return nil
}
