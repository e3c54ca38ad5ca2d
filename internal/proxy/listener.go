package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/havenha/haven/internal/config"
	"github.com/havenha/haven/internal/proxy/addresses"
	"github.com/havenha/haven/internal/proxy/listen"
	"github.com/havenha/haven/internal/proxy/pooled"
)

// maxWaiting bounds the connections of one listener that wait.
const maxWaiting = 5000

var (
	errTooMany  = errors.New("too many connections wait")
	errHeld     = errors.New("no server within hold_timeout")
	errDeparted = errors.New("the client left while it waited")
)

// listener accepts connections on the addresses of one listen setting.
type listener struct {
	board   *board
	ledger  *ledger
	log     *slog.Logger
	sockets []net.Listener
	stop    context.CancelFunc
	tasks   sync.WaitGroup
	buffers sync.Pool    // of bytes that pass in mode tcp
	door    *pooled.Door // of the pooled modes; nil: tcp
}

func newListener(b *board, c config.Listener, log *slog.Logger) (*listener, error) {
	sockets, err := listen.Open(c.Listen, listen.Unix{Mode: c.SocketMode, Group: c.SocketGroup})
	if err != nil {
		return nil, err
	}
	l := &listener{board: b, ledger: newLedger(c), log: log.With("listener", c.Listen), sockets: sockets}
	return l, nil
}

// start serves until ctx ends or close is called.
func (l *listener) start(ctx context.Context) {
	ctx, l.stop = context.WithCancel(ctx)
	for _, s := range l.sockets {
		l.tasks.Go(func() { l.accept(ctx, s) })
	}
	l.tasks.Go(func() { l.endIdle(ctx) })
	l.tasks.Go(func() { l.dismiss(ctx) })
}

// close stops listening, resets the sessions, and waits until all is done.
func (l *listener) close() {
	listen.Close(l.sockets)
	if l.stop != nil {
		l.stop()
	}
	for _, s := range l.board.retire(l.ledger) {
		s.reset()
	}
	if l.door != nil {
		l.door.Close()
	}
	l.tasks.Wait()
}

func (l *listener) accept(ctx context.Context, from net.Listener) {
	var pause time.Duration
	for {
		conn, err := from.Accept()
		if err == nil {
			pause = 0
			l.tasks.Go(func() { l.serve(ctx, conn) })
			continue
		}
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			return
		}
		// Out of file descriptors, for instance: that passes, and the queue of the kernel holds the clients meanwhile.
		if pause == 0 {
			l.log.Warn("no connection could be accepted", "error", err)
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		sleep(ctx, pause)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

func (l *listener) serve(ctx context.Context, conn net.Conn) {
	if l.door != nil {
		l.door.Serve(conn)
		return
	}
	client := conn.(stream)
	s, err := l.connect(ctx, client)
	if err != nil {
		client.Close()
		if ctx.Err() == nil {
			l.log.Info("a connection was closed without a server", "client", client.RemoteAddr().String(), "reason", err)
		}
		return
	}
	in, out := s.run(&l.buffers)
	close(s.ended)
	l.board.leave(s, in, out)
}

// connect finds a server for the client, connects to it, and enters the session. It waits while there is none. Nothing
// of the client is read meanwhile: the kernel keeps what it has sent.
func (l *listener) connect(ctx context.Context, client stream) (*session, error) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	w := &waiter{since: time.Now(), client: client, end: end}
	defer l.board.resume(l.ledger, w)
	if hold := l.board.limits(l.ledger).HoldTimeout; hold > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, hold, errHeld)
		defer cancel()
	}
	held := false
	for ctx.Err() == nil {
		p, changed, retry := l.board.choose(l.ledger)
		if p.server == "" {
			if !l.board.hold(l.ledger, w) {
				return nil, errTooMany
			}
			held = true
			await(ctx, changed, retry)
			continue
		}
		if held && departed(client) {
			l.board.drop(l.ledger, p)
			return nil, errDeparted
		}
		s, err := l.open(ctx, client, p, w, &held)
		if s != nil || err != nil {
			return s, err
		}
	}
	err := context.Cause(ctx)
	if errors.Is(err, errHeld) {
		err = fmt.Errorf("%w: %s", err, l.board.timedOut(l.ledger))
	}
	return nil, err
}

// await returns when changed is closed, after retry (0: never), or when ctx ends.
func await(ctx context.Context, changed <-chan struct{}, retry time.Duration) {
	var expiry <-chan time.Time
	if retry > 0 {
		t := time.NewTimer(retry)
		defer t.Stop()
		expiry = t.C
	}
	select {
	case <-ctx.Done():
	case <-changed:
	case <-expiry:
	}
}

// open connects to the chosen server when it is this connection's turn. Neither session nor error: choose again.
func (l *listener) open(ctx context.Context, client stream, p pick, w *waiter, held *bool) (*session, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if p.admission != nil {
		defer context.AfterFunc(p.admission.ctx, cancel)()
	}
	if turns := l.board.turns(l.ledger, p); !turns.take(time.Now()) {
		if !l.board.hold(l.ledger, w) {
			l.board.drop(l.ledger, p)
			return nil, errTooMany
		}
		*held = true
		turns.await(ctx, w.look)
	}
	if ctx.Err() != nil {
		l.board.drop(l.ledger, p)
		return nil, nil
	}
	return l.dial(ctx, client, p, nil), nil
}

func (l *listener) dial(ctx context.Context, client stream, p pick, cut func()) *session {
	limit := l.board.limits(l.ledger).ConnectTimeout
	trying := ctx
	if limit > 0 {
		var cancel context.CancelFunc
		trying, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	server, err := addresses.Dial(trying, p.addresses)
	if err != nil {
		l.board.drop(l.ledger, p)
		if ctx.Err() == nil {
			l.log.Info("a server could not be connected to", "server", p.server, "error", err)
			l.board.failed(l.ledger, p, err.Error())
		}
		return nil
	}
	s := &session{ledger: l.ledger, pick: p, client: client, server: server, cut: cut, ended: make(chan struct{})}
	if !l.board.enter(s) {
		reset(server)
		return nil
	}
	return s
}
