package guard

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/postgres/processes"
)

// Errors that callers tell apart.
var (
	// ErrTakenOver: another agent has said hello to the guard; this one must not act on the server any more.
	ErrTakenOver = errors.New("another agent has taken the guard over: is Haven running twice on this node?")
	// ErrProtocol: the guard that runs is of a version that cannot be spoken to.
	ErrProtocol = errors.New("the guard that runs speaks another version of its protocol")
	// ErrClosed: the link was closed.
	ErrClosed = errors.New("the link to the guard is closed")
)

// answerWithin is how long a guard may take to answer before it counts as hung, and is replaced.
const answerWithin = 2 * time.Second

// Options of a link.
type Options struct {
	Dir string // the node's state directory, which exists
	// Program is started with Command and Dir as arguments; empty: the running program itself.
	Program string
	Log     *slog.Logger
}

// Link is an agent's line to its guard. It starts one when there is none, uses one that runs, and replaces one that does
// not answer. It may be used from several goroutines; each call ends within some seconds.
type Link struct {
	opt Options

	mu     sync.Mutex
	conn   *connection // nil: none
	child  int         // a guard that we have made and may have to reap
	asked  int         // the guard that was asked to become our program
	over   error       // why the link is of no use any more
	armed  bool
	last   *Request // the deadline that is to be in force, whichever guard holds it; nil: none
	holder int      // the process that was told of last
	closed bool
	watch  sync.WaitGroup

	lostMu sync.Mutex
	lost   chan struct{}
}

// connection is one, whose replies a reader of its own receives, so that its loss is seen at once.
type connection struct {
	net.Conn
	replies chan Reply // closed when the connection is lost
	pid     int        // the guard's
}

// Open connects to the guard, and starts it if need be. The State tells what a former agent left.
func Open(o Options) (*Link, State, error) {
	l := &Link{opt: o, lost: make(chan struct{})}
	s, err := l.State()
	if err != nil {
		l.Close()
		return nil, State{}, err
	}
	return l, s, nil
}

// Retire lets go of a guard that a former agent left in the directory: no deadline is in force any more, and it ends
// with the server. It is no error if there is none.
func Retire(o Options) error {
	l := &Link{opt: o, lost: make(chan struct{})}
	defer l.Close()
	conn, err := l.dial()
	if errors.Is(err, errNoGuard) {
		return nil
	}
	if err != nil {
		return err
	}
	l.conn = conn
	if _, err := l.exchange(Request{Op: opHello}); err != nil {
		return err
	}
	_, err = l.exchange(Request{Op: opDisarm})
	return err
}

// Arm has the server ended at the deadline, if it is not moved on before. When it returns nil, the guard knows it.
// A watchdog, nil for none, is fed with it.
func (l *Link) Arm(generation int64, deadline cluster.Instant, s processes.Server, w *Watchdog) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	request := Request{Op: opArm, Generation: generation, Deadline: deadline, Server: &s, Watchdog: w}
	r, err := l.call(request)
	if err != nil {
		return fmt.Errorf("arm the guard: %w", err)
	}
	request.Deadline = max(deadline, r.State.Deadline)
	l.armed, l.last, l.holder = true, &request, r.State.PID
	return l.modernise(r.State) // if its deadline was too near for that before
}

// Disarm lets the server live without a deadline, if that is still wanted once its turn has come.
func (l *Link) Disarm(still func() bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !still() {
		return nil
	}
	l.last = nil // a guard that takes the place of one that is lost by now has nothing to learn
	if _, err := l.call(Request{Op: opDisarm}); err != nil {
		return fmt.Errorf("disarm the guard: %w", err)
	}
	l.armed = false
	return nil
}

// Armed tells whether a deadline may be in force.
func (l *Link) Armed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.armed
}

// State asks the guard what it knows; an error means that there is no living guard.
func (l *Link) State() (State, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, err := l.call(Request{Op: opState})
	return r.State, err
}

// Kill has the guard end every process of the server now.
func (l *Link) Kill(reason string, s processes.Server) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.call(Request{Op: opKill, Reason: reason, Server: &s})
	return err
}

// Launch implements processes.Launcher.
func (l *Link) Launch(c processes.Command) (pid int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r, err := l.call(Request{Op: opStart, Command: &c})
	if err != nil {
		return 0, fmt.Errorf("have the guard start the server: %w", err)
	}
	switch {
	case r.State.Server != nil:
		return r.State.Server.PID, nil
	case r.State.Exit != nil:
		return r.State.Exit.PID, nil
	}
	return 0, errors.New("the guard does not say which process it has started")
}

// statusWithin is how long the end of a server may take to reach the guard.
const statusWithin = time.Second

// ExitStatus implements processes.Launcher. Only the guard that is connected is asked: another would not know.
func (l *Link) ExitStatus(pid int) string {
	for end := time.Now().Add(statusWithin); time.Now().Before(end); time.Sleep(time.Millisecond) {
		s, err := l.peek()
		if errors.Is(err, errBusy) {
			continue
		}
		if err != nil || s.Server == nil && (s.Exit == nil || s.Exit.PID != pid) {
			return ""
		}
		if s.Exit != nil && s.Exit.PID == pid {
			return s.Exit.Status
		}
	}
	return ""
}

// peek is State without another guard, and without waiting for another call: the end of a server is told after it.
func (l *Link) peek() (State, error) {
	if !l.mu.TryLock() {
		return State{}, errBusy
	}
	defer l.mu.Unlock()
	if l.conn == nil || l.over != nil {
		return State{}, errNoGuard
	}
	r, err := l.exchange(Request{Op: opState})
	if errors.Is(err, errLost) {
		l.drop()
	}
	return r.State, err
}

// Lost is closed when the present guard is gone. The next call finds or makes another.
func (l *Link) Lost() <-chan struct{} {
	l.lostMu.Lock()
	defer l.lostMu.Unlock()
	return l.lost
}

// Close ends the link. The guard ends too, unless there is a server.
func (l *Link) Close() {
	l.mu.Lock()
	if l.conn != nil && l.over == nil {
		if r, err := l.exchange(Request{Op: opBye}); r.Ends || errors.Is(err, errLost) { // it may end before it has answered
			awaitProcess(l.conn.pid)
		}
	}
	l.closed = true
	l.drop()
	l.mu.Unlock()
	l.watch.Wait()
	l.mu.Lock()
	l.reapChild()
	l.mu.Unlock()
}

// call asks, on a new connection and of a new guard if need be. The caller holds mu.
func (l *Link) call(r Request) (Reply, error) {
	var err error
	for range 2 {
		if l.closed {
			return Reply{}, ErrClosed
		}
		if l.over != nil {
			return Reply{}, l.over
		}
		if err = l.connect(); err != nil {
			return Reply{}, err
		}
		var reply Reply
		reply, err = l.exchange(r)
		if !errors.Is(err, errLost) {
			return reply, err
		}
		l.drop()
		if r.Op == opStart {
			break // it may have been done: another attempt would be refused, or worse
		}
	}
	return Reply{}, err
}

var (
	errLost    = errors.New("the guard does not answer")
	errNoGuard = errors.New("no guard runs")
	errBusy    = errors.New("another call is under way")
)

// exchange sends one request and awaits its answer; errLost if there is none in time.
func (l *Link) exchange(r Request) (Reply, error) {
	r.Protocol = Protocol
	b, err := json.Marshal(r)
	if err != nil {
		return Reply{}, err
	}
	_ = l.conn.SetWriteDeadline(time.Now().Add(answerWithin)) // a connection that is gone tells so at the write
	if _, err := l.conn.Write(append(b, '\n')); err != nil {
		return Reply{}, fmt.Errorf("%w: %w", errLost, err)
	}
	timeout := time.NewTimer(answerWithin)
	defer timeout.Stop()
	select {
	case reply, ok := <-l.conn.replies:
		if !ok {
			return Reply{}, fmt.Errorf("%w: the connection broke", errLost)
		}
		if err := l.judge(reply); err != nil {
			return reply, err
		}
		if s := reply.State; s.PID == l.holder && s.Deadline == 0 && !s.Killing {
			l.last = nil // it was told, and has done what there was to do
		}
		return reply, nil
	case <-timeout.C:
		return Reply{}, fmt.Errorf("%w within %s", errLost, answerWithin)
	}
}

// judge makes an error of what the guard refuses.
func (l *Link) judge(r Reply) error {
	switch {
	case r.Protocol != Protocol:
		l.over = fmt.Errorf("%w (%d, and this Haven speaks %d): stop this node's server with the version of Haven that started it, then start this one", ErrProtocol, r.Protocol, Protocol)
		return l.over
	case r.TakenOver:
		l.over = ErrTakenOver
		return l.over
	case r.Error != "":
		return errors.New(r.Error)
	}
	return nil
}

// drop closes the connection.
func (l *Link) drop() {
	if l.conn != nil {
		l.conn.Close()
		l.conn = nil
	}
}

// dial connects to the guard of the directory; errNoGuard if nobody listens.
func (l *Link) dial() (*connection, error) {
	dir, err := os.Open(l.opt.Dir)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	conn, err := net.DialUnix("unix", nil, socketAddress(dir))
	if err != nil {
		return nil, fmt.Errorf("%w: connect to %s: %w", errNoGuard, filepath.Join(l.opt.Dir, socketName), err)
	}
	cred, err := peer(conn)
	if err != nil {
		conn.Close()
		return nil, err
	}
	c := &connection{Conn: conn, replies: make(chan Reply, 1), pid: int(cred.Pid)}
	lost := l.Lost()
	l.watch.Go(func() { l.receive(c, lost) })
	return c, nil
}

// receive hands on the replies, and tells when the connection is lost.
func (l *Link) receive(c *connection, lost <-chan struct{}) {
	defer c.Close()
	lines := bufio.NewScanner(c)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		var r Reply
		if json.Unmarshal(lines.Bytes(), &r) != nil {
			break
		}
		select {
		case c.replies <- r:
			continue
		default: // more answers than questions
		}
		break
	}
	close(c.replies)
	l.lostMu.Lock()
	defer l.lostMu.Unlock()
	if l.lost == lost {
		close(l.lost)
		l.lost = make(chan struct{})
	}
}
