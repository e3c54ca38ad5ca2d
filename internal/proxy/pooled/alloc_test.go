package pooled

import (
	"testing"

	"github.com/havenha/haven/internal/pgwire/frame"
)

// TestNoMessageAllocates has the messages of a client entered and the replies sorted, as they pass, and counts allocations. There is none but for
// what is kept: a statement that gets a name, that a name is closed, and unnamed statements behind the first of a batch.
func TestNoMessageAllocates(t *testing.T) {
	done := frame.Append(frame.Append(frame.Append(nil, 'D', "\x00\x01\x00\x00\x00\x011"), 'C', "SELECT 1\x00"), 'Z', "I")
	parsed, bound := frame.Append(nil, '1'), frame.Append(nil, '2')
	for _, c := range []struct{ name, first, ask, answer string }{
		{"simple", "", query("SELECT 1"), string(done)},
		{"unnamed", "", parse("", "SELECT 1") + bind("") + execute + sync_, string(parsed) + string(bound) + string(done)},
		{"named", parse("s", "SELECT 1") + sync_, bind("s") + execute + sync_, string(bound) + string(done)},
	} {
		t.Run(c.name, func(t *testing.T) {
			cl, s := pair()
			room := make([]byte, 1024)
			if c.first != "" {
				exchanged(t, cl, s, room, c.first, string(frame.Append(nil, '3'))+string(parsed)+string(frame.Append(nil, 'Z', "I")))
			}
			if n := testing.AllocsPerRun(1000, func() { exchanged(t, cl, s, room, c.ask, c.answer) }); n > 0 {
				t.Errorf("%v allocations in each round", n)
			}
		})
	}
}

// exchanged has a client ask and the server answer.
func exchanged(t *testing.T, c *client, s *server, room []byte, ask, answer string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := copy(room, ask)
	p := parcel{b: room[:n]}
	c.prepared.begin()
	for used := 0; used < n; {
		kind, size := frame.Next(room[used:n])
		if want, err := c.enter(s, &p, used, kind, size); want != 0 || err != nil {
			t.Fatalf("a message of type %q was not entered: %d, %v", kind, want, err)
		}
		used += size
	}
	p.close(n)
	p.release(&c.door.buffers)
	n = copy(room, answer)
	if used, _, _, sane := s.sort(room[:n]); used != n || !sane || !s.x.Edge() {
		t.Fatalf("of %d bytes of the answer %d were sorted", n, used)
	}
}
