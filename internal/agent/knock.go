package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/havenha/haven/internal/bootclock"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
	"github.com/havenha/haven/internal/postgres"
)

// knocker tries to open new connections to the running server, beside the loop: one that hangs may go on to serve the
// session that is kept. What the tries prove is for ha.Knocks to say.
type knocker struct {
	a *Agent

	mu     sync.Mutex
	after  time.Duration    // how long a server may be silent before it counts as hung; 0: it is not asked
	server *postgres.Server // that the tries were made on
	knocks ha.Knocks
	flush  cluster.LSN // how far WAL was on disk at the last try
}

// idleKnocker is how often a knocker looks whether there is a server.
const idleKnocker = time.Second

// expect tells the knocker how long a server may be silent.
func (k *knocker) expect(after time.Duration) {
	k.mu.Lock()
	k.after = after
	k.mu.Unlock()
}

// of returns what the tries on that server have shown.
func (k *knocker) of(p *postgres.Server) ha.Knocks {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p == nil || k.server != p {
		return ha.Knocks{}
	}
	return k.knocks
}

func (k *knocker) run(ctx context.Context) {
	var due cluster.Instant
	for ctx.Err() == nil {
		pause := k.once(ctx, due)
		due = bootclock.Now().Add(pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// once makes a try that was due then, and returns when to make the next.
func (k *knocker) once(ctx context.Context, due cluster.Instant) time.Duration {
	p := k.a.server.Server()
	k.mu.Lock()
	after, failed := k.after, k.knocks.Failed
	if k.server != p {
		k.server, k.knocks, k.flush, due = p, ha.Knocks{}, 0, bootclock.Now()
	}
	flush := k.flush
	k.mu.Unlock()
	if p == nil || after == 0 {
		return idleKnocker
	}
	limit, failing, answered := ha.KnockTimes(after)
	try := ha.Knock{Due: due, Began: bootclock.Now()}
	short, cancel := context.WithTimeout(ctx, limit)
	flush, err := k.a.server.Knock(short, flush)
	cancel()
	try.Ended, try.Answered = bootclock.Now(), err == nil
	if ctx.Err() != nil {
		return idleKnocker
	}
	pause := answered
	if err != nil {
		try.Connected = errors.Is(err, postgres.ErrWriteStalls)
		try.Text, pause = err.Error(), patience(failing, failed)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.server == p {
		k.knocks.Note(try, limit)
		k.flush = flush
	}
	return pause
}

// patience is the pause after a try without an answer: longer and longer for a server that is left hung, since each try may
// leave a session that waits for the disk, as long as that does not answer.
func patience(pause time.Duration, failed int) time.Duration {
	return min(pause*time.Duration(1+failed/10), time.Minute)
}
