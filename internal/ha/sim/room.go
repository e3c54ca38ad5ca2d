package sim

import (
	"fmt"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
)

// fill takes a file system's room. PostgreSQL cannot go on without room for WAL: a primary ends with a panic as soon as it needs
// another segment; a standby's receiver ends, again and again.
func (m *member) fill(what string, empty bool) error {
	switch {
	case empty:
		m.full = ""
		return nil
	case what != "data" && what != "wal":
		return fmt.Errorf("fill what? %q", what)
	}
	m.full = what
	if s := m.server; what == "wal" && s.alive() {
		m.w.after(m.w.sickness.between(50*time.Millisecond, 3*time.Second), &s.process, func() {
			if s.primary && s.phase == running && m.full == "wal" {
				s.crash()
			}
		})
	}
	return nil
}

// room is what statfs tells.
func (m *member) room() ha.Room {
	r := ha.Room{Known: true, Data: 1 << 40, WAL: 1 << 40, Segment: 16 << 20}
	switch m.full {
	case "data":
		r.Data = 0
	case "wal":
		r.WAL = 0
	}
	return r
}

func health(m cluster.Member) string {
	if m.Haven == nil {
		return ""
	}
	return m.Haven.Health
}
