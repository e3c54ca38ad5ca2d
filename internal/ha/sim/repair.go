package sim

import (
	"slices"

	"github.com/havenha/haven/internal/ha"
)

// closely holds the WAL itself against the leader's (agent.compareWAL).
func closely(c *ha.Compare, d, up *data) {
	switch {
	case !d.sameSoFar(up):
		c.Diverged, c.Twin, c.Text = true, true, "the local WAL is another than the leader's"
	case d.end() < up.floor || d.stuck:
		c.Gone, c.Text = true, "the leader has no longer the WAL that is needed"
	}
}

// recycle has a member keep none of the WAL that it had until now.
func (m *member) recycle() {
	m.data.floor = m.data.end()
	if s := m.server; s.alive() {
		for _, st := range slices.Clone(s.senders) {
			if st.sent < len(m.data.wal) {
				st.close()
			}
		}
	}
}

// recovery is what the replay of a server does that does not answer yet.
func (m *member) recovery() string {
	if s := m.server; s.alive() && s.phase == starting && m.data.stuck {
		return "waiting"
	}
	if s := m.server; s.alive() && s.phase == starting && s.primary {
		return "recovering"
	}
	return ""
}
