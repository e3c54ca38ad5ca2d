package check

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/havenha/haven/internal/cluster"
)

var update = flag.Bool("update", false, "write the expected reports anew")

const ms = time.Millisecond

// story is a history in the making: one operation after another, unless told otherwise.
type story struct {
	History
	now  time.Duration
	last int64
}

// op adds an acknowledged operation of 4 ms on member a, timeline 1, as changed.
func (s *story) op(kind Kind, change ...func(*Operation)) int64 {
	s.last++
	o := Operation{ID: s.last, Client: 1, Session: 1, Kind: kind, Route: "proxy", Start: s.now, End: s.now + 4*ms, Outcome: OK, Member: "a", Timeline: 1}
	for _, c := range change {
		c(&o)
	}
	s.now = max(s.now+10*ms, o.End+ms)
	s.Operations = append(s.Operations, o)
	return o.ID
}

func key(k string) func(*Operation)  { return func(o *Operation) { o.Key = k } }
func reads(v int64) func(*Operation) { return func(o *Operation) { o.Output = &Output{Value: v} } }
func listing(v ...int64) func(*Operation) {
	return func(o *Operation) { o.Output = &Output{List: v} }
}

func expects(v int64) func(*Operation) {
	return func(o *Operation) { o.Input = &Input{Expect: v} }
}

func ends(as Outcome, code string) func(*Operation) {
	return func(o *Operation) { o.Outcome, o.SQLSTATE, o.Output, o.Member, o.Timeline = as, code, nil, "", 0 }
}

func by(member string, timeline cluster.Timeline) func(*Operation) {
	return func(o *Operation) { o.Member, o.Timeline = member, timeline }
}

func since(start time.Duration) func(*Operation) { return func(o *Operation) { o.Start = start } }

func moves(from, to int, amount int64) func(*Operation) {
	return func(o *Operation) { o.Input = &Input{From: from, To: to, Amount: amount} }
}

func session(n int) func(*Operation) { return func(o *Operation) { o.Session = n } }

// healthy is a story in which everything is as it should be: the cases change one thing each.
//
//	1, 2 ledger; 3 failed; 4 unknown; 5 write r0, 6 read, 7 cas; 8 failed cas; 9, 10 append; 11 transfer; 12 sum; 13, 14 session
func healthy() *story {
	s := &story{History: History{Header: Header{Format: Format, Note: "planted", Accounts: 2, Balance: 100}}, now: 10 * ms}
	s.op(Ledger)
	s.op(Ledger)
	s.op(Ledger, ends(Failed, "25006"))
	s.op(Ledger, ends(Unknown, "57P01"))
	s.op(RegisterWrite, key("r0"))
	s.op(RegisterRead, key("r0"), reads(5))
	s.op(RegisterCAS, key("r0"), expects(5), reads(5))
	s.op(RegisterCAS, key("r0"), expects(5), reads(7))
	s.op(ListAppend, key("l0"), listing(9))
	s.op(ListAppend, key("l0"), listing(9, 10))
	s.op(Transfer, moves(0, 1, 30))
	s.op(Sum, reads(200))
	s.op(SessionWrite, key("c1"))
	s.op(SessionRead, key("c1"), reads(13))
	s.addFinal(Final{
		Ledger: []int64{1, 2, 4}, Registers: map[string]int64{"r0": 7}, Lists: map[string][]int64{"l0": {9, 10}}, Sessions: map[string]int64{"c1": 13},
		Balances: map[int]int64{0: 70, 1: 130}, Transfers: []Moved{{ID: 11, From: 0, To: 1, Amount: 30}}, Complete: true,
	})
	return s
}

type planted struct {
	name    string
	change  func(s *story)
	failing string // the check that finds it; empty: none
	verdict Verdict
}

// plants are violations of every kind, and what looks like one and is none.
func plants() []planted {
	return slices.Concat(contentPlants(), termPlants(), objectPlants(), otherPlants())
}

func contentPlants() []planted {
	return []planted{
		{"nothing", func(*story) {}, "", Pass},
		{"unknown-and-absent", func(s *story) { s.Final.Ledger = []int64{1, 2} }, "", Pass},
		{"row-lost", func(s *story) { s.Final.Ledger = []int64{1, 4} }, CheckAcknowledged, Fail},
		{"transfer-lost", func(s *story) { s.Final.Transfers, s.Final.Balances = nil, map[int]int64{0: 100, 1: 100} }, CheckAcknowledged, Fail},
		{"refused-is-there", func(s *story) { s.Final.Ledger = []int64{1, 2, 3} }, CheckRefused, Fail},
		{"row-twice", func(s *story) { s.Final.Ledger = []int64{1, 2, 2} }, CheckTwice, Fail},
		{"element-twice", func(s *story) { s.Final.Lists["l0"] = []int64{9, 10, 9} }, CheckTwice, Fail},
		{"row-of-nobody", func(s *story) { s.Final.Ledger = []int64{1, 2, 77} }, CheckForeign, Fail},
		{"not-read-back", func(s *story) { s.Final = nil }, CheckAcknowledged, Inconclusive},
		{"read-back-in-part", func(s *story) { s.Final.Complete, s.Final.Ledger = false, nil }, CheckAcknowledged, Inconclusive},
		{"lost-without-a-promise", func(s *story) { s.Header.SynchronousCommit, s.Final.Ledger = "off", []int64{1} }, CheckAcknowledged, Inconclusive},
	}
}

func termPlants() []planted {
	failover := func(s *story) { s.Final.Ledger = append(s.Final.Ledger, s.op(Ledger, by("b", 2))) }
	return []planted{
		{"failover", failover, "", Pass},
		{"old-leader-acknowledges", func(s *story) { failover(s); s.op(SessionWrite, key("c2")); s.Final.Sessions["c2"] = s.last }, CheckTerms, Fail},
		{"old-leader-acknowledges-and-loses", func(s *story) { failover(s); s.op(Ledger) }, CheckTerms, Fail},
		{"late-answer-kept", func(s *story) {
			sent := s.now
			failover(s)
			s.Final.Ledger = append(s.Final.Ledger, s.op(Ledger, since(sent)))
		}, "", Pass},
		{"late-answer-lost", func(s *story) { sent := s.now; failover(s); s.op(Ledger, since(sent)) }, CheckAcknowledged, Fail},
		{"two-on-one-timeline", func(s *story) { s.Final.Ledger = append(s.Final.Ledger, s.op(Ledger, by("b", 1))) }, CheckTerms, Fail},
		{"two-addresses-on-one-timeline", func(s *story) {
			s.Final.Ledger = append(s.Final.Ledger, s.op(Ledger, by("10.0.0.1:5432", 1)))
		}, CheckTerms, Inconclusive},
		{"another-holds-the-term", func(s *story) {
			s.Terms = []Term{{Number: 1, Holder: "a", Timeline: 1}, {Number: 2, Holder: "c", Timeline: 2}}
			failover(s)
		}, CheckTerms, Fail},
	}
}

func objectPlants() []planted {
	unknownWrite := func(s *story) int64 { return s.op(RegisterWrite, key("r1"), ends(Unknown, "")) }
	return []planted{
		{"unknown-write-seen-late", func(s *story) {
			id := unknownWrite(s)
			s.op(RegisterRead, key("r1"), reads(0))
			s.op(RegisterRead, key("r1"), reads(id))
			s.Final.Registers["r1"] = id
		}, "", Pass},
		{"unknown-write-seen-and-unseen", func(s *story) {
			id := unknownWrite(s)
			s.op(RegisterRead, key("r1"), reads(id))
			s.op(RegisterRead, key("r1"), reads(0))
		}, CheckRegisters, Fail},
		{"failed-write-seen", func(s *story) {
			id := s.op(RegisterWrite, key("r1"), ends(Failed, "25006"))
			s.op(RegisterRead, key("r1"), reads(id))
		}, CheckRegisters, Fail},
		{"stale-read", func(s *story) { s.op(RegisterRead, key("r0"), reads(5)) }, CheckRegisters, Fail},
		{"write-lost", func(s *story) { s.Final.Registers["r0"] = 5 }, CheckRegisters, Fail},
		{"two-compare-and-set", func(s *story) {
			s.op(RegisterCAS, key("r0"), expects(7), reads(7))
			s.Final.Registers["r0"] = s.op(RegisterCAS, key("r0"), expects(7), reads(7))
		}, CheckRegisters, Fail},
		{"append-lost", func(s *story) { s.Final.Lists["l0"] = []int64{10} }, CheckLists, Fail},
		{"append-out-of-order", func(s *story) {
			s.op(ListRead, key("l0"), listing(10, 9))
		}, CheckLists, Fail},
		{"unknown-append-seen", func(s *story) {
			id := s.op(ListAppend, key("l0"), ends(Unknown, ""))
			s.op(ListRead, key("l0"), listing(9, 10, id))
			s.Final.Lists["l0"] = []int64{9, 10, id}
		}, "", Pass},
	}
}

func otherPlants() []planted {
	return []planted{
		{"sum-of-half-a-transfer", func(s *story) { s.op(Sum, reads(170)) }, CheckSums, Fail},
		{"balance-changed", func(s *story) { s.Final.Balances[1] = 131 }, CheckSums, Fail},
		{"session-reads-back", func(s *story) { s.op(SessionRead, key("c1"), reads(0)) }, CheckSessions, Fail},
		{"new-session-reads-old", func(s *story) { s.op(SessionRead, key("c1"), reads(0), session(2)) }, "", Pass},
		{"standby-reads-old", func(s *story) {
			s.op(SessionRead, key("c1"), reads(0), by("b", 0), func(o *Operation) { o.Standby = true })
		}, "", Pass},
		{"late-write-lands-over-a-newer-one", func(s *story) {
			late := s.op(SessionWrite, key("c1"), ends(Unknown, ""))
			s.op(SessionWrite, key("c1"), session(2))
			s.op(SessionRead, key("c1"), reads(late), session(2))
			s.Final.Sessions["c1"] = late
		}, "", Pass},
		{"session-row-set-back", func(s *story) { s.Final.Sessions["c1"] = 0 }, CheckSessions, Fail},
		{"never-back", func(s *story) {
			s.Faults = []Fault{{Name: "kill", Target: "a", Begin: s.now, End: s.now + 50*ms}}
			s.now += 100 * ms
			s.op(Ledger, ends(Failed, "57P03"))
		}, CheckLiveness, Fail},
		{"nothing-before-the-fault", func(s *story) {
			s.Faults = []Fault{{Name: "kill", Target: "a", Begin: 1}}
		}, CheckLiveness, Inconclusive},
		{"outage", outage, "", Pass},
	}
}

// outage is a ledger, two faults, and what they cost.
func outage(s *story) {
	*s = story{now: 10 * ms}
	s.Final = &Final{Complete: true, Ledger: []int64{s.op(Ledger)}}
	for _, name := range []string{"kill", "cut"} {
		s.Faults = append(s.Faults, Fault{Name: name, Target: "a", Begin: s.now, End: s.now + 50*ms})
		s.op(Ledger, ends(Unknown, "57P01"))
		s.op(Ledger, ends(Failed, ""), func(o *Operation) { o.Error = "connect: refused" })
		s.now += 700 * ms
		s.Final.Ledger = append(s.Final.Ledger, s.op(Ledger))
	}
}

// TestPlanted: every violation is found by the check that is made for it, and its report reads as recorded.
func TestPlanted(t *testing.T) {
	for _, p := range plants() {
		t.Run(p.name, func(t *testing.T) {
			s := healthy()
			p.change(s)
			r := Judge(&s.History)
			golden(t, filepath.Join("planted", p.name+".txt"), r.Text())
			if r.Verdict != p.verdict {
				t.Errorf("verdict %s, want %s:\n%s", r.Verdict, p.verdict, r.Text())
			}
			if p.failing == "" {
				return
			}
			if c, _ := r.Check(p.failing); c.Verdict != p.verdict {
				t.Errorf("check %s says %s", p.failing, c.Verdict)
			}
		})
	}
}

func golden(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), text); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

// TestSearchIsBounded: what cannot be decided within the limits is no pass.
func TestSearchIsBounded(t *testing.T) {
	s := healthy()
	limits := DefaultLimits()
	limits.Steps = 2
	r := JudgeWithin(&s.History, limits)
	if c, _ := r.Check(CheckRegisters); c.Verdict != Inconclusive || r.Verdict != Inconclusive {
		t.Errorf("a search that was given up is judged:\n%s", r.Text())
	}
}

// TestManyViolationsAreCounted: the report stays short, and does not hide how many there are.
func TestManyViolationsAreCounted(t *testing.T) {
	s := healthy()
	for range 100 {
		s.op(Ledger)
	}
	c, _ := Judge(&s.History).Check(CheckAcknowledged)
	if c.Count != 100 || len(c.Violations) != DefaultLimits().Shown {
		t.Errorf("%d violations, %d shown", c.Count, len(c.Violations))
	}
}

func TestEmptyHistoryIsInconclusive(t *testing.T) {
	if r := Judge(&History{}); r.Verdict != Inconclusive {
		t.Errorf("nothing is judged %s", r.Verdict)
	}
}

// TestReportIsJSON: the report survives its JSON form.
func TestReportIsJSON(t *testing.T) {
	s := healthy()
	outage(s)
	r := Judge(&s.History)
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var again Report
	if err := json.Unmarshal(raw, &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r.Text(), again.Text()); diff != "" {
		t.Error(diff)
	}
}
