package pooled

import (
	"container/list"
	"net"
	"sync"
)

// maxStrangers bounds the connections of one listener that have not said yet who they are.
const maxStrangers = 4096

// strangers are connections that have not said who they are. Beyond the bound the oldest of them is closed for each that comes: whoever connects
// and says nothing would otherwise take the descriptors of the whole process, in which the member's agent may run, too.
type strangers struct {
	mu  sync.Mutex
	all list.List // of net.Conn, the oldest first
}

// come notes one; the result is called when it has said who it is, or has gone; more than once does no harm.
func (s *strangers) come(conn net.Conn) (known func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.all.PushBack(conn)
	if s.all.Len() > maxStrangers {
		_ = s.all.Remove(s.all.Front()).(net.Conn).Close() // what it said is not waited for any more
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.all.Remove(e)
	}
}
