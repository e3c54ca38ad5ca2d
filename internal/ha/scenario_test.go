package ha

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/havenha/haven/internal/cluster"
)

// A scenario is a list of steps over one view and one memory, in the format that testdata/decide/README.md explains.
type scenario struct {
	name  string
	steps []step
}

type step struct {
	words []string // what changes in the view before the decision
	want  string
}

func parseScenarios(t *testing.T, text string) []scenario {
	t.Helper()
	var out []scenario
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		var last *scenario
		if len(out) > 0 {
			last = &out[len(out)-1]
		}
		switch {
		case line == "" || line[0] == '#':
		case strings.HasPrefix(line, "== "):
			out = append(out, scenario{name: line[3:]})
		case last == nil:
			t.Fatalf("line %d: outside of a scenario", n+1)
		case strings.HasPrefix(line, "->"):
			last.steps[len(last.steps)-1].want = strings.TrimSpace(line[2:])
		default:
			last.steps = append(last.steps, step{words: strings.Fields(line)})
		}
	}
	return out
}

const testSystem = "7000000000000000001"

// usual is the view that each scenario begins with: member b of a, b and c, a running standby of a, which leads in term
// 3; asynchronous replication; everything known.
func usual() View {
	v := View{
		Now: cluster.Instant(1000 * time.Second), Wall: time.Unix(1700000000, 0).UTC(),
		Me: Self{Name: "b", MayBootstrap: true, MayLead: true, Started: cluster.Instant(10 * time.Second)},
		Policy: Policy{
			TTL: 30 * time.Second, LoopWait: 10 * time.Second, MaxLag: 1 << 20, Sync: SyncOff, SyncCount: 1, UseRewind: true,
			CrashWait: 2 * time.Second, CrashHandovers: 5 * time.Minute, HungAfter: 10 * time.Second, NotStreaming: 10 * time.Second, StandbyGoneFor: 2 * time.Second, CloneLimit: 3, CloneWindow: time.Hour,
		},
		Store: Store{
			Known: true, Revision: 100, Initialize: &cluster.Initialize{SystemID: testSystem}, HasConfig: true, Timeline: 1,
			Leader: &cluster.Leader{Name: "a", Lease: 7, ModRev: 50},
			Term:   &Term{Number: 3, Holder: "a", State: cluster.TermPromoted, Fence: cluster.FenceLease, ModRev: 51, Binds: true},
		},
		Lease: Lease{ID: 8},
		Server: Server{
			Disk: DiskData, SystemID: testSystem, DiskTimeline: 1, Process: ProcessUp, Probed: true, InRecovery: true,
			Timeline: 1, WAL: 1000, Streaming: true, Upstream: "a",
		},
	}
	for i, n := range []string{"a", "b", "c"} {
		role := cluster.RoleReplica
		if n == "a" {
			role = cluster.RolePrimary
		}
		v.Store.Members = append(v.Store.Members, Member{
			Name: n, Role: role, State: cluster.StateRunning, Haven: true, Lease: int64(7 + i), MayLead: true, Priority: 1,
			MaySync: true, SyncPriority: 1, Checkpoint: true, Timeline: 1, Position: 1000,
		})
	}
	return v
}

// setter changes one thing of the view. Sizes are bytes, times are durations.
type setter func(v *View, value string)

func setters() map[string]setter {
	return map[string]setter{
		"after":    func(v *View, s string) { v.Now = v.Now.Add(duration(s)) },
		"store":    func(v *View, s string) { v.Store.Known = s != "unknown" },
		"leader":   setLeader,
		"term":     setTerm,
		"binds":    func(v *View, s string) { v.Store.Term.Binds = s == "yes" }, // after leader and term, which set it
		"sync":     setSyncKey,
		"init":     setInit,
		"config":   func(v *View, s string) { v.Store.HasConfig = s != "-" },
		"listed":   func(v *View, s string) { v.Store.Failsafe = fields(s) },
		"word":     setWord,
		"proof":    func(v *View, s string) { v.Lease.Failsafe = s == "members" }, // after lease, which sets it
		"optime":   func(v *View, s string) { v.Store.Optime = cluster.LSN(number(s)) },
		"history":  func(v *View, s string) { v.Store.Timeline = cluster.Timeline(number(s)) },
		"failover": setFailover,
		"member":   setMember,
		"me":       setMe,
		"lease":    setLease,
		"server":   setServer,
		"disk":     func(v *View, s string) { v.Server.Disk = Disk(s) },
		"system":   func(v *View, s string) { v.Server.SystemID = s },
		"wal":      func(v *View, s string) { v.Server.WAL = cluster.LSN(number(s)) },
		"timeline": func(v *View, s string) { v.Server.Timeline = cluster.Timeline(number(s)) },
		"upstream": func(v *View, s string) { v.Server.Upstream = strings.Trim(s, "-") },
		"names":    func(v *View, s string) { v.Server.SyncNames = strings.ReplaceAll(strings.Trim(s, "-"), "_", " ") },
		"streams":  setStandbys,
		"survey":   setSurvey,
		"compare":  setCompare,
		"knocks":   setKnocks,
		"room":     setRoom,
		"recovery": func(v *View, s string) { v.Server.Recovery = strings.ReplaceAll(strings.Trim(s, "-"), "_", " ") },
		"busy":     func(v *View, s string) { v.Server.Busy = s == "yes" },
		"replayed": func(v *View, s string) { v.Server.Replayed = cluster.LSN(number(s)) },
		"crash":    func(v *View, s string) { v.Server.Crash = &Crash{Text: s, At: v.Now} },
		"overdue":  func(v *View, s string) { v.Server.Crash = &Crash{Text: s, At: v.Now, Overdue: true} },
		"task":     setTask,
		"restart":  setRestart,
		"reinit":   setReinit,
		"policy":   setPolicy,
	}
}

func duration(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		panic(err)
	}
	return d
}

func number(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		panic(err)
	}
	return n
}

func fields(s string) []string {
	if s == "-" || s == "" {
		return nil
	}
	return strings.Split(s, ",")
}

func setLeader(v *View, s string) { // name[:revision]
	v.Store.Leader = nil
	if name, rev, _ := strings.Cut(s, ":"); name != "-" {
		v.Store.Leader = &cluster.Leader{Name: name, Lease: 7, ModRev: 50}
		if rev != "" {
			v.Store.Leader.ModRev = int64(number(rev))
		}
	}
	setBinds(v)
}

func setBinds(v *View) {
	if t := v.Store.Term; t != nil {
		t.Binds = v.Store.Leader != nil && v.Store.Leader.Name == t.Holder
	}
}

func setTerm(v *View, s string) { // number:holder:state[:fence[:cause]]
	v.Store.Term = nil
	if s == "-" {
		return
	}
	p := strings.Split(s, ":")
	t := &Term{Number: uint64(number(p[0])), Holder: p[1], State: cluster.TermState(p[2]), Fence: cluster.FenceLease, ModRev: 50 + int64(number(p[0]))}
	if len(p) > 3 {
		t.Fence = cluster.Fence(p[3])
	}
	if len(p) > 4 {
		t.Cause = &cluster.Cause{Code: p[4]}
	}
	v.Store.Term = t
	setBinds(v)
}

func setSyncKey(v *View, s string) { // leader:standbys[:quorum[:revision]]
	v.Store.Sync = nil
	if s == "-" {
		return
	}
	p := strings.Split(s, ":")
	v.Store.Sync = &cluster.Sync{Leader: p[0], Standbys: fields(p[1]), ModRev: 60}
	if len(p) > 2 {
		v.Store.Sync.Quorum = number(p[2])
	}
	if len(p) > 3 {
		v.Store.Sync.ModRev = int64(number(p[3]))
	}
}

func setInit(v *View, s string) {
	switch s {
	case "-":
		v.Store.Initialize = nil
	case "empty":
		v.Store.Initialize = &cluster.Initialize{}
	default:
		v.Store.Initialize = &cluster.Initialize{SystemID: s}
	}
}

func setFailover(v *View, s string) { // leader>candidate[:later|stale|due[:revision]]
	v.Store.Failover = nil
	if s == "-" {
		return
	}
	who, when, _ := strings.Cut(s, ":")
	when, rev, _ := strings.Cut(when, ":")
	l, c, _ := strings.Cut(who, ">")
	v.Store.Failover = &Request{Leader: l, Candidate: c, Due: when != "later", Scheduled: when != "", Stale: when == "stale", ModRev: 70}
	if rev != "" {
		v.Store.Failover.ModRev = int64(number(rev))
	}
}

func setMember(v *View, s string) { // name:word,word
	name, words, _ := strings.Cut(s, ":")
	i := slices.IndexFunc(v.Store.Members, func(m Member) bool { return m.Name == name })
	if i < 0 {
		v.Store.Members = append(v.Store.Members, Member{Name: name, Lease: 20, MayLead: true, Priority: 1, MaySync: true, SyncPriority: 1, State: cluster.StateRunning, Checkpoint: true, Haven: true})
		i = len(v.Store.Members) - 1
	}
	m := &v.Store.Members[i]
	for _, w := range fields(words) {
		switch w {
		case "gone":
			v.Store.Members = slices.Delete(v.Store.Members, i, i+1)
			return
		case "nofailover":
			m.MayLead, m.Priority = false, 0
		case "nosync":
			m.MaySync = false
		case "nolease":
			m.Lease = 0
		case "clonefrom":
			m.CloneFrom = true
		case "checkpointing":
			m.Checkpoint = false
		case "stopped":
			m.State = cluster.StateStopped
		case "initdb":
			m.State = cluster.StateInitdb
		case "patroni":
			m.Haven = false
		case "priority2":
			m.Priority = 2
		case "ok", "hung", "unknown":
			m.Health = strings.TrimPrefix(w, "unknown")
		case "full":
			m.Health = HealthFull
		case "nowatchdog":
			m.Health = HealthUnguarded
		case "syncfirst":
			m.SyncPriority = 2
		case "replica":
			m.Role = cluster.RoleReplica
		case "standbyleader":
			m.Role = cluster.RoleStandbyLeader
		case "streams", "lagging":
			m.Streaming = w == "streams"
		case "nostream":
			m.NoStream = true
		default:
			if at, ok := strings.CutPrefix(w, "at"); ok {
				m.Position = cluster.LSN(number(at))
				continue
			}
			from, ok := strings.CutPrefix(w, "from-")
			if !ok {
				panic(w)
			}
			m.ReplicateFrom = from
		}
	}
}

func setMe(v *View, s string) {
	for _, w := range fields(s) {
		switch w {
		case "nofailover":
			v.Me.MayLead = false
		case "nobootstrap":
			v.Me.MayBootstrap = false
		case "new":
			v.Me.Started = v.Now
		case "nostream":
			v.Me.NoStream = true
		case "cascades":
			v.Me.ReplicateFrom = "c"
		default:
			v.Me.Name = w
		}
	}
}

func setWord(v *View, s string) { // name:for
	to, lasts, _ := strings.Cut(s, ":")
	v.Pledge = Pledge{To: to, Until: v.Now.Add(duration(lasts))}
}

func setLease(v *View, s string) { // none, free, lost, or how long leadership is proven for
	id := v.Lease.ID
	v.Lease = Lease{ID: id}
	switch s {
	case "none":
		v.Lease.ID = 0
	case "free":
	case "lost":
		v.Lease = Lease{ID: 8, Held: true, Lost: true, Deadline: v.Now.Add(10 * time.Second)}
	default:
		v.Lease = Lease{ID: 8, Held: true, Deadline: v.Now.Add(duration(s)), LeaderRev: 50}
		if t := v.Store.Term; t != nil {
			v.Lease.TermRev = t.ModRev
		}
	}
}

func setServer(v *View, s string) {
	sv := &v.Server
	for _, w := range fields(s) {
		switch w {
		case "primary":
			sv.Process, sv.Probed, sv.InRecovery, sv.WasPrimary, sv.Streaming, sv.Upstream = ProcessUp, true, false, true, false, ""
		case "standby":
			sv.Process, sv.Probed, sv.InRecovery, sv.WasPrimary, sv.Streaming = ProcessUp, true, true, false, true
		case "promoted":
			v.Server.Promoted = true
		case "silent": // a standby without a stream
			sv.Process, sv.Probed, sv.InRecovery, sv.WasPrimary, sv.Streaming = ProcessUp, true, true, false, false
		case "waiting", "replaying":
			sv.Waiting = w == "waiting"
		case "mute":
			sv.Process, sv.Probed, sv.Streaming = ProcessUp, false, false
		case "down", "orphans", "unknown":
			sv.Process, sv.Probed, sv.Streaming, sv.Standbys = Process(w), false, false, nil
		case "wasprimary":
			sv.WasPrimary = true
		case "torn":
			sv.Torn = true
		case "pending":
			sv.PendingRestart = true
		case "settled":
			sv.PendingRestart = false
		default:
			panic(w)
		}
	}
}

func setStandbys(v *View, s string) { // name:flush[:state[:syncstate]]
	v.Server.Standbys = nil
	for _, f := range fields(s) {
		p := append(strings.Split(f, ":"), "streaming", "async")
		if len(p) == 4 {
			p[2], p[3] = "streaming", "async"
		}
		v.Server.Standbys = append(v.Server.Standbys, Standby{Name: p[0], Flush: cluster.LSN(number(p[1])), State: p[2], SyncState: p[3]})
	}
}

func setSurvey(v *View, s string) { // name:position[:timeline[:word]] or name:refused, name:silent
	v.Survey = nil
	if s == "none" {
		return
	}
	v.Survey = &Survey{At: v.Now}
	for _, f := range fields(s) {
		p := strings.Split(f, ":")
		a := Answer{Name: p[0], MayLead: true, Priority: 1, Timeline: v.Server.Timeline}
		switch p[1] {
		case "refused":
			a.Refused, a.Error = true, "connection refused"
		case "silent":
			a.Error = "no answer"
		default:
			a.Reachable, a.Position = true, cluster.LSN(number(p[1]))
		}
		if len(p) > 2 && p[2] != "" {
			a.Timeline = cluster.Timeline(number(p[2]))
		}
		if len(p) > 3 {
			a.Primary = p[3] == "primary"
			a.MayLead = p[3] != "nofailover"
			if p[3] == "priority2" {
				a.Priority = 2
			}
		}
		v.Survey.Answers = append(v.Survey.Answers, a)
	}
}

func setCompare(v *View, s string) { // with:same, with:diverged, with:twin or with:gone; close:… compares the WAL
	if v.Compare = nil; s == "-" {
		return
	}
	close, s, closely := strings.Cut(s, "close:")
	if !closely {
		s = close
	}
	name, result, _ := strings.Cut(s, ":")
	v.Compare = &Compare{Close: closely, Gone: result == "gone", With: name, LeaderRev: 50, At: v.Now, Diverged: result == "diverged" || result == "twin", Twin: result == "twin", Text: "the histories are " + result}
}

func setKnocks(v *View, s string) { // how many tries have failed:within what time[:write]
	v.Server.Knocks = Knocks{}
	s, stalled := strings.CutSuffix(s, ":write")
	if n, within, ok := strings.Cut(s, ":"); ok {
		v.Server.Knocks = Knocks{Failed: number(n), Failing: v.Now.Add(-duration(within)), Last: v.Now, Stalled: stalled, Text: "timeout"}
	}
}

func setRoom(v *View, s string) { // data:WAL, in MB
	v.Server.Room = Room{}
	if data, wal, ok := strings.Cut(s, ":"); ok {
		v.Server.Room = Room{Known: true, Data: uint64(number(data)) << 20, WAL: uint64(number(wal)) << 20, Segment: 16 << 20}
	}
}

func setTask(v *View, s string) {
	v.Task = nil
	if s != "-" {
		kind, with, _ := strings.Cut(s, ":")
		v.Task = &Task{Kind: Kind(kind), With: with, Since: v.Now}
	}
}

func setRestart(v *View, s string) { // role, pending, below:version, any
	v.Restart = nil
	for _, w := range fields(s) {
		if v.Restart == nil {
			v.Restart = &Restart{}
		}
		name, value, _ := strings.Cut(w, ":")
		switch name {
		case "pending":
			v.Restart.Pending = true
		case "below":
			v.Restart.Below = number(value)
		case "primary", "replica":
			v.Restart.Role = name
		}
	}
}

func setReinit(v *View, s string) {
	v.Reinit = nil
	if s != "-" {
		v.Reinit = &Reinit{FromLeader: s == "leader"}
	}
}

func setPolicy(v *View, s string) {
	for _, w := range fields(s) {
		name, value, _ := strings.Cut(w, ":")
		switch name {
		case "on", "quorum", "off":
			v.Policy.Sync = SyncMode(name)
		case "strict":
			v.Policy.Strict = true
		case "copiesalone":
			v.Policy.CopiesAlone = true
		case "pause":
			v.Policy.Pause = true
		case "resume":
			v.Policy.Pause = false
		case "nohung":
			v.Policy.HungAfter = 0
		case "norewind":
			v.Policy.UseRewind = false
		case "timelines":
			v.Policy.CheckTimeline = true
		case "count":
			v.Policy.SyncCount = number(value)
		case "lag":
			v.Policy.MaxSyncLag = int64(number(value))
		case "remote":
			v.Policy.Remote = "/far"
		case "local":
			v.Policy.Remote = ""
		case "nocrashwait":
			v.Policy.CrashWait = 0
		case "start":
			v.Policy.StartLimit = duration(value)
		case "backoff":
			v.Policy.RaceBackoff = duration(value)
		case "own":
			v.Policy.OwnNames = value
		default:
			panic(w)
		}
	}
}

// play applies the words of a step and decides. done and failed are the outcome of the last decision's action.
func play(v View, m Memory, last Action, words []string) (View, Memory, Decision) {
	set := setters()
	v.Outcome = nil
	v.Now = v.Now.Add(100 * time.Millisecond)
	for _, w := range words {
		name, value, _ := strings.Cut(w, "=")
		switch name {
		case "done", "failed", "unbegun":
			o := &Outcome{Kind: last.Kind, With: last.Member, Request: last.Request, Unbegun: name == "unbegun"}
			if name != "done" {
				o.Error = "it failed"
			}
			v.Outcome = o
			continue
		}
		f, ok := set[name]
		if !ok {
			panic("unknown word " + w)
		}
		f(&v, value)
	}
	if v.Server.Probed {
		v.Server.ProbedAt = v.Now
	}
	d, m := Decide(v, m)
	return v, m, d
}

// tell is a decision in one line.
func tell(d Decision) string {
	text := string(d.Action.Kind)
	if d.Action.Member != "" {
		text += " " + d.Action.Member
	}
	if d.Action.Close {
		text += " closely"
	}
	if d.Action.AsPrimary {
		text += " as primary"
	}
	if s := d.Action.Sync; s != nil {
		switch {
		case s.Delete:
			text += " delete"
		case s.Record != nil:
			text += fmt.Sprintf(" record %v quorum %d", s.Record.Standbys, s.Record.Quorum)
		case s.Names != nil:
			text += fmt.Sprintf(" names %q", *s.Names)
		}
	}
	if d.Cancel {
		text += ", cancels the task"
	}
	text += fmt.Sprintf(" (%s) %s", d.Reason.Code, d.Reason.Text)
	if c := d.Action.Cause; c != nil {
		text += fmt.Sprintf("; cause %s: %s", c.Code, c.Text)
	}
	return text
}
