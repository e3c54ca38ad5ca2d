package sim

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"
)

// Schedule is the random schedule of a seed: a world, faults with their undoing, requests of operators, and at the end the
// wait for health. It is a scenario, so that it can be kept as a file, and made smaller.
func Schedule(seed uint64) Scenario {
	g := generator{random: random{seed ^ 0x5eed}}
	g.world(seed)
	rounds := 5 + g.below(9)
	at := 15 * time.Second
	if g.oneIn(8) { // the bootstrap is hit too
		at = 0
	} else {
		g.line(0, "healthy 100s")
	}
	if !g.single(seed, at) {
		for range rounds {
			at += g.pause()
			g.fault(at)
		}
		g.orders(seed, at)
		g.withoutStore(seed, at)
		g.standby(seed, at)
	}
	sort.SliceStable(g.lines, func(i, j int) bool { return g.lines[i].After < g.lines[j].After })
	var now time.Duration
	s := Scenario{Options: g.options, header: g.header}
	for _, l := range g.lines {
		s.Steps = append(s.Steps, Step{l.After - now, l.Command})
		now = l.After
	}
	s.Steps = append(s.Steps, Step{g.between(0, 10*time.Second), "settle"})
	return s
}

// generator draws a schedule. After of its lines is counted from the beginning.
type generator struct {
	random
	options Options
	header  []string
	lines   []Step
	mode    string
	guard   bool
	harmed  bool // a disk was harmed: once in a schedule
	// failsafe: it is on from the beginning.
	failsafe bool
}

func (g *generator) line(at time.Duration, format string, args ...any) {
	g.lines = append(g.lines, Step{at.Truncate(time.Millisecond), fmt.Sprintf(format, args...)})
}

func (g *generator) pause() time.Duration {
	switch g.below(4) {
	case 0:
		return g.between(10*time.Millisecond, 500*time.Millisecond)
	case 1:
		return g.between(500*time.Millisecond, 4*time.Second)
	}
	return g.between(2*time.Second, 16*time.Second)
}

func (g *generator) world(seed uint64) {
	n := pick(&g.random, []int{2, 3, 3, 3, 4, 5})
	g.mode = pick(&g.random, []string{"off", "on", "on", "on strict", "quorum", "quorum", "quorum strict"})
	g.guard = !g.oneIn(4)
	policy := g.mode + " ttl=" + pick(&g.random, []string{"6s", "10s", "10s", "20s", "30s"})
	if g.oneIn(3) {
		policy += " count=2"
	}
	if g.oneIn(6) {
		policy += " norewind"
	}
	if g.oneIn(4) {
		policy += " timelines"
	}
	if g.mode == "off" && g.oneIn(2) {
		policy += " lag=20"
	}
	g.header = []string{fmt.Sprintf("members %d", n), fmt.Sprintf("seed %d", seed), "policy " + policy}
	if !g.guard {
		g.header = append(g.header, "guard none")
	}
	for i := range n {
		if g.oneIn(6) {
			g.header = append(g.header, fmt.Sprintf("tags %c %s", 'a'+i, g.tag(n)))
		}
	}
	if c := (&random{seed ^ 0xca5c}); n > 2 && c.oneIn(4) { // drawn apart, so that other schedules are what they were
		who := c.below(n)
		g.header = append(g.header, fmt.Sprintf("tags %c replicatefrom=%c", 'a'+who, 'a'+(who+1+c.below(n-1))%n))
	}
	g.failsafe = (&random{seed ^ 0xfa11}).oneIn(3)
	if g.failsafe {
		g.header[2] += " failsafe"
	}
	if o := (&random{seed ^ 0x57a7}); o.oneIn(4) {
		g.header[2] += " start=" + pick(o, []string{"1ns", "1s", "10s"})
	} else if o.oneIn(6) {
		g.header[2] += " backoff=" + pick(o, []string{"5s", "15s"})
	}
	s := Scenario{Options: Options{Policy: usual(), Guard: true}}
	for _, h := range g.header {
		_ = s.head(strings.Fields(h)) // of our own making
	}
	g.options = s.Options
}

// tag leaves enough members that may lead and be synchronous.
func (g *generator) tag(members int) string {
	if members < 4 || strings.Contains(g.mode, "strict") {
		return pick(&g.random, []string{"failover_priority=2", "sync_priority=3", "clonefrom=true"})
	}
	return pick(&g.random, []string{"nofailover=true", "nofailover=true", "failover_priority=2", "nosync=true", "sync_priority=3"})
}

// who is a member, more often one that matters.
func (g *generator) who() string {
	switch g.below(5) {
	case 0, 1:
		return "leader"
	case 2:
		return "sync"
	}
	return string(rune('a' + g.below(g.options.Members)))
}

// alone tells whether an agent alone may die or freeze: without a guard only priority mode is safe then (ADR 4).
func (g *generator) alone() bool { return g.guard || strings.HasPrefix(g.mode, "on") }

// fault draws one fault with its undoing, or a request.
func (g *generator) fault(at time.Duration) {
	end := at + g.between(100*time.Millisecond, 3*time.Second)
	if g.oneIn(2) {
		end = at + g.between(time.Second, 45*time.Second)
	}
	if strings.HasPrefix(g.mode, "quorum") && g.oneIn(3) {
		g.restartedVoter(at)
		return
	}
	switch n := g.below(26); n {
	case 25:
		g.recycled(at, end)
	case 24:
		g.line(at, "fill %s %s", g.who(), pick(&g.random, []string{"data", "wal", "wal"}))
		g.line(end, "revive")
	case 23:
		g.line(at, "hang %s", g.who())
		g.line(end, "revive")
	case 0, 1:
		g.serverFault(at, end)
	case 2, 3, 4:
		g.line(at, "kill %s %s", g.who(), g.victim("host"))
		g.line(end, "revive")
	case 5, 6:
		g.line(at, "freeze %s %s", g.who(), g.victim("host", "server"))
		g.line(end, "revive")
	case 7, 8, 9:
		g.cut(at, end)
	case 10:
		g.line(at, "slow %s", g.who())
		g.line(end, "reconnect")
	case 11, 22:
		g.storeFault(at, end)
	case 12, 13:
		g.request(at)
	case 14:
		g.config(at, end)
	case 15:
		g.line(at, "delete %s", pick(&g.random, []string{"leader", "leader", "config", "initialize"}))
	case 16:
		g.line(at, "stop %s", g.who())
		g.line(end, "revive")
	case 17:
		g.diskFault(at, end)
	default:
		g.trap(at, end)
	}
	if g.oneIn(3) {
		g.line(at, "burst leader")
	}
}

// orders draws what operators order of single members, by chance of its own: a schedule is otherwise what it was without.
func (g *generator) orders(seed uint64, end time.Duration) {
	o := generator{random: random{seed ^ 0x0bde5}, options: g.options}
	for range o.below(4) {
		at := o.between(15*time.Second, max(end, 16*time.Second))
		if o.oneIn(3) {
			g.line(at, "at %d of any restart : %s", 1+o.below(4), pick(&o.random, []string{"kill it host", "kill it server", "freeze it host", "cut it from store", "cut it from all"}))
			g.line(at+o.between(time.Second, 10*time.Second), "revive")
			g.line(at+11*time.Second, "reconnect")
		}
		// To copy a member anew is to do without its data meanwhile: beside a harmed disk that would be a second loss, after which
		// a cluster of three rightly waits for a person.
		if o.oneIn(3) && !g.harmed {
			g.line(at, "reinit %s", o.who())
		} else {
			g.line(at, "restart %s", o.who())
		}
	}
}

// standby makes the cluster a standby of another for a while, or for good, by chance of its own.
func (g *generator) standby(seed uint64, end time.Duration) {
	o := generator{random: random{seed ^ 0x57b}, options: g.options}
	if !o.oneIn(6) {
		return
	}
	at := o.between(15*time.Second, max(end, 16*time.Second))
	g.line(at, "config standby")
	if !o.oneIn(4) {
		g.line(at+o.between(100*time.Millisecond, 40*time.Second), "config own")
	}
}

// withoutStore draws long times without the store for leaders in failsafe mode, and what befalls the members meanwhile, by chance
// of its own.
func (g *generator) withoutStore(seed uint64, end time.Duration) {
	o := generator{random: random{seed ^ 0xfa11f}, options: g.options, guard: g.guard, mode: g.mode}
	switch {
	case !g.failsafe && !o.oneIn(8):
		return
	case !g.failsafe:
		g.line(o.between(15*time.Second, end), "config failsafe")
	case o.oneIn(6):
		at := o.between(15*time.Second, end)
		g.line(at, "config nofailsafe")
		g.line(at+o.between(time.Second, 30*time.Second), "config failsafe")
	}
	ttl := g.options.Policy.TTL
	for range 1 + o.below(3) {
		at := o.between(15*time.Second, max(end, 16*time.Second))
		lasts := o.between(ttl/2, 4*ttl)
		g.line(at, "%s", pick(&o.random, []string{"store down", "store down", "cut leader from store", "cut leader from store", "cut leader from store outbound", "cut " + o.who() + " from store"}))
		for range o.below(4) {
			g.line(at+o.between(0, lasts), "%s", o.meanwhile())
		}
		if o.oneIn(4) {
			g.joins(&o, at)
		}
		if o.oneIn(3) {
			g.lastRound(&o, at+o.between(0, lasts))
		}
		if o.oneIn(3) {
			g.line(at+o.between(0, lasts), "revive")
		}
		g.line(at+lasts, "store up")
		g.line(at+lasts+o.between(0, ttl), "reconnect")
		g.line(at+lasts+o.between(0, ttl), "revive")
	}
}

// joins has a member come back, and its leader lose the store as that is written.
func (g *generator) joins(o *generator, at time.Duration) {
	who := 'a' + o.below(g.options.Members)
	g.line(at, "kill %c host", who)
	at += g.options.Policy.TTL + o.between(time.Second, 5*time.Second)
	g.line(at, "at 1 of any list : cut it from store")
	g.line(at+time.Millisecond, "revive")
	g.line(at+o.between(500*time.Millisecond, 4*time.Second), "cut %c from members", who)
}

// lastRound has a leader that is cut from the store wait for one member's word, and then for all.
func (g *generator) lastRound(o *generator, at time.Duration) {
	late := 'a' + o.below(g.options.Members)
	g.line(at, "cut leader from store")
	g.line(at+o.between(0, time.Second), "cut %c from leader", late)
	at += o.between(2*time.Second, 6*time.Second)
	g.line(at, "heal %c from leader", late)
	at += o.between(10*time.Millisecond, g.options.Policy.TTL/3)
	g.line(at, "cut leader from all")
	if o.alone() && o.oneIn(2) { // those who gave their word forget it with their agents, if it is in memory alone
		for i := range g.options.Members {
			if i != late-'a' {
				g.line(at+time.Millisecond, "kill %c agent", 'a'+i)
			}
		}
		g.line(at+2*time.Millisecond, "revive")
	}
}

// meanwhile is what befalls a member while there is no store.
func (g *generator) meanwhile() string {
	who, other := g.who(), string(rune('a'+g.below(g.options.Members)))
	list := []string{
		"kill " + who + " server", "kill " + who + " host", "freeze " + who + " host", "cut " + who + " from " + other, "cut " + who + " from members",
		"cut " + who + " from " + other + " inbound", "cut leader from members outbound", "slow " + who, "reconnect", "store up", "lose answer",
		"at 1 of any acquire : cut it from store", "cut " + other + " from store", "heal " + other + " from store", "stop " + who, "switchover to " + other,
	}
	if g.alone() {
		list = append(list, "kill "+who+" agent", "freeze "+who+" agent", "kill "+who+" agent")
	}
	return pick(&g.random, list)
}

// victim adds the agent where it may die alone.
func (g *generator) victim(others ...string) string {
	if g.alone() {
		others = append(others, "agent")
	}
	return pick(&g.random, others)
}

func (g *generator) serverFault(at, end time.Duration) {
	who := g.who()
	if g.oneIn(3) {
		who = string(rune('a' + g.below(g.options.Members)))
		what := pick(&g.random, []string{"start", "port", "promote"})
		g.line(at, "break %s %s", who, what)
		g.line(end, "mend %s %s", who, what)
	}
	g.line(at, "kill %s %s", who, pick(&g.random, []string{"server", "server", "server", "backend"}))
}

// restartedVoter has one voter fall behind, the leader's host fail, and another voter restart shortly before the lease ends
// (safety: H2).
func (g *generator) restartedVoter(at time.Duration) {
	behind, ttl := g.below(g.options.Members), g.options.Policy.TTL
	g.line(at, "cut %c from leader", 'a'+behind)
	at += g.between(200*time.Millisecond, 1500*time.Millisecond)
	g.line(at, "burst leader")
	at += g.between(10*time.Millisecond, 500*time.Millisecond)
	g.line(at, "kill leader host")
	for i := range g.options.Members {
		if i != behind {
			g.line(at+ttl-g.between(500*time.Millisecond, 4*time.Second), "kill %c %s", 'a'+i, pick(&g.random, []string{"server", "server", "backend"}))
		}
	}
	g.line(at+ttl+g.between(3*time.Second, 20*time.Second), "revive")
	g.line(at+ttl+20*time.Second, "reconnect")
}

// single draws, by chance of its own, a schedule of one kind of fault and nothing else: among other faults it is rare that nothing
// but the position of a restarted voter, or the word of a deposed store, decides who leads.
func (g *generator) single(seed uint64, at time.Duration) bool {
	o := &random{seed ^ 0x2e57}
	if !o.oneIn(4) {
		return false
	}
	ttl := g.options.Policy.TTL
	for range 3 {
		at += g.between(15*time.Second, 25*time.Second)
		if strings.HasPrefix(g.mode, "quorum") {
			g.restartedVoter(at)
		} else {
			g.line(at, "depose leader")
			g.line(at+g.between(0, 2*ttl), "%s", g.meanwhile())
			g.line(at+2*ttl, "reconnect")
			g.line(at+2*ttl, "revive")
		}
		at += ttl + 21*time.Second
	}
	return true
}

// recycled has a member fall behind while the leader keeps no WAL for it.
func (g *generator) recycled(at, end time.Duration) {
	g.line(at, "cut %c from leader", 'a'+g.below(g.options.Members))
	g.line(at+g.between(0, end-at), "recycle leader")
	g.line(end, "recycle leader")
	g.line(end, "reconnect")
}

func (g *generator) cut(at, end time.Duration) {
	from := pick(&g.random, []string{"all", "members", "store", "store", g.who()})
	direction := pick(&g.random, []string{"", "", " inbound", " outbound"})
	who := g.who()
	g.line(at, "cut %s from %s%s", who, from, direction)
	if g.oneIn(3) {
		g.line(at+g.between(0, time.Second), "kill %s server", g.who())
	}
	g.line(end, "reconnect")
}

func (g *generator) storeFault(at, end time.Duration) {
	switch g.below(4) {
	case 0:
		g.line(at, "elect %s", g.between(300*time.Millisecond, 4*time.Second).Truncate(time.Millisecond))
	case 1:
		g.line(at, "store down")
		g.line(end, "store up")
	case 2:
		who := string(rune('a' + g.below(g.options.Members)))
		if g.oneIn(2) {
			for i := range g.options.Members {
				g.line(end, "restore %c", 'a'+i)
			}
			who = "leader"
		}
		g.line(at, "depose %s", who)
		g.line(end, "restore %s", who)
	default:
		for range 1 + g.below(3) {
			g.line(at, "lose answer")
		}
	}
}

func (g *generator) request(at time.Duration) {
	to := string(rune('a' + g.below(g.options.Members)))
	switch g.below(5) {
	case 0:
		g.line(at, "failover to %s", to)
	case 1:
		g.line(at, "switchover from %c", 'a'+g.below(g.options.Members))
	case 2:
		g.line(at, "switchover")
	default:
		g.line(at, "switchover to %s", to)
	}
}

func (g *generator) config(at, end time.Duration) {
	if g.oneIn(3) {
		g.line(at, "config pause")
		g.line(end, "config resume")
		return
	}
	mode := pick(&g.random, []string{"off", "on lenient", "on strict", "quorum lenient", "quorum strict", "count=1", "count=2", "ttl=10s", "ttl=20s"})
	if !g.alone() || g.guard || !strings.HasPrefix(mode, "quorum") && mode != "off" {
		g.line(at, "config %s", mode)
	}
}

func (g *generator) diskFault(at, end time.Duration) {
	if g.harmed {
		return
	}
	g.harmed = true
	who := string(rune('a' + g.below(g.options.Members)))
	if g.oneIn(3) { // the server ends, and its agent does not
		g.line(at, "kill leader server")
		g.line(at+45*time.Millisecond, "%s leader", pick(&g.random, []string{"wipe", "signal"}))
		return
	}
	verbs := []string{"wipe", "foreign", "holes"}
	if g.mode == "off" {
		verbs = append(verbs, "garble")
	}
	verb := pick(&g.random, verbs)
	g.line(at, "kill %s host", who)
	g.line(at+time.Millisecond, "%s %s", verb, who)
	if verb == "foreign" {
		g.line(at+time.Second, "tryout %s", who)
		g.line(end+time.Second, "native %s", who)
	}
	g.line(end+time.Second, "revive")
}

// trap has something happen between two steps of an action, and something that leads to such actions.
func (g *generator) trap(at, end time.Duration) {
	kind := pick(&g.random, []string{"", "switchover", "promote", "open", "sync", "sync", "sync", "acquire", "rewind", "kill", "start", "handover", "bootstrap", "open"})
	command := pick(&g.random, []string{"kill it host", "kill it server", "freeze it host", "cut it from store", "cut it from all", "elect 1s", "lose answer"})
	if g.alone() && g.oneIn(2) {
		command = pick(&g.random, []string{"kill it agent", "freeze it agent"})
	}
	g.line(at, "at %d of any %s : %s", 1+g.below(3), kind, command)
	switch g.below(4) {
	case 0:
		g.request(at)
	case 1:
		g.line(at, "kill leader server")
	case 2:
		g.line(at, "kill leader host")
	case 3:
		g.line(at, "kill sync server")
	}
	g.line(end, "revive")
	g.line(end, "reconnect")
}

// Shrink takes lines away from a failing scenario as long as it fails with the same invariant.
func (s Scenario) Shrink() Scenario {
	fails := func(o Scenario) bool {
		w, err := o.Play()
		was := w.Failure()
		return err == nil && was != nil && was.Number == s.number()
	}
	for again := true; again; {
		again = false
		for size := max(1, len(s.Steps)/2); size >= 1; size /= 2 {
			for i := 0; i+size <= len(s.Steps); {
				smaller := s
				smaller.Steps = slices.Delete(slices.Clone(s.Steps), i, i+size)
				if i < len(smaller.Steps) { // the rest happens when it did
					for _, gone := range s.Steps[i : i+size] {
						smaller.Steps[i].After += gone.After
					}
				}
				if fails(smaller) {
					s, again = smaller, true
				} else {
					i += size
				}
			}
		}
	}
	return s
}

func (s Scenario) number() int {
	w, _ := s.Play()
	if f := w.Failure(); f != nil {
		return f.Number
	}
	return -1
}
