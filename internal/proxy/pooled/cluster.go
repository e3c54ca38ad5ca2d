package pooled

import (
	"context"
	"net"
)

// Cluster knows which server clients are to be led to.
type Cluster interface {
	// Connect opens a connection to the server that is to be used now, and waits while there is none, until ctx ends.
	// cut is called, once and from another goroutine, if the connection has to end at once; Connect's caller answers by
	// calling Leave soon.
	Connect(ctx context.Context, cut func()) (Seat, error)
	// Why says why there is no server at the moment; empty: there is one.
	Why() string
	// Unfit are the servers that get no new connections while others do; connections that they have are to be given up when nobody has them.
	Unfit() map[string]bool
}

// Seat is a place at a server, with a connection to it.
type Seat interface {
	Conn() net.Conn
	// Dial opens one more connection to the same server, for a cancel request or a question about this one.
	Dial(ctx context.Context) (net.Conn, error)
	Server() string
	// Primary tells whether the server is to be used as the primary.
	Primary() bool
	// Valid tells whether what the server was chosen for still holds. It is asked at each transaction.
	Valid() bool
	// Failed says that the server is not what it was taken for.
	Failed(why string)
	// Doubted says that a login has come to nothing, and that it is not known whether that is the server's fault. It looks
	// whether the server answers, and is Failed if not.
	Doubted(ctx context.Context, why string)
	// Leave ends the seat after its connection was closed.
	Leave(in, out int64)
}
