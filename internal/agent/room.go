package agent

import (
	"context"
	"sync"
	"time"

	"github.com/havenha/haven/internal/bootclock"
	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
)

// roomEvery is how often the room on disk is looked at, roomAge how old what was seen may be: a file system that does not
// answer leaves it unknown.
const (
	roomEvery = 2 * time.Second
	roomAge   = 10 * time.Second
)

// usualSegment is the size of a WAL segment where no control file tells it (initdb).
const usualSegment = 16 << 20

// surveyor looks at the room on disk beside the loop, which a file system must not hold up.
type surveyor struct {
	a *Agent

	mu   sync.Mutex
	room ha.Room
	at   cluster.Instant
}

func (s *surveyor) run(ctx context.Context) {
	for ctx.Err() == nil {
		data, wal, err := s.a.server.Room()
		s.mu.Lock()
		if err == nil {
			s.room, s.at = ha.Room{Known: true, Data: data, WAL: wal}, bootclock.Now()
		}
		s.mu.Unlock()
		select {
		case <-ctx.Done():
		case <-time.After(roomEvery):
		}
	}
}

// now is the room as last seen, for WAL segments of that size.
func (s *surveyor) now(segment uint32) ha.Room {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at == 0 || bootclock.Now().Sub(s.at) > roomAge {
		return ha.Room{}
	}
	r := s.room
	if r.Segment = uint64(segment); segment == 0 {
		r.Segment = usualSegment
	}
	return r
}
