package pooled

import (
	"container/list"
	"net"
	"sync"
)

// maxStrangers bounds the connections of one listener that have not proved yet who they are. A listener that may have more clients has room for
// all of them: they come at once after a failover.
const maxStrangers = 4096

// strangers are connections that have not proved who they are. Beyond the bound the oldest of them is closed for each that comes: whoever connects
// and stops there would otherwise take the descriptors of the whole process, in which the member's agent may run, too.
type strangers struct {
	mu  sync.Mutex
	all list.List // of net.Conn, the oldest first
}

// come notes one that wants to be one of so many clients; the result is called when it has proved who it is, or has gone.
func (s *strangers) come(conn net.Conn, clients int) (known func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.all.PushBack(conn)
	if s.all.Len() > max(maxStrangers, clients) {
		_ = s.all.Remove(s.all.Front()).(net.Conn).Close() // what it said is not waited for any more
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all.Remove(e)
	}
}
