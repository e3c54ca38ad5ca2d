package sim

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/havenha/haven/internal/ha"
)

// usual is the policy that scenarios begin with: Patroni's defaults.
func usual() ha.Policy {
	return ha.Policy{
		TTL: 30 * time.Second, LoopWait: 10 * time.Second, MaxLag: 1 << 20, Sync: ha.SyncOff, SyncCount: 1, UseRewind: true,
		CrashWait: 2 * time.Second, CrashHandovers: 5 * time.Minute, HungAfter: 10 * time.Second, NotStreaming: 10 * time.Second, StandbyGoneFor: 2 * time.Second, CloneLimit: 3, CloneWindow: time.Hour,
	}
}

// ReadPolicy changes a policy by words: off, on, quorum, strict, lenient, pause, resume, failsafe, nofailsafe, rewind, norewind, timelines, standby, own, and
// ttl=10s, count=2, lag=100, clones=1, start=1ns, backoff=5s.
func ReadPolicy(p ha.Policy, words []string) (ha.Policy, error) {
	for _, word := range words {
		name, value, _ := strings.Cut(word, "=")
		var err error
		switch name {
		case "off", "on", "quorum":
			p.Sync = ha.SyncMode(name)
		case "strict", "lenient":
			p.Strict = name == "strict"
		case "pause", "resume":
			p.Pause = name == "pause"
		case "rewind", "norewind":
			p.UseRewind = name == "rewind"
		case "failsafe", "nofailsafe":
			p.Failsafe = name == "failsafe"
		case "standby":
			p.Remote = ha.RemotePrefix + "far"
		case "own":
			p.Remote = ""
		case "timelines":
			p.CheckTimeline = true
		case "ttl":
			p.TTL, err = time.ParseDuration(value)
			p.LoopWait, p.HungAfter = min(10*time.Second, p.TTL/3), ha.HungAfter(p.TTL)
		case "count":
			p.SyncCount, err = strconv.Atoi(value)
		case "clones":
			p.CloneLimit, err = strconv.Atoi(value)
		case "start":
			p.StartLimit, err = time.ParseDuration(value)
		case "backoff":
			p.RaceBackoff, err = time.ParseDuration(value)
		case "lag":
			p.MaxLag, err = strconv.ParseUint(value, 10, 64)
		default:
			err = fmt.Errorf("unknown word %q of a policy", word)
		}
		if err != nil {
			return p, err
		}
	}
	return p, nil
}

// Step is one line of a scenario: what is done, how long after the line before.
type Step struct {
	After   time.Duration
	Command string
}

// Scenario is a world and what happens to it. A failing schedule is kept as one.
type Scenario struct {
	Options Options
	Steps   []Step
	// Breaks is the invariant that is expected to break; 0: none.
	Breaks int
	header []string
}

// ReadScenario reads the format that testdata/README.md explains.
func ReadScenario(text string) (Scenario, error) {
	s := Scenario{Options: Options{Members: 3, Policy: usual(), Guard: true, Seed: 1}}
	var after time.Duration
	for n, line := range strings.Split(text, "\n") {
		words := strings.Fields(line)
		if len(words) == 0 || line[0] == '#' {
			continue
		}
		var err error
		switch words[0] {
		case "members", "seed", "guard", "bug", "policy", "tags", "starved", "breaks":
			err = s.head(words)
		case "after":
			var d time.Duration
			d, err = time.ParseDuration(words[1])
			after += d
		default:
			s.Steps = append(s.Steps, Step{after, strings.Join(words, " ")})
			after = 0
		}
		if err != nil {
			return s, fmt.Errorf("line %d: %w", n+1, err)
		}
	}
	if after > 0 {
		s.Steps = append(s.Steps, Step{after, ""})
	}
	return s, nil
}

func (s *Scenario) head(words []string) (err error) {
	o := &s.Options
	s.header = append(s.header, strings.Join(words, " "))
	switch words[0] {
	case "members":
		o.Members, err = strconv.Atoi(words[1])
	case "seed":
		o.Seed, err = strconv.ParseUint(words[1], 10, 64)
	case "guard":
		o.Guard = words[1] != "none"
	case "policy":
		o.Policy, err = ReadPolicy(o.Policy, words[1:])
	case "breaks":
		s.Breaks, err = strconv.Atoi(words[1])
	case "starved":
		o.Starved = true
	case "bug":
		err = o.Bugs.set(words[1])
	case "tags": // tags b nofailover=true clonefrom=true
		for len(o.Tags) < o.Members {
			o.Tags = append(o.Tags, nil)
		}
		tags := map[string]any{}
		for _, w := range words[2:] {
			name, value, _ := strings.Cut(w, "=")
			switch {
			case value == "true":
				tags[name] = true
			case name == "replicatefrom":
				tags[name] = value
			default:
				tags[name], err = strconv.Atoi(value)
			}
		}
		maps.Copy(tags, o.Tags[words[1][0]-'a'])
		o.Tags[words[1][0]-'a'] = tags
	}
	return err
}

func (b *Bugs) set(name string) error {
	switch name {
	case "keepalive-is-proof":
		b.KeepaliveIsProof = true
	case "unguarded-sync":
		b.UnguardedSync = true
	case "names-first":
		b.NamesFirst = true
	case "restarted-lsn":
		b.RestartedLSN = true
	case "orphans-ignored":
		b.OrphansIgnored = true
	case "word-forgotten":
		b.WordForgotten = true
	case "word-unseen":
		b.WordUnseen = true
	case "all-but-one":
		b.AllButOne = true
	case "list-as-seen":
		b.ListAsSeen = true
	case "round-from-its-end":
		b.RoundFromItsEnd = true
	case "late-recreate":
		b.LateRecreate = true
	default:
		return fmt.Errorf("unknown bug %q", name)
	}
	return nil
}

// Head adds a line to the head of the scenario, as in a file.
func (s *Scenario) Head(line string) error { return s.head(strings.Fields(line)) }

// Text is the scenario as a file.
func (s Scenario) Text() string {
	var b strings.Builder
	for _, h := range s.header {
		fmt.Fprintln(&b, h)
	}
	for _, st := range s.Steps {
		if st.After > 0 {
			fmt.Fprintf(&b, "after %s\n", st.After)
		}
		if st.Command != "" {
			fmt.Fprintln(&b, st.Command)
		}
	}
	return b.String()
}

// Play makes the world and lets the steps happen to it. The error says which expectation was not met; an invariant that
// broke is the world's Failure.
func (s Scenario) Play() (*World, error) {
	w := New(s.Options)
	for _, st := range s.Steps {
		w.Run(w.now+st.After, nil)
		if w.failure != nil {
			return w, nil
		}
		if err := w.stepLine(st); err != nil {
			return w, fmt.Errorf("at %s: %s: %w", w.now, st.Command, err)
		}
	}
	return w, nil
}

func (w *World) stepLine(st Step) error { return w.step(strings.Fields(st.Command)) }

func (w *World) step(words []string) error {
	if len(words) == 0 {
		return nil
	}
	switch words[0] {
	case "settle":
		return w.settle()
	case "healthy":
		return w.until(words[1:], w.Healthy)
	case "expect":
		return w.expect(words[1:])
	case "write":
		n, err := strconv.Atoi(words[1])
		for _, m := range w.members {
			for range n {
				if m.server.writable() && m.server.frozen == 0 {
					m.server.commit()
				}
			}
		}
		return err
	}
	return w.do(words)
}

// SettleBound is how long after the last fault a cluster may take to health.
func (w *World) SettleBound() time.Duration { return 3*w.opt.Policy.TTL + 150*time.Second }

// settle ends all faults and waits for health: invariant 6. A bounded number of turns belongs to it: invariant 7.
func (w *World) settle() error {
	w.Settle()
	if err := w.until(nil, w.Healthy); err != nil {
		w.broken(6, "not healthy %s after the last fault: %v", w.SettleBound(), err)
	}
	if w.history.turns > 3 {
		w.broken(7, "%d promotions after the last fault", w.history.turns)
	}
	return nil
}

// until waits, at most the given time or SettleBound, for what says what is missing to say nothing.
func (w *World) until(words []string, missing func() string) error {
	limit := w.SettleBound()
	if len(words) > 0 {
		d, err := time.ParseDuration(words[len(words)-1])
		if err != nil {
			return err
		}
		limit = d
	}
	for end := w.now + limit; ; {
		if missing() == "" || w.failure != nil {
			return nil
		}
		if w.now >= end {
			return fmt.Errorf("%s", missing())
		}
		w.Run(min(end, w.now+250*time.Millisecond), nil)
	}
}

// those lists the members that are so.
func (w *World) those(so func(m *member) bool) string {
	var names []string
	for _, m := range w.members {
		if so(m) {
			names = append(names, m.name)
		}
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ",")
}

// expect takes: leader NAME|none, sync TEXT, writable NAME,NAME|none, streaming NAME,NAME|none; of several words one has to fit.
func (w *World) expect(words []string) error {
	if len(words) < 2 {
		return fmt.Errorf("expect what?")
	}
	got := ""
	switch words[0] {
	case "leader":
		got = "none"
		if l := w.store.snap.Leader; l != nil {
			got = l.Name
		}
	case "sync":
		got = describeSync(w.store.snap.Sync)
	case "writable":
		got = w.those(func(m *member) bool { return m.server.writable() })
	case "streaming":
		got = w.those(func(m *member) bool {
			return m.server.alive() && m.server.receiver != nil && !m.server.receiver.garbled
		})
	}
	if want := strings.Join(words[1:], " "); got != want && !slices.Contains(words[1:], got) {
		return fmt.Errorf("it is %q", got)
	}
	return nil
}
