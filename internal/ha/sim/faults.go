package sim

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/havenha/haven/internal/cluster"
	"github.com/havenha/haven/internal/ha"
)

// trap is a command that is carried out at a boundary between two steps of an action.
type trap struct {
	member  int    // -1: anybody
	kind    string // of the action; empty: any
	left    int    // boundaries to come
	command []string
}

// writesList is, for traps, the moment at which a leader's list of members arrives at the store.
const writesList ha.Kind = "list"

// boundary is told of each moment between two steps of an action.
func (w *World) boundary(t *task) {
	w.crossed++
	for i := range w.traps {
		x := &w.traps[i]
		if x.left == 0 || x.member >= 0 && x.member != t.a.m.i || x.kind != "" && x.kind != string(t.kind) {
			continue
		}
		if x.left--; x.left == 0 {
			w.spring(x, t)
		}
	}
}

// spring carries out what a trap holds, for whoever stepped on it.
func (w *World) spring(x *trap, t *task) {
	command := slices.Clone(x.command)
	for j, word := range command {
		if word == "it" {
			command[j] = t.a.m.name
		}
	}
	w.note(t.a.m.name, "between steps %d and %d of %s:", t.position, t.position+1, t.kind)
	w.counts.StepCrashes++
	if err := w.do(command); err != nil {
		w.broken(0, "%v", err)
	}
}

// hits counts a fault that happens while a change of the synchronous set is in flight.
func (w *World) hits() {
	w.counts.Faults++
	for _, m := range w.members {
		if a := m.agent; a != nil && a.task != nil && (a.task.kind == ha.SetSync || a.task.kind == ha.Open) {
			w.counts.SyncHit++
			return
		}
	}
}

// Do carries out one command of a scenario: a fault, its undoing, or a request. testdata/README.md lists them.
func (w *World) Do(line string) error { return w.do(strings.Fields(line)) }

func (w *World) do(words []string) error {
	if len(words) == 0 {
		return nil
	}
	w.note("*", "%s", strings.Join(words, " "))
	w.hits()
	verb, rest := words[0], words[1:]
	switch verb {
	case "elect", "store", "lose", "config", "switchover", "failover", "delete", "at", "revive", "reconnect":
		return w.doCluster(verb, rest)
	}
	if len(rest) == 0 {
		return fmt.Errorf("%q: whose?", verb)
	}
	m := w.member(rest[0])
	if m == nil {
		return fmt.Errorf("%q: there is no member %q", verb, rest[0])
	}
	return w.doMember(verb, m, rest[1:])
}

// member gives the member of that name; leader and sync are whoever leads or stands first in /sync at the moment.
func (w *World) member(name string) *member {
	snap := w.store.snap
	switch {
	case name == "leader" && snap.Leader != nil:
		name = snap.Leader.Name
	case name == "leader" && w.history.office != nil && w.history.office.server.writable(): // it leads without the store
		return w.history.office
	case name == "leader":
		name = "a"
	case name == "sync" && snap.Sync.Active() && len(snap.Sync.Standbys) > 0:
		name = snap.Sync.Standbys[0]
	case name == "sync":
		name = "b"
	}
	for _, m := range w.members {
		if m.name == name {
			return m
		}
	}
	return nil
}

func (w *World) doMember(verb string, m *member, rest []string) error {
	what := strings.Join(rest, " ")
	switch verb {
	case "kill":
		return w.killWhat(m, what)
	case "start":
		m.power()
		if m.agent == nil && m.foreign == nil {
			m.begin()
		}
		w.linksChanged()
	case "stop":
		if m.agent != nil {
			m.agent.shutdown()
		}
	case "freeze", "thaw":
		return w.freezeWhat(m, what, verb == "thaw")
	case "cut", "heal":
		return w.cut(m, rest, verb == "heal")
	case "slow", "fast":
		for i := range w.network.nodes {
			w.slow(m.i, i, verb == "slow")
		}
	case "depose", "restore":
		return w.depose(m, verb == "depose")
	case "hang", "unhang":
		if s := m.server; s.alive() {
			s.hung = verb == "hang"
		}
	case "recycle":
		m.recycle()
	case "fill", "empty":
		return m.fill(what, verb == "empty")
	case "break", "mend":
		return m.breakWhat(what, verb == "mend")
	case "tryout":
		m.power()
		if m.agent == nil {
			m.begin()
		}
		w.linksChanged()
	case "restart", "reinit":
		m.order(verb)
	case "wipe", "signal", "foreign", "native", "garble", "holes":
		return m.disk(verb)
	case "burst":
		if s := m.server; s.writable() && s.frozen == 0 {
			for range 10 {
				s.commit()
			}
		}
	default:
		return fmt.Errorf("unknown command %q", verb)
	}
	return nil
}

func (w *World) killWhat(m *member, what string) error {
	switch what {
	case "agent":
		m.halt()
	case "server":
		if s := m.server; s.alive() {
			s.crash()
		}
	case "backend":
		if s := m.server; s.alive() {
			s.recoverInPlace()
		}
	case "host":
		m.powerOff()
	default:
		return fmt.Errorf("kill what? %q", what)
	}
	return nil
}

// powerOff ends all processes of a host at once; nobody is told. Its disk stays.
func (m *member) powerOff() {
	if m.down {
		return
	}
	m.down = true
	for i := range m.w.network.nodes {
		m.w.network.block(m.i, i)
		m.w.network.block(i, m.i)
		m.w.timeOut(m.i, min(i, len(m.w.members)-1))
	}
	m.halt()
	if s := m.server; s.alive() {
		s.phase = dead
		s.end()
		s.waiters = nil
		if s.receiver != nil {
			s.receiver.endOf(s)
		}
		for _, st := range slices.Clone(s.senders) {
			st.endOf(s)
		}
	}
}

func (m *member) power() {
	if !m.down {
		return
	}
	m.down = false
	m.boots++
	for i := range m.w.network.nodes {
		m.w.network.unblock(m.i, i)
		m.w.network.unblock(i, m.i)
	}
}

func (w *World) freezeWhat(m *member, what string, thaw bool) error {
	change := w.freeze
	if thaw {
		change = w.thaw
		m.thawed = w.now
	}
	switch what {
	case "agent":
		if m.agent != nil && (!thaw || m.agent.frozen > m.frozen) {
			change(&m.agent.process)
		}
	case "server":
		if s := m.server; s.alive() && (!thaw || s.frozen > m.frozen) {
			change(&s.process)
		}
	case "host":
		if thaw && m.frozen == 0 {
			return nil
		}
		m.frozen += map[bool]int{false: 1, true: -1}[thaw]
		if m.agent != nil {
			change(&m.agent.process)
		}
		if s := m.server; s.alive() {
			change(&s.process)
		}
	default:
		return fmt.Errorf("freeze what? %q", what)
	}
	if thaw {
		w.after(w.random.between(0, 50*time.Millisecond), nil, m.watchdog)
	}
	return nil
}

// cut takes: from all, from members, from store, from NAME; and then outbound or inbound for one direction.
func (w *World) cut(m *member, words []string, heal bool) error {
	if len(words) < 2 || words[0] != "from" {
		return fmt.Errorf("cut from whom?")
	}
	change := w.network.block
	if heal {
		change = w.network.unblock
	} else {
		w.counts.Partitions++
	}
	out := !slices.Contains(words, "inbound")
	in := !slices.Contains(words, "outbound")
	for i := range w.network.nodes {
		store := i == len(w.members)
		named := !store && w.members[i] == w.member(words[1])
		if i == m.i || !named && words[1] != "all" && (words[1] != "store" || !store) && (words[1] != "members" || store) {
			continue
		}
		if out && (!heal || w.network.link(m.i, i).cut > w.powerless(m.i)+w.powerless(i)) {
			change(m.i, i)
		}
		if in && (!heal || w.network.link(i, m.i).cut > w.powerless(m.i)+w.powerless(i)) {
			change(i, m.i)
		}
		if !store {
			w.timeOut(m.i, i)
		}
	}
	w.linksChanged()
	return nil
}

func (w *World) slow(a, b int, on bool) {
	for _, l := range []*link{w.network.link(a, b), w.network.link(b, a)} {
		if l.slow = 0; on {
			l.slow = 1
		}
	}
}

// depose leaves a member talking to an etcd member that was etcd's leader and does not know that it is not any more.
func (w *World) depose(m *member, on bool) error {
	s := w.store
	if !on {
		s.deposed[m.i] = 0
		w.linksChanged()
		return nil
	}
	s.deposed[m.i] = 1
	s.elect(w.random.between(500*time.Millisecond, 2*time.Second))
	return nil
}

func (m *member) breakWhat(what string, mend bool) error {
	n := &m.startFails
	switch what {
	case "start":
	case "port":
		n = &m.portTaken
	case "promote":
		n = &m.promoteFails
	default:
		return fmt.Errorf("break what? %q", what)
	}
	if *n = 1; mend {
		*n = 0
	}
	return nil
}

// disk harms a data directory; only one that no server uses.
func (m *member) disk(verb string) error {
	d := m.data
	switch {
	case verb == "native":
		if m.foreign != nil {
			m.halt()
			if m.server.alive() {
				m.server.die()
			}
			m.data, m.foreign = m.foreign, nil
		}
	case m.server.alive() || d.kind != ha.DiskData || m.foreign != nil || m.w.history.office == nil:
	case verb == "signal":
		d.signal = true
	case verb == "holes" && !slices.ContainsFunc(m.w.members, func(o *member) bool { return o != m && o.data.kind == ha.DiskData && !o.data.torn }):
	case verb == "holes":
		d.stuck, m.wiped = d.signal, true
	case (verb == "wipe" || verb == "holes") && m.w.spoils(m): // an operator who takes the only copy away gets nothing back
	case verb == "wipe":
		m.wiped = true
		*d = data{kind: ha.DiskEmpty, upstream: -1}
	case verb == "foreign":
		m.foreign = d
		m.data = &data{kind: ha.DiskForeign, upstream: -1}
		if m.w.random.oneIn(2) {
			m.data = &data{kind: ha.DiskData, system: systemID(99999), tl: 1, controlTL: 1, upstream: -1}
		}
	case verb == "garble" && m.w.store.snap.Sync.Active(): // a medium that loses what it has flushed is no synchronous standby
	case verb == "garble":
		m.w.garbled = true
		n := max(1, len(d.wal)-1-m.w.random.below(5))
		d.wal = d.wal[:n:n]
		d.tl = d.wal[n-1].tl
		d.history = d.history[:min(len(d.history), slices.IndexFunc(append(slices.Clone(d.history), cluster.HistoryLine{Timeline: d.tl}), func(h cluster.HistoryLine) bool { return h.Timeline == d.tl }))]
		d.controlTL = min(d.controlTL, d.tl)
	}
	return nil
}

// spoils tells whether an empty disk here would leave a cluster that rightly waits for a person: /sync, or the timeline,
// bars everybody else from leading.
func (w *World) spoils(m *member) bool {
	s := w.store.snap.Sync
	switch {
	case !slices.ContainsFunc(w.members, func(o *member) bool { return o != m && o.foreign == nil && o.data.kind == ha.DiskData }):
		return true
	case m == w.history.office && (w.policy().CheckTimeline || w.policy().MaxLag < 1000):
		return true
	case w.barsOthers(m):
		return true
	case !s.Active() || s.Leader != m.name && !s.Has(m.name):
		return false
	}
	if a := m.agent; a != nil && a.task != nil && a.task.kind == ha.SetSync { // it may just be making itself the only one
		return true
	}
	others := 0
	for _, o := range w.members {
		if o != m && s.Has(o.name) && w.listed(o) && o.foreign == nil && (cluster.Member{Tags: o.tags}).MayLead() && o.data.tl >= m.data.tl && w.history.newestOn(o.data) {
			others++
		}
	}
	return others <= s.Quorum
}

// barsOthers tells whether, in failsafe mode, nobody but this member may lead by the list and by /sync and has data to lead with: then
// the others wait for it, as a leader without the store would not ask them.
func (w *World) barsOthers(m *member) bool {
	s := w.store.snap.Sync
	return len(w.store.snap.Failsafe) > 0 && !slices.ContainsFunc(w.members, func(o *member) bool {
		return o != m && w.listed(o) && (!s.Active() || s.Leader == o.name || s.Has(o.name)) && o.foreign == nil &&
			o.data.kind == ha.DiskData && !o.data.torn && (cluster.Member{Tags: o.tags}).MayLead()
	})
}

// listed tells whether a member may lead by the list.
func (w *World) listed(m *member) bool {
	list := w.store.snap.Failsafe
	return len(list) == 0 || list[m.name] != ""
}

// revive gives power, thaws and starts agents, whoever has lost them.
func (w *World) revive() {
	for _, m := range w.members {
		for m.agent != nil && m.agent.frozen > m.frozen {
			_ = w.freezeWhat(m, "agent", true)
		}
		for m.server.alive() && m.server.frozen > m.frozen {
			_ = w.freezeWhat(m, "server", true)
		}
		for m.frozen > 0 {
			_ = w.freezeWhat(m, "host", true)
		}
		if m.full = ""; m.server.alive() {
			m.server.hung = false
		}
		m.power()
		switch {
		case m.agent != nil:
			m.agent.again = m.agent.ending
		case m.foreign == nil:
			m.begin()
		}
	}
}

// reconnect ends all cuts and delays; hosts without power stay away.
func (w *World) reconnect() {
	n := &w.network
	for i := range n.links {
		n.links[i].slow = 0
		for n.links[i].cut > w.powerless(i/n.nodes)+w.powerless(i%n.nodes) {
			n.unblock(i/n.nodes, i%n.nodes)
		}
	}
	w.linksChanged()
}

// quiet tells whether nothing hinders the network and the store.
func (w *World) quiet() bool {
	return w.store.serves() && !slices.ContainsFunc(w.network.links, func(l link) bool { return l.cut > 0 || l.slow > 0 }) &&
		!slices.ContainsFunc(w.store.deposed, func(n int) bool { return n > 0 })
}

func (w *World) powerless(place int) int {
	if place < len(w.members) && w.members[place].down {
		return 1
	}
	return 0
}

// Settle undoes every fault.
func (w *World) Settle() {
	w.note("*", "all faults end")
	w.traps = nil
	w.store.loseReply, w.store.noQuorum = 0, 0
	w.settling = w.now
	for _, m := range w.members {
		w.store.deposed[m.i] = 0
		m.startFails, m.portTaken, m.promoteFails = 0, 0, 0
		if m.foreign != nil {
			m.halt()
			if m.server.alive() {
				m.server.die()
			}
			m.data, m.foreign = m.foreign, nil
		}
	}
	if slices.ContainsFunc(w.members, (*member).paused) {
		_ = w.configure([]string{"resume"})
	}
	w.revive()
	w.reconnect()
}
