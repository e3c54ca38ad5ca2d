package ha

import (
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// Placeholder stands in synchronous_standby_names where commits must wait although no standby is there. The name is
// Patroni's, so that its members understand it.
const Placeholder = "__patroni_strict_sync_replica_placeholder__"

// SyncStep is one step of the synchronous set: either synchronous_standby_names in PostgreSQL or the key /sync. Never
// both: what may acknowledge a commit and what may be promoted must overlap between any two steps.
type SyncStep struct {
	// Names is the new value of synchronous_standby_names; nil: it stays.
	Names *string `json:"names,omitempty"`
	// Record is the new /sync; nil: it stays. Delete removes the key.
	Record *cluster.Sync `json:"record,omitempty"`
	Delete bool          `json:"delete,omitempty"`
	Text   string        `json:"text"`
}

// SyncMemory is what the transitions remember.
type SyncMemory struct {
	// Names is the value of synchronous_standby_names last seen, LSN the primary's position when it was first seen. A
	// standby is confirmed once it has flushed that far: everything acknowledged under older names is then on it.
	Names string      `json:"names"`
	LSN   cluster.LSN `json:"lsn"`
	// Rev is the revision of /sync as this leader wrote it or found it first; Foreign tells that somebody else has
	// written it since, so that what it says of the standbys was never true.
	Rev     int64 `json:"rev,omitempty"`
	Foreign bool  `json:"foreign,omitempty"`
	// Resisted is the value of synchronous_standby_names that could not be changed while synchronous mode is off.
	Resisted string `json:"resisted,omitempty"`
	// Missing is since when a synchronous standby does not stream.
	Missing map[string]cluster.Instant `json:"missing,omitempty"`
	// Stalled are the standbys that stream, lack WAL, and confirm nothing: a host that was lost without a word looks so
	// until TCP or wal_sender_timeout gives it up, and commits wait for it all the while.
	Stalled map[string]Stall `json:"stalled,omitempty"`
}

// Stall is a standby's flush position that does not move, and when it was first seen there (of the probe, so that an old
// answer does not age).
type Stall struct {
	Flush cluster.LSN     `json:"flush"`
	Since cluster.Instant `json:"since"`
	Last  cluster.Instant `json:"last"` // probe
	Seen  int             `json:"seen"` // by how many probes
}

func (m *SyncMemory) note(v View) {
	if !v.Server.Primary() { // guard: sync-memory-primary
		*m = SyncMemory{}
		return
	}
	ours := writesSync(v)
	// While a change is on its way, the old names may still acknowledge.
	if m.LSN == 0 || m.Names != v.Server.SyncNames || ours { // guard: sync-position@2,3
		m.Names, m.LSN = v.Server.SyncNames, v.Server.WAL
	}
	if o := v.Outcome; o != nil && o.Kind == SetSync {
		m.Resisted = ""
		if o.Error != "" {
			m.Resisted = v.Server.SyncNames
		}
	}
	if rec := v.Store.Sync; v.Store.Known && rec.Active() && rec.ModRev != m.Rev {
		m.Foreign = m.Rev != 0 && !ours // guard: sync-foreign@2
		m.Rev = rec.ModRev
	}
	missing := map[string]cluster.Instant{}
	for _, name := range ParseNames(v.Server.SyncNames).Names {
		if _, ok := streaming(v, name); ok || name == Placeholder {
			continue
		}
		missing[name] = v.Now
		if since, ok := m.Missing[name]; ok {
			missing[name] = since
		}
	}
	m.Missing = missing
	m.noteStalls(v)
}

func (m *SyncMemory) noteStalls(v View) {
	stalled := map[string]Stall{}
	for _, s := range v.Server.Standbys {
		if s.State != "streaming" || s.Flush >= v.Server.WAL { // guard: stalled-behind@2
			continue
		}
		at := Stall{Flush: s.Flush, Since: v.Server.ProbedAt, Last: v.Server.ProbedAt, Seen: 1}
		if old, ok := m.Stalled[s.Name]; ok && old.Flush == s.Flush { // guard: stalled-moves@2
			at.Since, at.Seen = old.Since, old.Seen
			if old.Last != at.Last { // guard: stalled-probes
				at.Seen++
			}
		}
		stalled[s.Name] = at
	}
	m.Stalled = stalled
}

// stallProbes is how many probes must have seen a stall. Two prove nothing, however far apart they are: the primary's
// host may have been frozen between them, with the standby's confirmations waiting in a socket.
const stallProbes = 3

// stalledFor tells how long a streaming standby has confirmed nothing although it lacks WAL; 0: it does not.
func (m *SyncMemory) stalledFor(v View, name string) time.Duration {
	at, ok := m.Stalled[name]
	if !ok || at.Seen < stallProbes { // guard: stalled-seen@2
		return 0
	}
	return v.Server.ProbedAt.Sub(at.Since)
}

// stallGrace is how many times longer than a standby that is gone the only one may be silent before it leaves: its
// disk may just be slow.
const stallGrace = 3

// writesSync tells that a write of ours to /sync or to the names is on its way, or has just ended.
func writesSync(v View) bool {
	t, o := v.Task, v.Outcome
	return t != nil && (t.Kind == SetSync || t.Kind == Open) || o != nil && (o.Kind == SetSync || o.Kind == Open)
}

func streaming(v View, name string) (Standby, bool) {
	for _, s := range v.Server.Standbys {
		if strings.EqualFold(s.Name, name) && s.State == "streaming" {
			return s, true
		}
	}
	return Standby{}, false
}

// nextSync is the next step towards the synchronous set that the policy asks for; nil: it is reached.
func nextSync(v View, m *Memory) *SyncStep {
	rec := v.Store.Sync
	switch {
	case v.Policy.Sync == SyncOff:
		return switchOff(v, m)
	case !rec.Active() || rec.Leader != v.Me.Name: // guard: sync-owned@2
		return record(nil, 0, v.Me.Name)
	case m.Sync.Foreign && len(rec.Standbys) > 0: // guard: sync-believed@1
		s := record(nil, 0, v.Me.Name)
		s.Text = "somebody else has written /sync: beginning anew, since its standbys may lack commits"
		return s
	}
	active := eligible(v, m)
	if len(active) == 0 && v.Policy.Strict { // guard: strict@2
		return strictWithoutStandby(v)
	}
	if v.Policy.Sync == SyncQuorum {
		return nextQuorum(v, m, active)
	}
	return nextPriority(v, m, active)
}

// switchOff deletes /sync, and only then gives synchronous_standby_names back to the operator: while the key stands, its
// standbys must have every commit. A value that cannot be changed (it stands in postgresql.auto.conf) is left alone.
func switchOff(v View, m *Memory) *SyncStep {
	switch {
	case v.Store.Sync != nil: // guard: switch-off-record-first
		return &SyncStep{Delete: true, Text: "Disabled synchronous replication"}
	case v.Server.SyncNames == v.Policy.OwnNames || m.Sync.Resisted != "" && m.Sync.Resisted == v.Server.SyncNames:
		return nil
	}
	return setNames(v.Policy.OwnNames)
}

func record(names []string, quorum int, me string) *SyncStep {
	s := cluster.Sync{Leader: me, Standbys: slices.Sorted(slices.Values(names)), Quorum: quorum}
	return &SyncStep{Record: &s, Text: fmt.Sprintf("Synchronous standby status assigned to %v, quorum %d", s.Standbys, quorum)}
}

func setNames(value string) *SyncStep {
	return &SyncStep{Names: &value, Text: fmt.Sprintf("Assigning synchronous_standby_names to %q", value)}
}

// strictWithoutStandby keeps commits waiting: for the recorded standbys, or for the placeholder.
func strictWithoutStandby(v View) *SyncStep {
	rec, names := v.Store.Sync, Names{Count: 1, Any: v.Policy.Sync == SyncQuorum}
	names.Names = rec.Standbys
	if len(names.Names) == 0 {
		names.Names = []string{Placeholder}
	}
	names.Count = max(1, len(names.Names)-rec.Quorum)
	if v.Server.SyncNames == names.String() {
		return nil
	}
	return setNames(names.String())
}

// eligible lists the members that may be synchronous standbys now, best first: higher sync_priority, already
// synchronous, more WAL; members that may not lead come last. One that has just gone, or has just fallen silent, stays for
// a short while behind all that are there, so that a reconnect does not cost the protection where it is the only one.
func eligible(v View, m *Memory) []string {
	type candidate struct {
		name    string
		member  Member
		present bool
		flush   cluster.LSN
	}
	var list []candidate
	for _, c := range v.Store.Members {
		if c.Name == v.Me.Name || !c.MaySync || c.Lease == 0 { // guard: sync-member@2,3
			continue
		}
		s, ok := streaming(v, c.Name)
		stalled := m.Sync.stalledFor(v, c.Name)
		since, gone := m.Sync.Missing[c.Name]
		switch {
		case ok && tooFarBehind(v, s): // guard: sync-lag@2
		case ok && stalled < v.Policy.StandbyGoneFor: // guard: sync-stalled@2
			list = append(list, candidate{c.Name, c, true, s.Flush})
		case ok && (stalled >= stallGrace*v.Policy.StandbyGoneFor || !v.Store.Sync.Has(c.Name)): // guard: sync-stalled-only@2,3
		case ok:
			list = append(list, candidate{c.Name, c, false, s.Flush})
		case gone && v.Store.Sync.Has(c.Name) && v.Now.Sub(since) < v.Policy.StandbyGoneFor: // guard: sync-gone@2,3
			list = append(list, candidate{c.Name, c, false, 0})
		}
	}
	sort.SliceStable(list, func(i, j int) bool {
		a, b := list[i], list[j]
		switch {
		case a.present != b.present: // commits wait for one that is gone
			return a.present
		case a.member.MayLead != b.member.MayLead:
			return a.member.MayLead
		case a.member.SyncPriority != b.member.SyncPriority:
			return a.member.SyncPriority > b.member.SyncPriority
		case v.Store.Sync.Has(a.name) != v.Store.Sync.Has(b.name):
			return v.Store.Sync.Has(a.name)
		case inNames(v, a.name) != inNames(v, b.name):
			return inNames(v, a.name)
		case a.flush != b.flush:
			return a.flush > b.flush
		}
		return a.name < b.name
	})
	out := make([]string, len(list))
	for i, c := range list {
		out[i] = c.name
	}
	return out
}

func inNames(v View, name string) bool {
	return slices.Contains(ParseNames(v.Server.SyncNames).Names, name)
}

func tooFarBehind(v View, s Standby) bool {
	return v.Policy.MaxSyncLag > 0 && s.Flush.Behind(v.Server.WAL) > uint64(v.Policy.MaxSyncLag)
}

// confirmed tells whether a listed standby has flushed all that was acknowledged before it was listed.
func confirmed(v View, m *Memory, name string) bool {
	s, ok := streaming(v, name)
	if !ok || !inNames(v, name) {
		return false
	}
	if v.Store.Sync.Has(name) {
		return true
	}
	return s.Flush >= m.Sync.LSN && (s.SyncState == "sync" || s.SyncState == "quorum") // guard: confirm-flushed@1
}

// caughtUp tells whether a standby streams and has flushed all that was acknowledged before the names last changed.
// That it is recorded says nothing of that in quorum mode: any one voter may lack it.
func caughtUp(v View, m *Memory, name string) bool {
	s, ok := streaming(v, name)
	return ok && s.Flush >= m.Sync.LSN // guard: caught-up-flushed@2
}

// nextPriority: every name acknowledges every commit. A standby leaves /sync before it leaves the names, and enters the
// names before it enters /sync.
func nextPriority(v View, m *Memory, active []string) *SyncStep {
	rec := v.Store.Sync
	want := active[:min(max(1, v.Policy.SyncCount), len(active))]
	kept := intersect(covered(rec, v.Server.SyncNames), want)
	if rec.Quorum != 0 { // guard: from-quorum
		kept = slices.DeleteFunc(kept, func(n string) bool { return !caughtUp(v, m, n) })
	}
	if len(kept) < len(rec.Standbys) || rec.Quorum != 0 { // guard: leave-record-first@1
		return record(kept, 0, v.Me.Name)
	}
	names := Names{Names: slices.Sorted(slices.Values(want)), Count: len(want)}.String()
	if v.Server.SyncNames != names {
		return setNames(names)
	}
	var ready []string
	for _, n := range want {
		if confirmed(v, m, n) || rec.Has(n) { // guard: enter-confirmed@1
			ready = append(ready, n)
		}
	}
	if len(ready) != len(rec.Standbys) {
		return record(ready, 0, v.Me.Name)
	}
	return nil
}

// covered lists the recorded standbys without which nothing can be acknowledged under the names in force. After quorum
// mode, when any few of the names were enough, those are none.
func covered(rec *cluster.Sync, value string) []string {
	n := ParseNames(value)
	switch {
	case n.closed(): // guard: covered-closed
		return rec.Standbys
	case n.Count < len(n.Names): // guard: covered-any
		return nil
	}
	return intersect(rec.Standbys, n.Names)
}

// closed tells that nothing can be acknowledged under these names.
func (n Names) closed() bool {
	return slices.Contains(n.Names, Placeholder) && n.Count == len(n.Names) // guard: closed@1,2
}

func intersect(a, b []string) []string {
	var out []string
	for _, n := range a {
		if slices.Contains(b, n) {
			out = append(out, n)
		}
	}
	return out
}

func minus(a, b []string) []string {
	var out []string
	for _, n := range a {
		if !slices.Contains(b, n) {
			out = append(out, n)
		}
	}
	return out
}

// Names is a value of synchronous_standby_names.
type Names struct {
	Names []string
	Count int // of standbys that a commit waits for
	Any   bool
}

// String renders the value: one name, N (a,b) or ANY N (a,b). Names that are no plain identifiers are quoted.
func (n Names) String() string {
	if len(n.Names) == 0 {
		return ""
	}
	quoted := make([]string, len(n.Names))
	for i, name := range n.Names {
		quoted[i] = quoteName(name)
	}
	list := strings.Join(quoted, ",")
	switch {
	case n.Any:
		return fmt.Sprintf("ANY %d (%s)", n.Count, list)
	case len(n.Names) == 1:
		return list
	}
	return fmt.Sprintf("%d (%s)", n.Count, list)
}

func quoteName(name string) string {
	plain := strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == ""
	if plain && name != "" && (name[0] > '9') && !strings.EqualFold(name, "any") && !strings.EqualFold(name, "first") {
		return name
	}
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// ParseNames reads what String writes, and PostgreSQL's FIRST N (...) and plain lists besides.
func ParseNames(value string) Names {
	s := strings.TrimSpace(value)
	n := Names{Count: 1}
	if open := strings.IndexByte(s, '('); open >= 0 && strings.HasSuffix(s, ")") {
		words := strings.Fields(s[:open])
		if len(words) > 0 && strings.EqualFold(words[0], "any") {
			n.Any = true
		}
		if len(words) > 0 {
			n.Count, _ = strconv.Atoi(words[len(words)-1])
		}
		s = s[open+1 : len(s)-1]
	}
	n.Names = splitNames(s)
	n.Count = min(n.Count, len(n.Names))
	return n
}

func splitNames(s string) []string {
	var out []string
	var cur strings.Builder
	quoted := false
	flush := func() {
		if name := strings.TrimSpace(cur.String()); name != "" {
			out = append(out, name)
		}
		cur.Reset()
	}
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' && quoted && i+1 < len(s) && s[i+1] == '"':
			cur.WriteByte('"')
			i++
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			flush()
		default:
			cur.WriteByte(c)
		}
	}
	flush()
	return out
}

// NamesFor is the value of synchronous_standby_names under which a leader may start its server: the standbys that /sync
// records, so that nothing is acknowledged that they do not have. A member that does not own /sync stays closed.
func NamesFor(p Policy, s *cluster.Sync, me string) string {
	switch {
	case p.Sync == SyncOff && !s.Active():
		return ""
	case !s.Active() || s.Leader != me: // guard: start-names-owned@2
		return Placeholder
	case len(s.Standbys) == 0 && p.Strict: // guard: start-names-strict@2
		return Names{Names: []string{Placeholder}, Count: 1, Any: p.Sync == SyncQuorum}.String()
	}
	n := Names{Names: s.Standbys, Count: len(s.Standbys) - s.Quorum, Any: s.Quorum > 0 || p.Sync == SyncQuorum}
	return n.String()
}

// FirstSync is the /sync that a new leader opens with; nil: synchronous mode is off, and the key goes. Strict mode keeps the
// other recorded standbys with their quorum, and commits wait for them; otherwise the new leader begins alone.
func FirstSync(p Policy, s cluster.Snapshot, me string) *cluster.Sync {
	if p.Sync == SyncOff {
		return nil
	}
	next, old := &cluster.Sync{Leader: me}, s.Sync
	if !p.Strict || old == nil { // guard: first-sync-strict@1
		return next
	}
	for _, n := range append([]string{old.Leader}, old.Standbys...) {
		if _, ok := s.Member(n); ok && n != me { // guard: first-sync-member@1,2
			next.Standbys = append(next.Standbys, n)
		}
	}
	slices.Sort(next.Standbys)
	// As many of them as before may lack what was acknowledged; if that is all, none of them is recorded.
	if next.Quorum = old.Quorum; len(next.Standbys) <= old.Quorum { // guard: first-sync-quorum
		next.Standbys, next.Quorum = nil, 0
	}
	return next
}
