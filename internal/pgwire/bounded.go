package pgwire

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"time"
)

// farewell is how long a last message may take when the time for the exchange itself is over.
const farewell = time.Second

// bounded runs an exchange on a connection until the context ends, and leaves the connection without a deadline.
func bounded(ctx context.Context, conn net.Conn, exchange func() error) error {
	deadline, _ := ctx.Deadline() // the zero time is no deadline
	conn.SetDeadline(deadline)
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		conn.SetDeadline(time.Unix(1, 0))
		close(ended)
	})
	err := exchange()
	if errors.Is(err, os.ErrDeadlineExceeded) && !deadline.IsZero() && !time.Now().Before(deadline) {
		<-ctx.Done() // its own timer may come a little later; before the deadline, the error is that of another connection
	}
	if !stop() {
		<-ended
		if err == nil {
			err = context.Cause(ctx)
		}
	}
	switch {
	case err == nil:
		return conn.SetDeadline(time.Time{})
	case ctx.Err() != nil:
		return fmt.Errorf("%w (%w)", err, context.Cause(ctx))
	}
	return err
}
