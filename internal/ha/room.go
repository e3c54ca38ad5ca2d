package ha

import (
	"fmt"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// Room is what is left on the file systems of the data and of the WAL, in bytes. Tablespaces elsewhere are not looked at.
type Room struct {
	Known   bool   `json:"known,omitempty"`
	Data    uint64 `json:"data,omitempty"`
	WAL     uint64 `json:"wal,omitempty"`
	Segment uint64 `json:"segment,omitempty"` // size of a WAL segment
}

// leastData is less than any table can be said to have room to grow in.
const leastData = 1 << 20

// ample is how many times more than nothing a member must have left to be one that others may flee to.
const ample = 4

// Full tells that tables cannot grow, or that PostgreSQL cannot make another WAL segment, for want of which it ends.
func (r Room) Full() bool {
	return r.Known && (r.Data < leastData || r.WAL < r.Segment) // guard: full@1,2,3
}

func (r Room) ample() bool {
	return r.Known && r.Data >= ample*leastData && r.WAL >= ample*r.Segment // guard: ample@1,2,3
}

func (r Room) String() string {
	return fmt.Sprintf("%.1f MB are left for data, %.1f MB for WAL", float64(r.Data)/(1<<20), float64(r.WAL)/(1<<20))
}

// Health is how a member's server is, for others to know who may take over. It is published in the member's key.
type Health = string

// The healths. Empty is unknown: neither a reason to pass a member over, nor room that anybody could count on.
const (
	HealthOK   Health = "ok"        // it answers, and has room
	HealthHung Health = "hung"      // it answers no new connection
	HealthFull Health = "disk_full" // it has no room for data or WAL
	// HealthUnguarded: it may not lead, since the watchdog that is required there cannot be had.
	HealthUnguarded Health = "no_watchdog"
)

// Health tells how the server is, by that policy.
func (s Server) Health(p Policy) Health {
	switch {
	case hung(View{Server: s, Policy: p}):
		return HealthHung
	case s.Room.Full():
		return HealthFull
	case s.Probed && s.Room.ample(): // guard: healthy@1,2
		return HealthOK
	}
	return ""
}

func sick(h Health) bool { return h == HealthHung || h == HealthFull }

// fits tells whether a member's server is well enough to take over. Who flees from a full disk needs one that has room;
// otherwise it is enough that nothing bad is known.
func fits(v View, c Member) bool {
	if v.Server.Room.Full() { // guard: fits-room
		return c.Health == HealthOK
	}
	return well(c.Health)
}

// well tells whether nothing bad is known of a member's server.
func well(h Health) bool { return !sick(h) && h != HealthUnguarded }

func (m *Memory) noteRoom(v View) {
	full := v.Server.Room.Full()
	switch {
	case full && m.Full == 0:
		m.Full = v.Now
	case !full && v.Server.Room.Known:
		if m.Full != 0 {
			m.forgetStarts() // they were for want of room
		}
		m.Full = 0
	}
}

// fullFor tells for how long there has been no room.
func (m *Memory) fullFor(v View) time.Duration {
	if m.Full == 0 {
		return 0
	}
	return v.Now.Sub(m.Full)
}

// leaveFullDisk moves leadership from a primary whose disk is full to a standby that has room, if there is one: at most once in
// the time in which faults may move it once. In the synchronous modes the server is ended, and what follows is as after a
// crash, since a checkpoint on a full disk may well end in a panic; in the asynchronous mode only good order loses nothing.
func leaveFullDisk(v View, m *Memory) (Decision, bool) {
	if m.fullFor(v) < max(v.Policy.HungAfter, time.Second) || v.Policy.Pause { // guard: leave-full@1,2
		return Decision{}, false
	}
	if movedLately(v, m) || m.LastFlight != 0 && v.Now.Sub(m.LastFlight) < v.Policy.CrashHandovers { // guard: leave-full-again@1,3
		return Decision{}, false
	}
	to := Successor(v)
	if to == "" {
		return Decision{}, false
	}
	m.LastFlight = v.Now
	what := fmt.Sprintf("the disk of %s is full: %s", v.Me.Name, v.Server.Room)
	if v.Store.Sync.Active() { // guard: leave-full-sync
		m.Ended = Ended{Code: CauseDiskFull, Text: what}
		return kill(ReasonLeaveFull, "%s; %s has room and every commit: ending the server, for it to take over", what, to), true
	}
	cause := &cluster.Cause{
		Code: CauseDiskFull, Certainty: cluster.Observed, At: v.Wall, Text: what,
		Evidence: []cluster.Evidence{{At: v.Wall, Member: v.Me.Name, Text: what}},
	}
	return act(Action{Kind: Switch, Member: to, Fence: cluster.FenceStopped, Cause: cause}, ReasonLeaveFull, "%s; %s has room, and takes over", what, to), true
}

// retryFull is how often a server is tried to be started on a disk that is full: what counts as full may just be enough.
const retryFull = 30 * time.Second

// stayFull keeps a leader whose server does not start for want of room from giving leadership up while everybody who might
// take it has none either: that would change nothing, and go round for ever. Who says nothing is worth a try, since the
// server is down anyway.
func stayFull(v View, m *Memory) (Decision, bool) {
	if !v.Server.Room.Full() || anotherMayHaveRoom(v) { // guard: stay-full@1,2
		return Decision{}, false
	}
	if v.Now.Sub(m.Retry) < retryFull { // Retry is a second after the last failure
		return again(wait(v, ReasonDiskFull, "the disk is full (%s), and nobody else may lead or has room: the server does not start", v.Server.Room), time.Second), true
	}
	m.StartFailures = maxStartFailures - 1
	return Decision{}, false
}

// startFull tries a standby that does not start for want of room now and then. Its data is not to blame, and nothing is replaced.
func startFull(v View, m *Memory, l *cluster.Leader) Decision {
	if v.Now.Sub(m.Retry) < retryFull {
		return again(wait(v, ReasonDiskFull, "the disk is full (%s): the server does not start", v.Server.Room), time.Second)
	}
	return act(Action{Kind: Start, Member: whom(v, m, l)}, ReasonStartStandby, "starting as a secondary, though the disk is full")
}

func anotherMayHaveRoom(v View) bool {
	for _, c := range v.Store.Members {
		if c.Name != v.Me.Name && c.Lease != 0 && c.MayLead && c.Health != HealthFull { // guard: room-elsewhere@1,2,3,4
			return true
		}
	}
	return false
}

// leaveToHealthy tells that the race is left to others for a while, because this member is sick and one of them is well.
func leaveToHealthy(v View, m *Memory) bool {
	if !sick(v.Server.Health(v.Policy)) || v.Now.Sub(m.LeaderGone) > v.Policy.TTL { // guard: leave-to-healthy@1,2
		return false
	}
	s := v.Store.Sync
	for _, c := range v.Store.Members {
		mayLead := c.Name != v.Me.Name && c.Lease != 0 && c.MayLead && c.Health == HealthOK
		if mayLead && (!s.Active() || voter(s, c.Name)) { // guard: healthy-voter@1,2
			return true
		}
	}
	return false
}

// passOver tells that what a sick member has is no reason to leave the leader key to it, for as long as it leaves it to others
// itself. A newer timeline of its own is: commits of that are nowhere else.
func passOver(v View, m *Memory, a Answer) bool {
	c, ok := v.Store.Member(a.Name)
	return ok && sick(c.Health) && a.Timeline <= v.Server.Timeline && v.Now.Sub(m.LeaderGone) <= v.Policy.TTL // guard: pass-over@2,3,4
}
